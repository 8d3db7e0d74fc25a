"""What docs/deploy offers is right, as far as that can be told without a systemd or a Docker that runs."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from client import PATIENCE

import c1m

DEPLOY = Path(__file__).parent.parent / "docs" / "deploy"


# ---- units ----


def test_the_units_are_right(tmp_path):
    """systemd-analyze finds unknown keys and wrong values; that c1m is not in /opt here is none."""
    analyze = shutil.which("systemd-analyze") or pytest.skip("systemd-analyze is not installed")
    for name in ("c1m.service", "c1m.socket"):
        text = (DEPLOY / name).read_text().replace("/opt/c1m/bin/c1m", shutil.which("true"))
        (tmp_path / name).write_text(text)
    done = subprocess.run(
        [analyze, "verify", "--man=no", "--recursive-errors=no", tmp_path / "c1m.service", tmp_path / "c1m.socket"],
        capture_output=True, text=True, timeout=PATIENCE,
    )
    assert [line for line in done.stderr.splitlines() if "c1m." in line] == []
    # And it would have found something.
    (tmp_path / "c1m.service").write_text(text.replace("[Socket]", "[Service]\nExecStrat=x\n"))
    done = subprocess.run(
        [analyze, "verify", "--man=no", "--recursive-errors=no", tmp_path / "c1m.service"],
        capture_output=True, text=True, timeout=PATIENCE,
    )
    assert "ExecStrat" in done.stderr


def test_what_the_unit_runs_is_right(tmp_path):
    """The command of ExecStart, as `c1m serve --check` sees it, with a file of its own."""
    [line] = [line for line in (DEPLOY / "c1m.service").read_text().splitlines() if line.startswith("ExecStart=")]
    arguments = line.split()[1:]
    assert arguments[-1] == "/etc/c1m/c1m.toml"
    (tmp_path / "c1m.toml").write_text('root = "."\n')
    done = subprocess.run(
        [sys.executable, "-m", "c1m", *arguments[:-1], tmp_path / "c1m.toml", "--check"],
        capture_output=True, text=True, timeout=PATIENCE,
    )
    assert (done.returncode, done.stderr) == (0, "")


# ---- the Dockerfile ----


def instructions():
    """(instruction, arguments) of the Dockerfile, in its order."""
    text = re.sub(r"^#.*\n", "", (DEPLOY / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", "")
    return [tuple(line.split(" ", 1)) for line in text.splitlines() if line]


def of(name):
    """The arguments of the last of that name."""
    return [arguments for each, arguments in instructions() if each == name][-1]


def test_it_runs_as_nobody_in_particular_and_is_stopped_by_a_drain():
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", of("USER"))
    assert of("STOPSIGNAL") == "SIGTERM"
    assert of("EXPOSE") == "8001"


def test_what_it_runs_is_right(tmp_path):
    name, *arguments = json.loads(of("ENTRYPOINT"))
    assert name == "c1m"
    assert json.loads(of("CMD")) == ["/srv"]
    done = subprocess.run(
        [sys.executable, "-m", "c1m", *arguments, tmp_path, "--check"],
        capture_output=True, text=True, timeout=PATIENCE,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert f"would serve {tmp_path}" in done.stdout
    assert "http://127.0.0.1:8001/" in done.stdout


def test_its_health_check_tells_a_server_from_none():
    _, _, command = of("HEALTHCHECK").partition("CMD ")
    python, option, script = json.loads(command)
    assert (python, option) == ("python", "-c")
    with c1m.Server(ports=[0]) as server:
        script = script.replace("8001", str(server.ports[0]))
        assert subprocess.run([sys.executable, "-c", script], timeout=PATIENCE).returncode == 0     # though it is a 404
    assert subprocess.run([sys.executable, "-c", script], timeout=PATIENCE, capture_output=True).returncode == 1

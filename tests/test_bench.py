"""The arithmetic of the benchmarks, their tables and charts; and a run of them, for real, of one short load."""

import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from client import PATIENCE, until

BENCH = Path(__file__).parent.parent / "bench"
sys.path.insert(0, str(BENCH))

import charts  # noqa: E402
import compare_commits  # noqa: E402
import harness  # noqa: E402
import loads  # noqa: E402
import results  # noqa: E402
import run  # noqa: E402
from servers import CONTENDERS, Lab  # noqa: E402

COMMITTED = sorted(results.RESULTS.glob("*.json"))
needs_gcc = pytest.mark.skipif(not shutil.which("gcc"), reason="gcc is not installed: there is no floor")


def rounds(*costs, limited=False):
    return [{"cpu_us": cost, "rate": 1000 / cost, "p99_us": 5 * cost, "limited": limited} for cost in costs]


def run_on(cpu="Some CPU", began="2025-01-01T00:00:00+00:00"):
    machine = {"cpu": cpu, "cpus": 2, "kernel": "Linux 6.1", "python": "3.11.1"}
    return {"began": began, "machine": machine, "commit": "0123456789", "rounds": 3, "seconds": 2.0, "arguments": [],
            "versions": dict.fromkeys(CONTENDERS, "1.2")}


def sample():
    return results.merged(None, run_on(), {
        "small": {"floor": rounds(4.0, 5.0, 6.0), "c1m": rounds(4.4, 5.0, 6.3), "h2o": rounds(6, 6, 9),
                  "bun": rounds(5, 6, 7), "nginx": [{"error": "it ended with status 1"}]},
        "echo": {"floor": rounds(2.0), "c1m": rounds(1.0), "c1m-handler": rounds(2.5), "bun": rounds(40)},
        "idle": {"floor": [{"bytes_each": -1.0}], "c1m": [{"bytes_each": 63.2}], "bun": [{"bytes_each": 1530.0}]},
    })


# ---- figures ----


def test_a_figure_is_the_median_with_the_least_and_the_most():
    figure = results.figure_of(rounds(3.0, 1.0, 2.0), rounds(1.0, 1.0, 1.0))
    assert figure.cost == results.Spread(2.0, 1.0, 3.0)
    assert (figure.rate, figure.p99_us, figure.limited) == (500, 10, False)


def test_a_ratio_is_to_the_floor_of_the_same_round():
    figure = results.figure_of(rounds(2.0, 30.0, 400.0), rounds(1.0, 10.0, 100.0))
    assert figure.ratio == results.Spread(3.0, 2.0, 4.0)       # 400 / 10 would be that of the medians


def test_where_there_was_an_error_there_is_no_figure():
    assert results.figure_of([*rounds(1.0), {"error": "3 times reset"}], rounds(1.0, 1.0)) is None
    assert results.figure_of([], []) is None


def test_where_the_floor_failed_there_is_no_ratio():
    figure = results.figure_of(rounds(2.0), [{"error": "it ended"}])
    assert figure.ratio is None
    assert figure.cost.median == 2.0


def test_one_round_with_the_load_as_the_limit_makes_it_so():
    assert results.figure_of(rounds(1.0) + rounds(1.0, limited=True), rounds(1.0, 1.0)).limited


@pytest.mark.parametrize(("value", "shown"), [(0.984, "0.98"), (9.996, "10.0"), (13.34, "13.3"), (99.96, "100"),
                                              (1234.5, "1,234")])
def test_figures_have_three_digits(value, shown):
    assert results.short(value) == shown


@pytest.mark.parametrize(("value", "shown"), [(-3, "0 B"), (63.2, "63 B"), (999, "999 B"), (1530, "1.53 KB"),
                                              (28_512, "28.5 KB")])
def test_sizes(value, shown):
    assert results.size(value) == shown


# ---- the file ----


def test_a_load_that_is_measured_again_replaces_what_was_there():
    kept = sample()
    again = results.merged(kept, run_on(began="2025-02-02T00:00:00+00:00"), {"small": {"floor": rounds(7.0)}})
    assert again["loads"]["small"] == {"run": "2025-02-02T00:00:00+00:00", "servers": {"floor": rounds(7.0)}}
    assert again["loads"]["echo"] == kept["loads"]["echo"]
    assert list(again["runs"]) == ["2025-01-01T00:00:00+00:00", "2025-02-02T00:00:00+00:00"]


def test_a_run_whose_loads_were_all_replaced_goes():
    kept = results.merged(None, run_on(), {"small": {"floor": rounds(1.0)}})
    again = results.merged(kept, run_on(began="later"), {"small": {"floor": rounds(2.0)}})
    assert list(again["runs"]) == ["later"]


def test_loads_stand_in_their_order_whatever_was_measured_first():
    kept = results.merged(None, run_on(), {"idle": {}, "echo": {}})
    assert list(results.merged(kept, run_on(), {"small": {}})["loads"]) == ["small", "echo", "idle"]


def test_results_of_two_machines_are_not_merged():
    with pytest.raises(harness.Failed, match="another machine, Some CPU"):
        results.merged(sample(), run_on("Other CPU"), {})


def test_what_is_written_is_read_and_has_a_line_for_each_round(tmp_path):
    file = tmp_path / "new" / "some.json"
    results.write(file, sample())
    assert results.read(file) == results.rounded(sample())
    assert '{ "cpu_us": 4.4, "rate": 227.27, "p99_us": 22.0, "limited": false }' in file.read_text()
    assert list(file.parent.iterdir()) == [file]


def test_figures_are_kept_to_five_digits():
    assert results.rounded({"a": [1.23456789, True, 7, "x"], "b": 1234567.8}) == {"a": [1.2346, True, 7, "x"],
                                                                                  "b": 1234600.0}


@pytest.mark.parametrize("text", ["{", "[]", '{"runs": 1}'])
def test_a_file_that_is_not_ours_is_left_alone(tmp_path, text):
    file = tmp_path / "x.json"
    file.write_text(text)
    with pytest.raises(harness.Failed, match="is not what"):
        results.read(file)


# ---- rendering ----


def test_the_table():
    lines = results.markdown_table(sample()).splitlines()
    assert lines[2] == "| page of 113 bytes, 50 connections | 5.00 µs | 1.05 | bun† 1.20, h2o 1.50, nginx failed |"
    assert lines[3] == "| echo of 20 bytes, 50 connections | 2.00 µs | 0.50, handler 1.25 | bun 20.0 |"
    assert lines[4] == "| 10,000 idle WebSockets, memory for each | 0 B | 63 B | bun 1.53 KB |"


def test_a_table_for_a_terminal_has_the_error_in_place_of_figures():
    text = results.text_table("small", sample()["loads"]["small"]["servers"])
    assert re.search(r"^  nginx +it ended with status 1$", text, re.M)
    assert re.search(r"^  c1m +5\.00 +4\.40 to 6\.30 +1\.05 +1\.00 to 1\.10 +200 +25$", text, re.M)


def test_a_rate_that_the_load_limited_is_marked():
    assert " >1,000 " in results.text_table("small", {"floor": rounds(1.0, limited=True)})


def test_what_was_measured_with_which_versions():
    said = results.circumstances(sample())
    assert said.startswith("Some CPU, 2 CPUs, Linux 6.1, CPython 3.11.1, commit 0123456789; floor 1.2, c1m 1.2, h2o")
    assert said.endswith("Medians of 1 or 3 rounds of 2 s.")


def test_a_page_shows_results_between_its_marks(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- figures: old -->\nold\n<!-- /figures -->\nafter\n")
    assert results.shown_in(page) == "old"
    results.show_in(page, "new", sample())
    text = page.read_text()
    assert text.startswith("before\n<!-- figures: new -->\n| load |")
    assert text.endswith("<!-- /figures -->\nafter\n")
    assert "\nold\n" not in text


def test_a_page_without_marks_is_left_alone(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("text")
    with pytest.raises(harness.Failed, match="has no <!-- figures"):
        results.show_in(page, "new", sample())


@pytest.mark.parametrize("file", COMMITTED, ids=[file.stem for file in COMMITTED])
def test_what_is_committed_is_what_its_results_render_to(file):
    found = results.read(file)
    if results.shown_in(results.README) == file.stem:
        assert results.markdown(file.stem, found) in results.README.read_text()
    for protocol, websocket in (("http", False), ("websocket", True)):
        assert (file.parent / f"{file.stem}-{protocol}.svg").read_text() == charts.chart(found, websocket)


def test_the_readme_shows_results_that_are_there():
    assert results.shown_in(results.README) in [file.stem for file in COMMITTED]


def test_a_chart_has_a_bar_for_each_server_but_the_floor():
    root = ElementTree.fromstring(charts.chart(sample(), False))
    names = [each.text for each in root.findall(".//{*}text[@text-anchor='end']")]
    assert names == ["c1m", "bun†", "h2o", "nginx"]
    assert "failed" in [each.text for each in root.findall(".//{*}text")]
    assert [each.get("class") for each in root.findall(".//{*}rect")] == ["back", "ours", "other", "other"]
    assert "prefers-color-scheme: dark" in root.find("{*}style").text


def test_bars_begin_at_the_floor_and_go_left_of_it_for_less():
    root = ElementTree.fromstring(charts.chart(sample(), True))
    ours, handler, other = [each for each in root.findall(".//{*}rect") if each.get("class") != "back"][:3]

    def span(bar):
        left = float(bar.get("x"))
        return left, left + float(bar.get("width"))

    assert span(ours)[1] == pytest.approx(span(handler)[0]) == pytest.approx(span(other)[0])


def test_there_is_no_chart_of_nothing():
    assert charts.chart({"runs": {}, "loads": {}}, False) is None


# ---- comparing commits ----


def test_a_ratio_of_commits_has_an_interval_around_it():
    ratio, low, high = compare_commits.ratio_of([(1.0, each) for each in (1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6)])
    assert ratio == 1.3
    assert 1.0 <= low < 1.3 < high <= 1.6


def test_what_drifts_for_both_makes_no_difference():
    assert compare_commits.ratio_of([(1.0, 2.0), (5.0, 10.0), (3.0, 6.0)]) == (2.0, 2.0, 2.0)


@pytest.mark.parametrize(("interval", "memory", "said"), [
    ((0.9, 0.99), False, "faster"), ((1.01, 1.2), False, "slower"), ((0.9, 1.1), False, ""),
    ((0.9, 0.99), True, "less"), ((1.01, 1.2), True, "more"),
])
def test_a_verdict_is_given_only_where_the_interval_is_on_one_side(interval, memory, said):
    assert compare_commits.verdict(*interval, memory) == said


def test_no_commit_of_that_name():
    if not shutil.which("git"):
        pytest.skip("git is not installed")
    with pytest.raises(harness.Failed, match="no-such-thing is no commit"):
        compare_commits.revision("no-such-thing")


# ---- servers ----


def test_each_server_names_loads_that_there_are():
    for contender in CONTENDERS.values():
        assert contender.loads
        assert contender.loads <= set(loads.LOADS)


def test_each_load_is_served_by_ours():
    assert CONTENDERS["floor"].loads == CONTENDERS["c1m"].loads == set(loads.LOADS)


def test_a_peer_that_is_missing_is_a_line_on_how_to_get_it(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    lab = Lab(tmp_path, None)
    lab.__dict__["packages"] = {"picows": "1.0"}         # but not uvloop
    assert run.find(lab, ["picows", "granian"]) == {}
    assert capsys.readouterr().out == ("picows is not installed: pip install picows uvloop\n"
                                       "granian is not installed: pip install granian\n")


def server(script):
    return harness.Server("it", lambda port: [sys.executable, "-c", script, str(port)])


def test_a_server_that_does_not_start_is_a_line_with_its_last_words():
    found = loads.measure(loads.LOADS["small"], server("print('so it is'); import sys; sys.exit('no room')"), 1)
    assert found == {"error": "it ended with status 1: no room"}


ANSWERS = """
import socket, sys, threading
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
def answer(client):
    while client.recv(4096):
        client.sendall(b"HTTP/1.1 500 No\\r\\nContent-Length: 0\\r\\n\\r\\n")
while True:
    threading.Thread(target=answer, args=[listener.accept()[0]], daemon=True).start()
"""


def test_a_load_with_errors_has_no_figure():
    found = loads.measure(loads.LOADS["small"], server(ANSWERS), 1)
    assert set(found) == {"error"}
    assert re.fullmatch(r"\d+ times status 500", found["error"])


def test_a_server_that_dies_under_its_load_is_told():
    script = ANSWERS.replace("while client.recv(4096):", "import os\n    if client.recv(4096):\n        os._exit(3)")
    found = loads.measure(loads.LOADS["small"], server(script), 1)
    assert found == {"error": "it ended with status 3"}


# ---- the command ----


def bench(place, *arguments):
    command = [sys.executable, BENCH / "run.py", *arguments, "--to", place / "results", "--name", "smoke"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            env=os.environ | {"TMPDIR": str(place)})


def left(place):
    """Processes that have something to do with a place."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(place).encode() in file.read_bytes():
                found.append(file)
        except OSError:
            pass
    return found


@needs_gcc
def test_one_load_for_real(tmp_path):
    process = bench(tmp_path, "small", "--servers", "c1m", "--rounds", "1", "--seconds", "2")
    out, errors = process.communicate(timeout=4 * PATIENCE)
    assert process.returncode == 0, errors
    assert "small: page of 113 bytes, 50 connections" in out
    assert re.search(r"about \d+ min$", out, re.M)
    found = json.loads((tmp_path / "results" / "smoke.json").read_text())
    load = found["loads"]["small"]
    assert set(load["servers"]) == {"floor", "c1m"}
    for once in itertools.chain(*load["servers"].values()):
        assert once["cpu_us"] > 0
        assert once["rate"] > 0
    assert found["runs"][load["run"]]["versions"]["c1m"]
    ElementTree.parse(tmp_path / "results" / "smoke-http.svg")
    assert left(tmp_path) == []


@needs_gcc
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_keeps_what_is_whole_and_leaves_nothing_running(tmp_path, number):
    process = bench(tmp_path, "small", "--servers", "c1m", "--rounds", "1000", "--seconds", "1")
    for line in process.stderr:
        if "c1m, round 2" in line:
            break
    process.send_signal(number)
    _, errors = process.communicate(timeout=PATIENCE)
    assert "interrupted" in errors
    assert "Traceback" not in errors
    found = json.loads((tmp_path / "results" / "smoke.json").read_text())["loads"]["small"]["servers"]
    assert {name: len(each) for name, each in found.items()} == {"floor": 1, "c1m": 1}
    until(lambda: left(tmp_path) == [], "its processes to end")


@pytest.mark.parametrize(("arguments", "said"), [
    (["nothing"], "nothing: no such load; there are small, 304"),
    (["--servers", "c1m,apache"], "no such server: apache; there are floor, c1m"),
    (["--rounds", "0"], "'0' is not a number of 1 and up"),
    (["--seconds", "0.1"], "'0.1' is not a number of seconds, 1 to 3600"),
    (["--peers", "/nowhere"], "/nowhere is no virtual environment"),
    (["--render", "../x"], "'../x' is not a name"),
    (["--render", "nothing"], "there is no "),
])
def test_mistakes_are_a_line(tmp_path, arguments, said):
    process = bench(tmp_path, *arguments)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode in (1, 2)
    assert said in errors.splitlines()[-1]

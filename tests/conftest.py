"""What all tests share."""

import contextlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys

import outside
import pytest
from hypothesis import HealthCheck, settings

# Nothing here is timed: a slow machine, or a sanitizer, must not make a test fail. In CI the examples are the
# same on every run, so that a red build is about the change at hand.
settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("default"), derandomize=True, database=None)
settings.load_profile("ci" if os.environ.get("CI") else "default")


def missing(what, where="in a browser"):
    reason = f"{what} is not installed: nothing can be tested {where}"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if importlib.util.find_spec("selenium") is None:
        missing("selenium")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or missing("chromium")
    chromedriver = shutil.which("chromedriver") or missing("chromedriver")
    with outside.chromium(chromium, chromedriver, tmp_path_factory.mktemp("chromium")) as driver:
        yield driver


@pytest.fixture
def serving():
    """Starts `c1m serve` and reads its greeting; returns the process, with its greeting and port."""
    with contextlib.ExitStack() as stack:
        def start(*arguments, command=(sys.executable, "-m", "c1m"), **options):
            process = subprocess.Popen(
                [*command, "serve", *map(str, arguments)],
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            process.greeting = []
            while not process.greeting or "Ctrl-C" not in process.greeting[-1]:
                line = process.stdout.readline()
                assert line, process.stderr.read()
                process.greeting.append(line.rstrip("\n"))
            process.port = int(re.search(r"http://\S+:(\d+)/", "\n".join(process.greeting))[1])
            return process

        yield start


def pytest_xdist_auto_num_workers(config):
    """Two processes for each CPU, for a test waits as long as it works."""
    return 2 * len(os.sched_getaffinity(0))

"""Programs of others that tests start: proxies and Chromium."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on, for who can't choose one itself."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running(
    program: str, arguments: Sequence[str | Path], port: int, package: str, **environment: str
) -> Iterator[None]:
    """A program, as long as this is entered, once it listens on the port. Ends the script where it is not installed, or
    ends itself at once.
    """
    binary = shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin")
    if binary is None:
        sys.exit(f"{program} is not installed: apt install {package}")
    process = subprocess.Popen([binary, *arguments], env=os.environ | environment, stderr=subprocess.PIPE)
    assert process.stderr is not None
    said: list[bytes] = []
    reader = threading.Thread(target=lambda: said.extend(process.stderr or ()))
    reader.start()
    try:
        while process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.01)
        else:
            reader.join()
            sys.exit(f"{program} ended with status {process.returncode}: {b''.join(said).decode()}")
        yield
    finally:
        process.terminate()
        process.wait()
        reader.join()


@contextlib.contextmanager
def nginx(place: Path, config: str, port: int) -> Iterator[None]:
    """nginx in a directory of its own. The configuration has `daemon off; master_process off;` in it."""
    file = place / "nginx.conf"
    file.write_text(config)
    with running("nginx", ["-p", place, "-e", place / "error.log", "-c", file], port, "nginx"):
        yield


@contextlib.contextmanager
def chromium(binary: str, chromedriver: str, profile: Path) -> Iterator[Any]:
    """A headless Chromium, driven by Selenium, with a profile of its own in that directory."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for argument in (
        "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        f"--user-data-dir={profile}",
    ):  # fmt: skip
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(chromedriver))
    try:
        driver.set_script_timeout(30)
        yield driver
    finally:
        driver.quit()

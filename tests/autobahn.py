"""Runs Autobahn's cases against the built-in echo: `pip install kosoku`, then `python tests/autobahn.py`; some minutes.

All 517 with shared compression; with compression dedicated to each connection the shorter ones of those about
compression again. Prints how many ended in which way. The exit status is 0 if every case is OK, three aside whose
outcome RFC 6455 leaves open: theirs is INFORMATIONAL.
"""

import collections
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import c1m

ALL = 517
OPEN_ENDED = {"7.1.6", "7.13.1", "7.13.2"}
# Of each part about compression: messages of 16 bytes to 4 KiB, and two in fragments.
SHORT = [
    f"{part}.{case}"
    for part in [*(f"12.{n}" for n in range(1, 6)), *(f"13.{n}" for n in range(1, 8))]
    for case in (1, 2, 3, 4, 5, 6, 11, 12)
]


def main() -> None:
    # Beside the interpreter first: a virtual environment's programs need not be on PATH.
    places = [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
    kosoku = shutil.which("kosoku", path=os.pathsep.join(places))
    if kosoku is None:
        sys.exit("kosoku is not installed: pip install kosoku")
    sound = [
        run(kosoku, "dedicated", [f"-i{case}" for case in SHORT], len(SHORT)),
        run(kosoku, "shared", [], ALL),
    ]
    sys.exit(not all(sound))


def run(kosoku: str, compression: str, selection: list[str], count: int) -> bool:
    """Runs some cases; returns whether there were so many and all ended well."""
    server = c1m.Server(ports=0)
    server.websocket("/", max_message=32 << 20, compression=compression)
    with tempfile.TemporaryDirectory() as reports:
        with server:
            address = f"127.0.0.1:{server.ports[0]}"
            subprocess.run([kosoku, *selection, "-p2", "-o", reports, address], check=False)
        index = json.loads(Path(reports, "index.json").read_text())
    results = {case: {found["behavior"], found["behaviorClose"]} for case, found in index[address].items()}
    verdicts = collections.Counter(" and ".join(sorted(found)) for found in results.values())
    wrong = [case for case, found in results.items() if not found <= allowed(case)]
    told = ", ".join(f"{times} {verdict}" for verdict, times in verdicts.most_common())
    print(f"compression {compression}, {len(results)} of {count} cases: {told}; {len(wrong)} wrong", *wrong, flush=True)
    return not wrong and len(results) == count


def allowed(case: str) -> set[str]:
    return {"OK", "INFORMATIONAL"} if case in OPEN_ENDED else {"OK"}


if __name__ == "__main__":
    main()

"""Runs the Autobahn cases against an echo of c1m's: `pip install kosoku`, then `python tests/autobahn.py`.

Prints how many cases ended in which way. The exit status is 0 if every case is OK, three aside whose outcome
RFC 6455 leaves open: theirs is INFORMATIONAL. Of the cases about compression, sections 12 and 13, only quick ones
are run, with either kind of compression; with --all all of them, which takes some ten minutes.
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

PLAIN = 301                      # cases in sections 1 to 10
OPEN_ENDED = {"7.1.6", "7.13.1", "7.13.2"}
COMPRESSED = [f"12.{part}" for part in range(1, 6)] + [f"13.{part}" for part in range(1, 8)]
# Cases of each part: messages of 16 bytes to 4 KiB, and two in fragments. kosoku itself fails in the first case.
QUICK = (2, 3, 4, 5, 6, 11, 12)
EVERY = range(2, 19)


def main() -> None:
    # Beside the interpreter first: a virtual environment's programs need not be on PATH.
    places = [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
    kosoku = shutil.which("kosoku", path=os.pathsep.join(places))
    if kosoku is None:
        sys.exit("kosoku is not installed: pip install kosoku")
    numbers = EVERY if sys.argv[1:] == ["--all"] else QUICK
    cases = [f"{part}.{number}" for part in COMPRESSED for number in numbers]
    sound = [
        run(kosoku, None, ["-x12.*", "-x13.*"], PLAIN),
        run(kosoku, "shared", [f"-i{case}" for case in cases], len(cases)),
        run(kosoku, "dedicated", [f"-i{case}" for case in cases], len(cases)),
    ]
    sys.exit(not all(sound))


def run(kosoku: str, compression: str | None, selection: list[str], count: int) -> bool:
    """Runs some cases; returns whether there were so many and all ended well."""
    server = c1m.Server(ports=0)
    server.websocket("/", max_message=32 << 20, compression=compression)
    with tempfile.TemporaryDirectory() as reports:
        with server:
            address = f"127.0.0.1:{server.ports[0]}"
            subprocess.run([kosoku, *selection, "-o", reports, address], check=False)
        index = json.loads(Path(reports, "index.json").read_text())
    results = {case: {found["behavior"], found["behaviorClose"]} for case, found in index[address].items()}
    verdicts = collections.Counter(" and ".join(sorted(found)) for found in results.values())
    for verdict, times in verdicts.items():
        print(f"{times:4} {verdict}")
    wrong = [case for case, found in results.items() if not found <= allowed(case)]
    print(f"compression {compression}: {len(results)} of {count} cases, {len(wrong)} wrong", *wrong, flush=True)
    return not wrong and len(results) == count


def allowed(case: str) -> set[str]:
    return {"OK", "INFORMATIONAL"} if case in OPEN_ENDED else {"OK"}


if __name__ == "__main__":
    main()

"""Checks what an sdist and a wheel hold, from the tree that they were made of: `contents.py SDIST WHEEL`."""

import re
import sys
import tarfile
import zipfile
from pathlib import Path


def files(*patterns: str) -> set[str]:
    return {str(path) for pattern in patterns for path in Path().glob(pattern) if path.is_file()}


def check(what: str, names: list[str], wanted: set[str], unwanted: str) -> None:
    missing = sorted(wanted - set(names))
    surplus = sorted(name for name in names if re.search(unwanted, name))
    if missing or surplus:
        sys.exit(f"{what}: lacks {missing}, should not have {surplus}")
    print(f"{what}: {len(names)} files")


_, sdist, wheel = sys.argv

with tarfile.open(sdist) as archive:
    names = [name.partition("/")[2] for name in archive.getnames()]
source = files("*.md", "*.toml", "LICENSE", "setup.py", "src/*.p*", "src/page/*")
beside = files(".ci/*", "docs/*.md", "docs/deploy/*", "examples/*.*", "tests/*.py", "tests/*.js", "tests/probes/*.pyx",
               "bench/*.*", "bench/peers/*.*", "bench/results/*.*")
check("sdist", names, source | beside, r"^build/|^src/.*\.c$|\.(so|o|pyc)$")

names = zipfile.ZipFile(wheel).namelist()
package = {name.replace("src/", "c1m/", 1) for name in source if name.startswith("src/")}
check("wheel", names, {name for name in package if not name.endswith(".pyx")}, r"\.(c|pyx|o|pyc)$")
modules = {name.partition(".")[0] for name in names if name.endswith(".so")}
if modules != {f"c1m/{path.stem}" for path in Path("src").glob("*.pyx")}:
    sys.exit(f"wheel: its extension modules are {sorted(modules)}")

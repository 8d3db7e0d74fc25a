"""Builds the extension modules; all metadata is in pyproject.toml."""

import os
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

if sys.platform != "linux":
    raise SystemExit(f"c1m is built on epoll and needs Linux, or a Linux container or WSL 2; this is {sys.platform}.")

from Cython.Build import cythonize  # only where it can be of use

LIBRARIES = {"deflate": ["z"], "files": ["crypto"], "ws": ["crypto"]}
HEADERS = {
    "openssl/sha.h": "OpenSSL's headers: apt install libssl-dev (Debian, Ubuntu) or dnf install openssl-devel (Fedora)",
    "zlib.h": "zlib's headers: apt install zlib1g-dev (Debian, Ubuntu) or dnf install zlib-devel (Fedora)",
}

# Cython looks for c1m/reactor.pxd in a folder called c1m; ours is called src.
root = Path(__file__).resolve().parent
package = root / "build" / "cimport" / "c1m"
package.parent.mkdir(parents=True, exist_ok=True)
if not package.is_symlink():
    package.symlink_to("../../src", target_is_directory=True)


def extensions(folder, prefix=""):
    """The extension modules whose sources lie in a folder, as C."""
    return cythonize(
        [
            Extension(
                f"c1m.{prefix}{path.stem}",
                [f"{folder}/{path.name}"],
                libraries=LIBRARIES.get(path.stem, []),
                # Conn.parser holds now one parser's struct and now another's.
                extra_compile_args=["-fno-strict-aliasing", *([] if "CFLAGS" in os.environ else ["-O3"])],
            )
            for path in sorted((root / folder).glob("*.pyx"))
        ],
        include_path=[str(package.parent)],
        build_dir="build/c",
        compiler_directives={
            "language_level": 3,
            "boundscheck": False,
            "wraparound": False,
            "initializedcheck": False,
            "cdivision": True,
        },
    )


class BuildExt(build_ext):
    """build_ext on all CPUs that names a missing header before the compiler does.

    Where it builds for those who work on c1m (`pip install -e`, `build_ext --inplace`) it makes the probes, too: the
    windows through which tests and benchmarks see the C modules. No wheel has them.
    """

    def finalize_options(self):
        if self.inplace or self.editable_mode:
            self.distribution.ext_modules += extensions("tests/probes", "_probe_")
        super().finalize_options()
        self.parallel = self.parallel or os.cpu_count()

    def build_extensions(self):
        probe = Path(self.build_temp, "probe.c")
        probe.parent.mkdir(parents=True, exist_ok=True)
        for header, remedy in HEADERS.items():
            probe.write_text(f"#include <{header}>\n")
            try:
                self.compiler.compile([str(probe)], output_dir=str(probe.parent))
            except Exception:
                raise SystemExit(f"c1m cannot be built without {remedy}") from None
        super().build_extensions()


setup(cmdclass={"build_ext": BuildExt}, ext_modules=extensions("src"))

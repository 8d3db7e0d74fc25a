import os
from collections.abc import Iterable, Mapping
from typing import Any

class Roots:
    def __init__(
        self,
        paths: Iterable[str | os.PathLike[str]],
        types: Mapping[str, str],
        openat2: bool = True,
        index: Iterable[str] = ("index.html",),
        follow_symlinks: bool = False,
        files_most: int = 16384,
        bytes_most: int = 67108864,
    ) -> None: ...
    def find(
        self, root: int, path: bytes, now_ms: int = 0, encoded: str | None = None
    ) -> dict[str, Any] | str | None: ...
    def forget(self, now_ms: int) -> None: ...
    def counters(self) -> dict[str, int]: ...

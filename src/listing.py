"""What a directory without an index shows: a page for people, or JSON for programs."""

from __future__ import annotations

import json
import os
import stat
from datetime import UTC, datetime
from hashlib import sha256
from html import escape
from itertools import islice
from urllib.parse import quote

MOST = 3_000
"""Entries of one directory that are looked at: some 50 ms at the worst, in which nobody else is answered."""

_FRESH_MS = 1000  # as long as a file is
_KEPT = 16  # listings, half a megabyte each at the worst but for odd names

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }}
body {{ max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }}
h1 {{ font-size: 1.25rem; overflow-wrap: anywhere; }}
table {{ width: 100%; border-collapse: collapse; }}
th {{ text-align: left; font-weight: 600; }}
th, td {{ padding: .3rem .5rem; border-bottom: 1px solid color-mix(in srgb, currentColor 20%, transparent); }}
td:first-child {{ overflow-wrap: anywhere; }}
td:nth-child(2), th:nth-child(2) {{ text-align: right; }}
td:nth-child(n+2) {{ white-space: nowrap; font-variant-numeric: tabular-nums; }}
@media (max-width: 30rem) {{ td:nth-child(3), th:nth-child(3) {{ display: none; }} }}
</style>
<h1>{title}</h1>
<table>
<thead><tr><th scope="col">Name</th><th scope="col">Size</th><th scope="col">Modified (UTC)</th></tr></thead>
<tbody>
{rows}
</tbody>
</table>
{rest}
</html>
"""


class Listings:
    """The listings that a server has made, each of them once a second at most, however often it is asked for."""

    def __init__(self) -> None:
        self._made: dict[tuple[int, int, int, bytes, bool], tuple[int, tuple[bytes, bytes]]] = {}  # the oldest first

    def page(self, directory: int, root: int, path: bytes, as_json: bool, now_ms: int) -> tuple[bytes, bytes]:
        """As page() has it, at most a second old, and its ETag. now_ms: of any clock that does not go back."""
        status = os.fstat(directory)
        key = (status.st_dev, status.st_ino, root, path, as_json)
        if key in self._made and now_ms - self._made[key][0] < _FRESH_MS:
            return self._made[key][1]
        text = page(directory, root, path, as_json)
        made = text, b'"%s"' % sha256(text).hexdigest()[:32].encode()
        self._made.pop(key, None)
        self._made[key] = now_ms, made
        if len(self._made) > _KEPT:
            del self._made[next(iter(self._made))]
        return made


def page(directory: int, root: int, path: bytes, as_json: bool) -> bytes:
    """The listing of an open directory, whose URL path is given unescaped: folders first, then files, each by name.

    root: the open directory that links may not lead out of, -1 for none. What would not be served is not listed: names
    that begin with a dot, links out of the root, and what is neither file nor directory. Of a directory with more than
    MOST entries so many are looked at, whichever the file system names first; the page says so.
    Raises OSError if the directory can't be read.
    """
    inside = os.readlink(f"/proc/self/fd/{root}").rstrip("/") + "/" if root >= 0 else ""
    entries = []
    with os.scandir(directory) as found:
        looked_at = list(islice(found, MOST))
        all_seen = next(found, None) is None
    for entry in looked_at:
        if entry.name.startswith("."):
            continue
        try:
            if inside and entry.is_symlink() and not _target(directory, entry.name).startswith(inside):
                continue
            status = entry.stat()
        except OSError:
            continue  # removed meanwhile, or a link to nowhere
        if stat.S_ISDIR(status.st_mode) or stat.S_ISREG(status.st_mode):
            entries.append((not stat.S_ISDIR(status.st_mode), entry.name, status.st_size, int(status.st_mtime)))
    entries.sort()
    if as_json:
        return json.dumps(
            [
                {"name": _text(name), "type": "file" if is_file else "directory", "modified": _time(modified)}
                | ({"size": size} if is_file else {})
                for is_file, name, size, modified in entries
            ]
        ).encode()
    rows = [] if path.count(b"/") == 1 else ['<tr><td><a href="../">../</a></td><td></td><td></td></tr>']
    for is_file, name, size, modified in entries:
        slash = "" if is_file else "/"
        # A colon is escaped, too, so that no name reads as a scheme, and links begin as programs expect them to.
        rows.append(
            f'<tr><td><a href="{quote(os.fsencode(name))}{slash}">{escape(_text(name))}{slash}</a></td>'
            f'<td>{_size(size) if is_file else ""}</td><td>{_time(modified).replace("T", " ")[:16]}</td></tr>'
        )
    rest = "" if all_seen else f"<p>There are more than {MOST:,} entries; the others are not shown.</p>"
    title = escape(path.decode(errors="replace"))
    return _PAGE.format(title=title, rows="\n".join(rows), rest=rest).encode()


def _target(directory: int, name: str) -> str:
    """Where a link leads in the end. Raises OSError if that is nowhere."""
    # os.path.realpath looks at each part of the path itself, and takes several times as long.
    target = os.open(name, os.O_PATH, dir_fd=directory)
    try:
        return os.readlink(f"/proc/self/fd/{target}") + "/"
    finally:
        os.close(target)


def _text(name: str) -> str:
    """A file name as text; bytes in it that are not UTF-8 show as replacement characters."""
    return os.fsencode(name).decode(errors="replace")


def _time(seconds: int) -> str:
    """What lies before 1970 or after 9999, as a file's time may, becomes their first or last second."""
    seconds = max(0, min(seconds, 253402300799))
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _size(n: float) -> str:
    """In powers of 1024, with three digits or so."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if n < 1024:
            return f"{n:.3g} {unit}" if n < 1000 or unit == "B" else f"{n:.0f} {unit}"
        n /= 1024
    return f"{n:.3g} TiB"

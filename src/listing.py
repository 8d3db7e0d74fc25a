"""What a directory without an index shows: a page for people, or JSON for programs."""

from __future__ import annotations

import json
import os
import stat
from datetime import UTC, datetime
from html import escape
from urllib.parse import quote

MOST = 10_000
"""Entries shown of one directory; a page that said more would help nobody and hold up everyone."""

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


def page(directory: int, root: int, path: bytes, as_json: bool) -> bytes:
    """The listing of an open directory, whose URL path is given unescaped: folders first, then files, each by name.

    root: the open directory that links may not lead out of, -1 for none. What would not be served is not listed: names
    that begin with a dot, links out of the root, and what is neither file nor directory.
    Raises OSError if the directory can't be read.
    """
    entries = []
    with os.scandir(directory) as found:
        for entry in found:
            if entry.name.startswith("."):
                continue
            if root >= 0 and entry.is_symlink() and _leads_out(directory, root, entry.name):
                continue
            try:
                status = entry.stat()
            except OSError:
                continue  # removed meanwhile, or a link to nowhere
            if stat.S_ISDIR(status.st_mode) or stat.S_ISREG(status.st_mode):
                entries.append((not stat.S_ISDIR(status.st_mode), entry.name, status.st_size, int(status.st_mtime)))
    entries.sort()
    left_out = len(entries) - MOST
    if as_json:
        return json.dumps(
            [
                {"name": _text(name), "type": "file" if is_file else "directory", "modified": _time(modified)}
                | ({"size": size} if is_file else {})
                for is_file, name, size, modified in entries[:MOST]
            ]
        ).encode()
    rows = [] if path.count(b"/") == 1 else ['<tr><td><a href="../">../</a></td><td></td><td></td></tr>']
    for is_file, name, size, modified in entries[:MOST]:
        slash = "" if is_file else "/"
        # "./" in front, lest a name with a colon read as a scheme
        rows.append(
            f'<tr><td><a href="./{quote(os.fsencode(name))}{slash}">{escape(_text(name))}{slash}</a></td>'
            f'<td>{_size(size) if is_file else ""}</td><td>{_time(modified).replace("T", " ")[:16]}</td></tr>'
        )
    rest = f"<p>{left_out} more are not shown.</p>" if left_out > 0 else ""
    title = escape(path.decode(errors="replace"))
    return _PAGE.format(title=title, rows="\n".join(rows), rest=rest).encode()


def _leads_out(directory: int, root: int, name: str) -> bool:
    inside = os.path.realpath(f"/proc/self/fd/{root}")
    return os.path.commonpath((inside, os.path.realpath(f"/proc/self/fd/{directory}/{name}"))) != inside


def _text(name: str) -> str:
    """A file name as text; bytes in it that are not UTF-8 show as replacement characters."""
    return os.fsencode(name).decode(errors="replace")


def _time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _size(n: float) -> str:
    """In powers of 1024, with three digits or so."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if n < 1024:
            return f"{n:.3g} {unit}" if n < 1000 or unit == "B" else f"{n:.0f} {unit}"
        n /= 1024
    return f"{n:.3g} TiB"

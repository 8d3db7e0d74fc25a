"""Where the keys of a TOML document are: tomllib reads documents, but says of no key on which line it stands."""

from __future__ import annotations

import re
import tomllib
from typing import Any

Keys = tuple[str | int, ...]
"""The way to a value: keys of tables, and numbers of the elements of arrays."""

_KEY = re.compile(r"\"(?:[^\"\\\n]|\\.)*\"|'[^'\n]*'|[A-Za-z0-9_-]+")
_SCALAR = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}'
    r"|'''.*?'{3,5}"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|'[^'\n]*'"
    r"|[^\s,\[\]{}#\"']+(?: [0-9][^\s,\]}#]*)?",       # a date and a time may have a blank between them
    re.DOTALL,
)
_BETWEEN = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")


def lines_of(text: str) -> dict[Keys, int]:
    """The lines, counted from 1, of all the tables, keys and elements of a document that tomllib has read. A table has
    the line of its first header or, where it has none of its own, that of the first key in it.
    """
    return _Scan(text).lines


class _Scan:
    """One walk over a document. It is known to be right, so what stands where need not be checked."""

    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0
        self.line, self.counted = 1, 0           # the line of a place up to which they are counted
        self.lines: dict[Keys, int] = {}
        self.elements: dict[Keys, int] = {}      # how many each array of tables has so far
        table: Keys = ()
        self.skip()
        while self.at < len(text):
            if text[self.at] == "[":
                table = self.header()
            else:
                self.pair(table)
            self.skip()

    def skip(self) -> None:
        found = _BETWEEN.match(self.text, self.at)
        assert found is not None
        self.at = found.end()

    def note(self, keys: Keys, at: int) -> None:
        """Places come in their order in the text."""
        self.line += self.text.count("\n", self.counted, at)
        self.counted = at
        self.lines.setdefault(keys, self.line)

    def dotted(self) -> list[tuple[str, int]]:
        """A key, with the places of its parts; goes behind it and the blanks that follow."""
        parts = []
        while True:
            self.skip()
            found = _KEY.match(self.text, self.at)
            assert found is not None, f"no key at {self.at}"
            [key] = tomllib.loads(f"{found[0]} = 0")
            parts.append((key, self.at))
            self.at = found.end()
            self.skip()
            if self.text[self.at] != ".":
                return parts
            self.at += 1

    def header(self) -> Keys:
        """[a.b] or [[a.b]]; returns the table that it opens."""
        many = self.text.startswith("[[", self.at)
        self.at += 1 + many
        table: Keys = ()
        parts = self.dotted()
        for i, (key, at) in enumerate(parts):
            table = (*table, key)
            self.note(table, at)
            if many and i == len(parts) - 1:
                self.elements[table] = self.elements.get(table, 0) + 1
            if table in self.elements:
                table = (*table, self.elements[table] - 1)
                self.note(table, at)
        self.at += 1 + many
        return table

    def pair(self, table: Keys) -> None:
        """key = value"""
        for key, at in self.dotted():
            table = (*table, key)
            self.note(table, at)
        self.at += 1
        self.value(table)

    def value(self, keys: Keys) -> None:
        self.skip()
        opening = self.text[self.at]
        if opening not in "[{":
            found = _SCALAR.match(self.text, self.at)
            assert found is not None, f"no value at {self.at}"
            self.at = found.end()
            return
        self.at += 1
        n = 0
        while True:
            self.skip()
            if self.text[self.at] in "]}":
                self.at += 1
                return
            if self.text[self.at] == ",":
                self.at += 1
            elif opening == "{":
                self.pair(keys)
            else:
                self.note((*keys, n), self.at)
                self.value((*keys, n))
                n += 1


def load(text: str) -> tuple[dict[str, Any], dict[Keys, int]]:
    """The document, and the lines of its keys. Raises tomllib.TOMLDecodeError."""
    text = text.replace("\r\n", "\n")
    return tomllib.loads(text), lines_of(text)

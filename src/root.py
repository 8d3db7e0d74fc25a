"""`c1m.Root`: a directory to serve, and how."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

from c1m.options import RootOptions
from c1m.site import Site

_Path = str | os.PathLike[str]


@RootOptions.documents
@dataclass(frozen=True)
class Root:
    """A directory to serve, and how.

    {RootOptions}

    A file ``404.html`` in the directory is the body of its 404 answers, which have the fields of ``headers`` but none
    by pattern: what ``cache`` and ``headers_for`` say of files, such as to keep them for a year, is not for what is
    missing.

    Raises OSError if path is no directory, ValueError or TypeError for another argument that can't be right.
    """

    path: _Path
    _: KW_ONLY
    index: str | Iterable[str] = ("index.html",)
    listing: bool = False
    spa: bool = False
    clean_urls: bool = False
    sidecars: bool = True
    encodings: Mapping[str, str] = field(default_factory=dict)
    cache: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str | None] = field(default_factory=dict)
    headers_for: Mapping[str, Mapping[str, str | None]] = field(default_factory=dict)
    charset: str | None = "utf-8"
    cors: str | Iterable[str] = ()
    cors_credentials: bool = False
    escaped_slashes: bool = False
    dotfiles: bool = False
    follow_symlinks: bool = False

    def __post_init__(self) -> None:
        options = RootOptions(vars(self))
        for name, value in vars(options).items():
            object.__setattr__(self, name, value)
        object.__setattr__(self, "_exported", options.export())

    def _mount(self, site: Site, host: str, prefix: str) -> None:
        options: dict[str, Any] = vars(self)["_exported"]
        site.mount(host.encode(), prefix.encode(), **options)


def made_root(given: _Path | Root, name: str) -> Root:
    """The root that was given, or one of the directory that was: errors begin with the name."""
    if isinstance(given, Mapping):
        raise TypeError(f"{name}: {given!r} is neither a path nor a c1m.Root")
    return given if isinstance(given, Root) else Root(RootOptions.options["path"].kind.check(name, given))

"""Every option, declared once: its name, kind, default, documentation and flag.

From a declaration come the checks and the normalised values (the attributes of an object of the class), the list of
parameters in a docstring (`documents`), the flags of `c1m serve` and what `c1m.site` is given (`export`). Signatures
are written out where they belong, for type checkers and editors; a test holds them against the declarations.
"""

from __future__ import annotations

import functools
import re
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, ParamSpec, TypeVar

from c1m.kinds import (
    Amount,
    CacheRules,
    Choice,
    Directory,
    FileName,
    HeaderFields,
    Kind,
    MediaTypes,
    Origin,
    Path,
    Places,
    Port,
    Seconds,
    Several,
    Switch,
    Text,
    Token,
    UrlPath,
    at_most,
)
from c1m.site import COMPRESSION, LIMITS, WHEN_SLOW

MAX_MESSAGE = (1 << 31) - 1      # bytes
MAX_PING_INTERVAL = 45.0         # seconds, by default: nginx and load balancers drop what is silent for 60
MAX_CACHE_FILES = 1 << 22
MAX_CACHE_BYTES = 1 << 40
REQUIRED: Any = object()
"""The default of what must be given."""

_P = ParamSpec("_P")
_T = TypeVar("_T")


@dataclass(frozen=True)
class Flag:
    """An option of the command: what its help says; its name and metavar where they are not the option's own."""

    help: str | None = None
    name: str | None = None
    metavar: str | None = None


@dataclass(frozen=True)
class Option:
    default: Any
    kind: Kind
    text: str                    # {range} in it is the kind's
    shown: str | None            # what stands behind "Default", where that is not the default itself
    flag: Flag | None
    alias: str | None            # a former name


def option(
    default: Any, kind: Kind, text: str, *, shown: str | None = None, flag: Flag | None = None, alias: str | None = None
) -> Any:
    """Declares an option. A default of None may be given as well, whatever the kind."""
    return Option(default, kind, " ".join(text.split()), shown, flag, alias)


class Options:
    """The checked values of the options that the class declares."""

    options: ClassVar[dict[str, Option]]

    def __init_subclass__(cls) -> None:
        cls.options = {name: value for name, value in vars(cls).items() if isinstance(value, Option)}

    def __init__(self, given: Mapping[str, Any]) -> None:
        """Takes what it declares out of what is given. Raises ValueError or TypeError in a line that begins with the
        name of the option that is wrong.
        """
        for name, declared in self.options.items():
            value = given[name]
            accepted = value is None and declared.default is None
            setattr(self, name, None if accepted else declared.kind.check(name, value))
        self.check_together()

    def check_together(self) -> None:
        """Checks what one option says of another."""

    def export(self, *names: str) -> dict[str, Any]:
        """What c1m.site takes, by its names: for these options, or for all."""
        chosen = {name: self.options[name].kind for name in names or self.options}
        return {name + kind.suffix: kind.export(getattr(self, name)) for name, kind in chosen.items()}

    @classmethod
    def documents(cls, documented: _T) -> _T:
        """A decorator that puts the list of parameters in the place of the line {the class's name} of a docstring."""
        documented.__doc__ = re.sub(
            rf"^( *)\{{{cls.__name__}\}}$",
            lambda found: textwrap.indent(cls.parameters(119 - len(found[1])), found[1]),
            documented.__doc__ or "",
            flags=re.MULTILINE,
        )
        return documented

    @classmethod
    def parameters(cls, width: int) -> str:
        """The options as a docstring lists them; what stands in double backticks is not broken."""
        wrap = textwrap.TextWrapper(width, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)
        said = (f"{name}: {_sentence(declared)}" for name, declared in cls.options.items())
        whole = (re.sub("``.*?``", lambda found: found[0].replace(" ", "\0"), each) for each in said)
        return "\n".join(map(wrap.fill, whole)).replace("\0", " ")

    @classmethod
    def takes_aliases(cls, function: Callable[_P, _T]) -> Callable[_P, _T]:
        """A decorator that lets a function be called with former names of options, too. Its parameters of these names
        are for type checkers.
        """
        names = {declared.alias: name for name, declared in cls.options.items() if declared.alias}

        @functools.wraps(function)
        def renamed(*args: _P.args, **given: _P.kwargs) -> _T:
            for alias in names.keys() & given:
                if names[alias] in given:
                    raise TypeError(f"{alias}: the former name of {names[alias]}, which is given, too")
                given[names[alias]] = given.pop(alias)
            return function(*args, **given)

        return renamed


def _sentence(declared: Option) -> str:
    text = declared.text.replace("{range}", declared.kind.range)
    if declared.default is REQUIRED:
        return f"{text}."
    shown = f" {declared.kind.shown(declared.default)}" if declared.shown is None else declared.shown
    return f"{text}. Default{shown}."


class ServerOptions(Options):
    root: list[tuple[str, str, Any]] = option(
        None,
        Places("_Path | Root", LIMITS["roots"]),
        """a directory served at ``/``; or a mapping of URL prefixes to directories, such as ``{"/": "public",
        "/assets": "build/assets", "static.example.org/": "static"}``, of which the longest that fits a
        request's path counts, one that begins with the request's host before one that does not; or None for no
        files. Prefixes are paths, written unescaped. In place of a directory a `Root` says more about how it
        is served""",
        shown=" None",
    )
    ports: tuple[int, ...] = option(
        8001,
        Several(Port(), int),
        "one TCP port or several, 0 for one that the kernel chooses",
        flag=Flag("Port or range of ports to listen on; may be repeated. 0 lets the kernel choose.", "--port"),
    )
    host: tuple[str, ...] = option(
        "127.0.0.1",
        Several(Text("HOST")),
        'a host name or address, or several: ``"127.0.0.1"``, ``"0.0.0.0"``, ``"::"``',
        flag=Flag("Address or name to listen on; may be repeated."),
    )
    unix: tuple[str, ...] = option(
        (),
        Several(Path(), Path.one),
        "the path of a Unix-domain socket to listen on as well, or several",
        flag=Flag("Unix-domain socket to listen on as well; may be repeated."),
    )
    head_timeout: float = option(
        10.0, Seconds(), "seconds that a request may take from its first byte to its last"
    )
    keep_alive_timeout: float = option(75.0, Seconds(), "seconds that a connection may idle between requests")
    write_timeout: float = option(60.0, Seconds(), "seconds that a client may leave what we send unread")
    shutdown_timeout: float = option(
        3.0, Seconds(), "seconds that a stopping server waits for what is in flight"
    )
    cache_files: int = option(
        16384, Amount(1, MAX_CACHE_FILES), "how many files are remembered, the most recently asked for"
    )
    cache_bytes: int = option(
        64 << 20,
        Amount(1, MAX_CACHE_BYTES, "bytes"),
        """memory that they may take. The contents of those up to 32 KiB are in it, and up to 128 KiB once they
        are asked for again; stats() tells how much there is, and how often it served""",
    )
    mime_types: dict[str, str] | None = option(
        None,
        MediaTypes(),
        """media types by file extension, such as ``{"geojson": "application/geo+json"}``, beside those that are
        known already. Text gets ``charset=utf-8``""",
    )
    access_log: str | None = option(
        None,
        Path(),
        """a file to which a line is appended for every answer, or ``"-"`` for standard output. Lines are written
        four times a second by a thread of their own; reopen_log(), or SIGUSR1 while run() serves, opens the
        file anew. Lines that can't be written, or not as fast as they come, are dropped and counted. A pipe
        needs a reader from the start""",
        shown=" None: no log",
        flag=Flag("Append a line for every answer to FILE, or print it. SIGUSR1 reopens FILE.", metavar="FILE|-"),
    )
    access_log_format: str = option(
        "combined",
        Choice(("combined", "json")),
        """``"combined"``, as Apache and nginx have it, or ``"json"``, an object a line; the bytes are those of
        the body that the kernel has taken""",
        flag=Flag(""),
    )

    def check_together(self) -> None:
        if not self.ports and not self.unix:
            raise ValueError("ports: none given, and no unix socket either")
        if self.ports and not self.host:
            raise ValueError("host: none given")


class RootOptions(Options):
    path: str = option(REQUIRED, Directory(), "the directory")
    index: tuple[str, ...] = option(
        ("index.html",),
        Several(FileName(LIMITS["index_name"]), most=LIMITS["index"]),
        "names that stand for their directory, the first that exists",
    )
    listing: bool = option(
        False,
        Switch(),
        """list directories that have no index, as a page or, to clients that prefer it, as JSON: 3,000 entries of
        each, no more than a second old""",
        flag=Flag("List directories that have no index.html."),
    )
    spa: bool = option(
        False,
        Switch(),
        """answer with the root's index page, status 200, where a browser asks for a page that does not exist: for
        single-page applications whose script reads the path""",
        flag=Flag("Answer with index.html where a browser asks for a page that does not exist."),
    )
    sidecars: bool = option(
        True,
        Switch(),
        """send ``name.zst``, ``name.br`` or ``name.gz`` in place of ``name`` to clients that accept it, where
        such a file lies beside it and is not older""",
    )
    cache: dict[str, str] = option(
        {},
        CacheRules(LIMITS["cache"]),
        """values of Cache-Control by pattern, the first that fits; a pattern with a slash in front is held
        against the file's path below the directory, any other against its name: ``/docs/index.html`` is the
        file for ``/docs/``. ``*`` fits any characters, slashes too, and ``?`` one; all others mean themselves:
        ``{"*.html": "no-cache", "/assets/*": "public, max-age=31536000, immutable"}``""",
    )
    headers: dict[str, str | None] = option(
        {},
        HeaderFields({"X-Content-Type-Options": "nosniff"}),
        """header fields for every file sent from here, up to 8192 bytes, beside ``X-Content-Type-Options:
        nosniff``, which None takes away""",
    )
    cors: tuple[str, ...] = option(
        (),
        Several(Origin("*"), most=LIMITS["origins"]),
        """origins whose scripts may read the answers and all their fields (CORS), such as
        ``"https://example.org"``, or ``"*"`` for any""",
    )
    follow_symlinks: bool = option(False, Switch(), "follow symbolic links out of the directory, too")

    def check_together(self) -> None:
        for name, value in self.headers.items():
            if name.lower() == "cache-control" and value is not None and (self.cache or self.listing):
                raise ValueError(f'headers: cache or listing says {name}, too: use cache={{"*": ...}} alone')


class RouteOptions(Options):
    max_message: int = option(
        1 << 20,
        Amount(1, MAX_MESSAGE, "bytes"),
        """the longest message taken, in bytes, at most 2**31 - 1; a longer one ends the connection with close
        code 1009""",
        flag=Flag("Longest WebSocket message taken."),
    )
    idle_timeout: float = option(120.0, Seconds(), "seconds of silence after which a connection is given up")
    ping_interval: float = option(
        None,
        Seconds(),
        "seconds of silence after which a ping is sent, so that a client that lives stays connected",
        shown=": half of idle_timeout, or 45 if that is less: proxies often give up what is silent for 60",
    )
    origins: tuple[str, ...] = option(
        (),
        Several(Origin("null"), most=LIMITS["origins"]),
        """the origins whose scripts may connect, such as ``"https://example.org"``, beside the server's own, which
        is the Host that the request names; others get 403. ``"null"`` is that of a page from a file, but also of
        any that is sandboxed. Clients that name none are let in. This keeps the pages of other sites from
        connecting with the cookies of whoever looks at them (cross-site WebSocket hijacking). It keeps out no
        client that is no browser, for these may name what they like, and no page whose own host name was made to
        lead here (DNS rebinding): against that, have the proxy or on_upgrade refuse hosts that are not yours""",
        shown=": any",
    )
    subprotocols: tuple[str, ...] = option(
        (),
        Several(Token(), most=LIMITS["subprotocols"]),
        """of those the client offers, the first in this order is agreed on. Browsers and many other clients end a
        connection for which they offered some and got none: the first on each route is logged, and
        stats()["routes"] counts them as ``no_subprotocol``""",
    )
    max_send_queue: int = option(
        1 << 20,
        Amount(1, MAX_MESSAGE, "bytes"),
        """bytes that may wait in a connection's send queue for the client to read them; each message counts with
        some 100 more, which it takes to keep. ``max_backlog`` is the former name""",
        alias="max_backlog",
    )
    when_slow: str = option(
        "close",
        Choice(WHEN_SLOW),
        """what becomes of a message for a connection whose send queue is full: ``"close"`` ends the connection
        with 1013, ``"drop-newest"`` drops the message, ``"drop-oldest"`` the oldest in the queue, ``"latest"``
        keeps only the newest message of each topic there. stats()["routes"] counts them. Control frames are
        never dropped""",
    )
    compression: str | None = option(
        None,
        Choice(COMPRESSION),
        """permessage-deflate (RFC 7692) with clients that offer it. ``"shared"``: each message by itself, with
        streams that all connections share, so that none needs memory of its own. ``"dedicated"``: each
        connection remembers what went before and compresses better, for
        ``(1 << (window_bits + 2)) + (1 << (memory_level + 9)) + (1 << window_bits)`` bytes and some 13 KiB, 301
        KiB by default. Messages below 64 bytes are sent as they are; where when_slow drops messages, none that
        we send builds on another""",
        shown=" None: it costs more CPU than most networks are worth",
    )
    window_bits: int = option(15, Amount(9, 15), "{range}")
    memory_level: int = option(8, Amount(1, 9), "{range}, as zlib counts")

    def check_together(self) -> None:
        if self.ping_interval is None:
            self.ping_interval = min(self.idle_timeout / 2, MAX_PING_INTERVAL)
        elif self.ping_interval >= self.idle_timeout:
            raise ValueError(
                f"ping_interval: {self.ping_interval} is not less than the idle_timeout, {self.idle_timeout}"
            )


def checked_route(path: Any, taken: Mapping[str, Any]) -> str:
    """The path of a WebSocket route beside those that are taken."""
    path = UrlPath().check("path", path)
    if path in taken:
        raise ValueError(f"path: {path!r} is a WebSocket route already")
    at_most("path", [*taken, path], LIMITS["routes"])
    return str(path)

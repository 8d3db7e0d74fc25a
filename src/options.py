"""Every option, declared once: its name, kind, default, documentation, flag and its group in the help.

From a declaration come the checks and the normalised values (the attributes of an object of the class), the list of
parameters in a docstring (`documents`), the flags of `c1m serve`, the keys of its configuration file and what
`c1m.site` is given (`export`). Signatures are written out where they belong, for type checkers and editors; a test
holds them against the declarations.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, ParamSpec, TypeVar

from c1m.kinds import (
    Amount,
    AmountOr,
    CacheRules,
    Charset,
    Choice,
    Code,
    Directory,
    Encodings,
    FileName,
    HeaderFields,
    HeaderRules,
    HostName,
    Kind,
    ListeningSocket,
    MediaType,
    MediaTypes,
    Mode,
    Network,
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
    check_total,
    fnmatch_pattern,
)
from c1m.site import CODINGS, COMPRESSION, FORWARDED, LIMITS, WHEN_SLOW

MAX_MESSAGE = (1 << 31) - 1      # bytes
DEFAULT_PORT = 8001
MAX_PING_INTERVAL = 45.0         # seconds, by default: nginx and load balancers drop what is silent for 60
MAX_CACHE_FILES = 1 << 22
MAX_CONNECTIONS = 1 << 24        # c1m.reactor's MAX_TABLE
MAX_UPGRADES = 1_000_000         # a second
MAX_NETWORKS = 1024              # each connection's address is held against one after another
MAX_CACHE_BYTES = 1 << 40
MAX_WORKERS = 1024
MAX_MEDIA_TYPES = 1024           # beside those that are known; each takes two of the 4096 in c1m.naming at most
MAX_DURATIONS = 56               # of silence before a ping, and from there to the end, of all routes: c1m.reactor has
                                 # room for 63, of which the server's own timeouts take five
GROUPS = (
    "Load", "Listening", "Proxies", "Workers", "Files", "HTTP", "WebSocket", "Limits and timeouts", "Log", "Report",
    "Command",
)
"""The groups of options in the help, in this order."""
EXPOSED = ("Accept-Ranges", "Content-Encoding", "Content-Range", "Date", "ETag")
"""Of the fields that c1m itself sends, those that scripts of other origins may not read unless they are named."""
REQUIRED: Any = object()
"""The default of what must be given."""

_P = ParamSpec("_P")
_T = TypeVar("_T")


@dataclass(frozen=True)
class Flag:
    """An option of the command: what its help says, where that is not the beginning of the documentation; its name and
    metavar where they are not the option's own.
    """

    help: str | None = None
    name: str | None = None
    metavar: str | None = None


@dataclass(frozen=True)
class Option:
    default: Any
    kind: Kind
    text: str                    # {range} in it is the kind's
    shown: str | None            # what stands behind "Default", where that is not the default itself
    flag: Flag | None            # None: it has none
    group: str                   # one of GROUPS
    alias: str | None            # a former name

    @property
    def help(self) -> str:
        """What its flag's help says: a sentence."""
        if self.flag is not None and self.flag.help is not None:
            return self.flag.help
        said = re.split(r"[;:.](?= |$)", self.text.replace("{range}", self.kind.range))[0].replace("``", "")
        return f"{said[:1].upper()}{said[1:]}."


def option(
    default: Any,
    kind: Kind,
    text: str,
    *,
    shown: str | None = None,
    flag: Flag | None = Flag(),
    group: str = "",
    alias: str | None = None,
) -> Any:
    """Declares an option. A default of None may be given as well, whatever the kind. Without a group it is in that of
    its class.
    """
    return Option(default, kind, " ".join(text.split()), shown, flag, group, alias)


class Options:
    """The checked values of the options that the class declares."""

    options: ClassVar[dict[str, Option]]

    def __init_subclass__(cls, group: str = "") -> None:
        cls.options = {
            name: replace(value, group=value.group or group)
            for name, value in vars(cls).items() if isinstance(value, Option)
        }

    def __init__(self, given: Mapping[str, Any]) -> None:
        """Takes what it declares out of what is given; the rest has its default. Raises ValueError or TypeError in a
        line that begins with the name of the option that is wrong.
        """
        for name, declared in self.options.items():
            value = given.get(name, declared.default)
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
                name, value = names[alias], given.pop(alias)
                if value is None:            # its default
                    continue
                if name in given:
                    raise TypeError(f"{alias}: the former name of {name}, which is given, too: give {name} only")
                given[name] = cls.options[name].kind.check(alias, value)
            return function(*args, **given)

        return renamed


def _sentence(declared: Option) -> str:
    text = declared.text.replace("{range}", declared.kind.range)
    if declared.default is REQUIRED:
        return f"{text}."
    shown = f" {declared.kind.shown(declared.default)}" if declared.shown is None else declared.shown
    return f"{text}. Default{shown}."


class ServerOptions(Options, group="Limits and timeouts"):
    root: list[tuple[str, str, Any]] = option(
        None,
        Places("_Path | Root", LIMITS["roots"]),
        """a directory served at ``/``; or a mapping of URL prefixes to directories, such as ``{"/": "public",
        "/assets": "build/assets", "static.example.org/": "static"}``, of which the longest that fits a
        request's path counts, one that begins with the request's host before one that does not; or None for no
        files. Prefixes are paths, written unescaped; a host without a dot
        in its name has one behind it: ``"intranet./"``. In place of a directory a `Root` says more about how it
        is served""",
        shown=" None",
        flag=None,
        group="Files",
    )
    ports: tuple[int, ...] = option(
        None,
        Several(Port(), int),
        "one TCP port or several, 0 for one that the kernel chooses; none, ``[]``, where there are Unix sockets",
        shown=": 8001, or none where sockets are given",
        flag=Flag(
            "TCP port to listen on, or a range of them. 0 lets the kernel choose; none is for --unix alone.", "--port"
        ),
        group="Listening",
    )
    host: tuple[str, ...] = option(
        "127.0.0.1",
        Several(HostName("HOST")),
        'a host name or address, or several: ``"127.0.0.1"``, ``"0.0.0.0"``, ``"::"``',
        flag=Flag("Address or name to listen on. 0.0.0.0 and :: are all addresses: other machines can connect then."),
        group="Listening",
    )
    unix: tuple[str, ...] = option(
        (),
        Several(Path(), Path.one),
        "the path of a Unix-domain socket to listen on as well, or several",
        flag=Flag("Unix-domain socket to listen on as well."),
        group="Listening",
    )
    unix_mode: int | None = option(
        None,
        Mode(),
        """the permissions of the Unix sockets, such as ``0o660``; they hold before the first client can connect. To
        connect takes the right to write: a proxy under another account gets it by its group, see docs/proxy.md""",
        shown=": as the umask has it",
        flag=Flag("Permissions of the Unix sockets, in octal, such as 660."),
        group="Listening",
    )
    proxy_protocol: tuple[str, ...] = option(
        (),
        Several(Network(), str, MAX_NETWORKS),
        """proxies that begin each connection with a PROXY header, version 1 or 2: addresses, networks such as
        ``"10.0.0.0/8"``, ``"unix"`` for all who connect to a Unix socket. The header says who the client is; a
        connection from there without one is closed. Any other connection is its own, and such a header a bad
        request""",
        flag=Flag("Address or network of proxies that begin each connection with a PROXY header, or unix."),
        group="Proxies",
    )
    trusted_proxies: tuple[str, ...] = option(
        (),
        Several(Network(), str, MAX_NETWORKS),
        """proxies whose requests name their client, written as for proxy_protocol. What a list of addresses says is
        believed from its end on, up to the first that is not one of these: that is the client, in the access log, for
        handlers and in limits by address""",
        flag=Flag("Address or network of proxies whose requests name their client, or unix.", "--trusted-proxy"),
        group="Proxies",
    )
    forwarded: str = option(
        FORWARDED[0],
        Choice(FORWARDED),
        """the field in which trusted_proxies name their client: X-Forwarded-For, or Forwarded (RFC 7239). Only this
        one is read: a proxy that writes the one passes the other on as the client wrote it. One of {range}""",
        flag=Flag("Field in which trusted proxies name their client."),
        group="Proxies",
    )
    max_connections: int | None = option(
        None,
        Amount(1, MAX_CONNECTIONS),
        """connections at once. Each beyond has its first request answered with 503 and is closed. Of this and the next
        two each of several workers has its share, rounded up: clients spread over them by chance, so one may refuse
        some a little before all together have as many""",
        shown=" None: as many as there are descriptors",
        flag=Flag("Connections at once; more are answered with 503."),
    )
    max_connections_per_address: int | None = option(
        None,
        Amount(1, MAX_CONNECTIONS),
        """the same for each address, of IPv6 for each /64. A connection of proxy_protocol's is its client's; one of
        trusted_proxies is nobody's until it becomes a WebSocket, and its client's then. Unix sockets have none""",
        shown=" None: any number",
        flag=Flag("Connections at once for each address, of IPv6 for each /64."),
    )
    max_upgrades_per_address: int | None = option(
        None,
        Amount(1, MAX_UPGRADES),
        """new WebSockets a second for each such address, and as many at once after a second without; one more is
        answered with 429""",
        shown=" None: any number",
        flag=Flag("New WebSockets a second for each address; more are answered with 429."),
    )
    sockets: tuple[Any, ...] = option(
        (),
        Several(ListeningSocket(), ListeningSocket.one),
        """sockets to listen on that somebody else has opened, TCP or Unix: socket objects, descriptors, or
        ``"systemd"`` for those that it has handed in (socket activation). They are the server's from listen() on, which
        detaches socket objects, and closed at its end; to keep one, give ``socket.dup()``. One that is bound and does
        not listen yet is made to""",
        flag=Flag(
            "Descriptor of a socket to listen on that somebody else has opened, or systemd for those that it hands in.",
            "--socket",
        ),
        group="Listening",
    )
    head_timeout: float = option(
        10.0, Seconds(), "seconds that a request may take from its first byte to its last",
        flag=Flag("Time that a request may take from its first byte to its last."),
    )
    keep_alive_timeout: float = option(
        75.0,
        Seconds(),
        "seconds that a connection may idle between requests",
        flag=Flag("Time that a connection may idle between requests."),
    )
    write_timeout: float = option(
        60.0,
        Seconds(),
        "seconds that a client may leave what we send unread",
        flag=Flag("Time that a client may leave what we send unread."),
    )
    shutdown_timeout: float = option(
        3.0,
        Seconds(),
        "seconds that a stopping server waits for what is in flight, after the last WebSocket was sent its Close",
        flag=Flag("Time that a stopping server waits for what is in flight."),
    )
    drain: float = option(
        10.0,
        Seconds(or_none=True),
        """seconds over which a stopping server spreads the Close frames of its WebSockets, evenly, so that their
        clients do not all come back in the same moment; a millisecond for each is enough, so that few are closed
        at once. 0 closes all at once""",
        flag=Flag("Time over which a stopping server closes its WebSockets: a millisecond for each is enough."),
    )
    drain_code: int = option(
        1001,
        Code(1001, 1012),
        """the code of these Close frames: 1001, going away, or 1012, service restart, where clients are to come
        back""",
        flag=Flag("Code of the Close frames then: going away, or service restart."),
    )
    cache_files: int = option(
        16384, Amount(1, MAX_CACHE_FILES), "how many files are remembered, the most recently asked for",
        flag=Flag("Files remembered, the most recently asked for."),
    )
    cache_bytes: int = option(
        64 << 20,
        Amount(1, MAX_CACHE_BYTES, "bytes"),
        """memory that they may take. The contents of those up to 32 KiB are in it, and up to 64 KiB once they
        are asked for again; stats() tells how much there is, and how often it served""",
        flag=Flag("Memory that they may take."),
    )
    mime_types: dict[str, str] | None = option(
        None,
        MediaTypes(MAX_MEDIA_TYPES, LIMITS["typed"]),
        """media types by file extension or file name, such as ``{"geojson": "application/geo+json", "LICENSE":
        "text/plain", "feed.xml": "application/rss+xml"}``, beside those that are known already. A word without a dot is
        both an extension and a file's whole name; ``".license"`` is the extension alone, and a name comes before an
        extension. Text gets its root's ``charset``""",
        flag=Flag(
            "Media type by file extension or file name, such as geojson=application/geo+json or LICENSE=text/plain.",
            "--mime-type",
        ),
        group="Files",
    )
    default_type: str = option(
        "application/octet-stream",
        MediaType(),
        "the media type of all other files",
        flag=Flag("Media type of all other files."),
        group="Files",
    )
    publish_buffer: int = option(
        16 << 20,
        Amount(64 << 10, 1 << 30, "bytes"),
        """where several processes serve, memory for what is published in one of them and not yet read by all others.
        A process that falls further behind loses messages of the others', and so does one that has some 32,000 of them
        to read; that is logged, and stats() counts them as ``publish_lost``. A message may take a quarter of it.
        Publishing slows down a thread that fills half of it, but no handler""",
        flag=Flag("Memory for what one of several processes publishes and others have yet to read."),
        group="WebSocket",
    )
    access_log: str | None = option(
        None,
        Path("-"),
        """a file to which a line is appended for every answer, or ``"-"`` for standard output. Lines are written
        four times a second by a thread of their own; reopen_log(), or SIGUSR1 while run() serves, opens the
        file anew. Lines that can't be written, or not as fast as they come, are dropped and counted. A pipe
        needs a reader from the start""",
        shown=" None: no log",
        flag=Flag(
            "File to append a line to for every answer, - to print it. SIGUSR1 reopens it.", metavar="FILE|-"
        ),
        group="Log",
    )
    access_log_format: str = option(
        "combined",
        Choice(("combined", "json")),
        """``"combined"``, as Apache and nginx have it, or ``"json"``, an object a line; the bytes are those of
        the body that the kernel has taken""",
        flag=Flag("Lines as Apache and nginx write them, or JSON objects."),
        group="Log",
    )
    workers: int | str = option(
        1,
        AmountOr("auto", 1, MAX_WORKERS),
        """how many processes serve under run(), which then watches them, see docs/workers.md; ``"auto"``: one for each
        CPU that this process may use. More than one are run()'s alone""",
        flag=Flag("Processes that serve, or one for each CPU: auto."),
        group="Workers",
    )
    pin: bool = option(
        False,
        Switch(),
        "keep each of several workers on a CPU of its own, the first on the first that this process may use, and so on",
        flag=Flag("Keep each of several workers on a CPU of its own."),
        group="Workers",
    )
    loop: str | None = option(
        None,
        Choice(("asyncio", "uvloop")),
        """the event loop that run() has beside the reactor: ``"asyncio"``, or ``"uvloop"`` where that is installed""",
        shown=": asyncio's where a handler has coroutine functions, else none",
        flag=Flag("Event loop of handlers' coroutines."),
        group="Workers",
    )

    def check_together(self) -> None:
        if self.ports is None:
            self.ports = () if self.sockets else (DEFAULT_PORT,)
        if not self.ports and not self.unix and not self.sockets:
            raise ValueError("ports: none given, and no unix socket either")
        if self.unix_mode is not None and not self.unix:
            raise ValueError("unix_mode: no unix socket is given")
        for port, times in Counter(self.ports).items():
            if port and times > 1:
                raise ValueError(f"ports: {port} is given twice")
        if self.ports and not self.host:
            raise ValueError("host: none given")
        if self.loop == "uvloop" and importlib.util.find_spec("uvloop") is None:
            raise ValueError("loop: uvloop is not installed (pip install uvloop)")


class RootOptions(Options, group="Files"):
    path: str = option(REQUIRED, Directory(), "the directory", flag=None)
    index: tuple[str, ...] = option(
        ("index.html",),
        Several(FileName(LIMITS["index_name"]), most=LIMITS["index"]),
        "names that stand for their directory, the first that exists",
        flag=Flag("Name that stands for its directory, the first that exists."),
    )
    listing: bool = option(
        False,
        Switch(),
        """list directories that have no index, as a page or, to clients that prefer it, as JSON: 3,000 entries of
        each, no more than a second old""",
        flag=Flag("List directories that have no index."),
    )
    spa: bool = option(
        False,
        Switch(),
        """answer with the root's index page, status 200, where a page is asked for that does not exist: for
        single-page applications whose script reads the path. What has the extension of a media type is no page, nor
        is what is asked for with an Accept that leaves HTML out, or for another use by Sec-Fetch-Dest""",
        flag=Flag("Answer with the root's index page where a page is asked for that does not exist."),
    )
    clean_urls: bool = option(
        False,
        Switch(),
        """find ``about.html`` as ``/about``, too, also where there is a directory ``about``; ``/about/`` leads to it
        where that has no index""",
        flag=Flag("Find NAME.html as NAME, too."),
    )
    sidecars: bool = option(
        True,
        Switch(),
        """send ``name.zst``, ``name.br`` or ``name.gz`` in place of ``name`` to clients that accept it, where
        such a file lies beside it and is not older by a second or more""",
        flag=Flag("Send NAME.zst, NAME.br or NAME.gz in place of NAME to clients that accept it."),
    )
    encodings: dict[str, str] = option(
        {},
        Encodings(LIMITS["rules"], CODINGS),
        """files that are stored compressed and asked for by that name, and how, by pattern as in ``cache``:
        ``{"*.wasm.br": "br", "*.pbf": "gzip"}``, ``"gzip"``, ``"br"`` or ``"zstd"``. They go to all clients as they
        are, with Content-Encoding, so that browsers unpack them; the media type of ``app.wasm.br`` is that of
        ``app.wasm``""",
        flag=Flag(
            "Content-Encoding by pattern for files that are stored compressed, such as '*.wasm.br=br'.", "--encoding"
        ),
    )
    cache: dict[str, str] = option(
        {},
        CacheRules(LIMITS["rules"]),
        """values of Cache-Control by pattern, the first that fits; a pattern with a slash in front is held
        against the file's path below the directory, any other against its name: ``/docs/index.html`` is the
        file for ``/docs/``. ``*`` fits any characters, slashes too, and ``?`` one; all others mean themselves:
        ``{"*.html": "no-cache", "/assets/*": "public, max-age=31536000, immutable"}``""",
        flag=Flag(
            "Cache-Control by pattern, the first that fits, such as '/assets/*=max-age=86400'. A pattern with a slash"
            " in front is held against the path, any other against the file's name. What fits none is sent with"
            " no-cache."
        ),
    )
    headers: dict[str, str | None] = option(
        {},
        HeaderFields({"X-Content-Type-Options": "nosniff"}),
        """header fields for every file, listing and ``404.html`` sent from here, but not for answers of c1m's own; up
        to 8192 bytes, beside ``X-Content-Type-Options: nosniff``, which None takes away""",
        flag=Flag("Header field for every file. An empty value takes away one that is sent by default.", "--header"),
    )
    headers_for: dict[str, dict[str, str | None]] = option(
        {},
        HeaderRules(LIMITS["rules"]),
        """more of them by pattern as in ``cache``: ``{"/embed/*": {"X-Frame-Options": None}, "*.pdf":
        {"X-Robots-Tag": "noindex"}}``. A file has those of the first pattern that fits it and of no other, and they
        count before ``headers``""",
        flag=Flag(
            "Header field by pattern, the first that fits, such as '*.pdf=X-Robots-Tag=noindex'.", "--header-for"
        ),
    )
    charset: str | None = option(
        "utf-8",
        Charset(),
        """the character encoding that Content-Type names for text, but for XML, which names its own; with None it
        names none, for pages that do""",
    )
    cors: tuple[str, ...] = option(
        (),
        Several(Origin("*"), most=LIMITS["cors"]),
        """origins whose scripts may read the answers and all their fields (CORS), such as
        ``"https://example.org"``, or ``"*"`` for any""",
        flag=Flag("Origin whose scripts may read the answers (CORS), * for any."),
    )
    cors_credentials: bool = option(
        False,
        Switch(),
        """let them do so with the user's cookies and Authorization, too, for which a proxy in front may ask: the
        origins must be named""",
        flag=Flag("Let them do so with cookies and Authorization, too."),
    )
    escaped_slashes: bool = option(
        False,
        Switch(),
        """take ``%2F`` in a path for a slash, as npm, pnpm and yarn write ``/@scope%2Fname``; else it gets 400. Not
        behind a proxy that restricts some paths but does not take ``%2F`` for a slash: docs/http.md""",
    )
    dotfiles: bool = option(
        False,
        Switch(),
        """serve and list names that begin with a dot, too, such as ``.zgroup`` in a Zarr store; else none is but
        ``/.well-known/``. Whatever else is there, ``.git`` or ``.env``, is served then""",
    )
    follow_symlinks: bool = option(False, Switch(), "follow symbolic links out of the directory, too")

    def check_together(self) -> None:
        by_pattern = (("headers_for", each) for each in self.headers_for.values())
        for option, fields in (("headers", self.headers), *by_pattern):
            for name, value in fields.items():
                if name.lower() == "cache-control" and option == "headers_for":
                    raise ValueError(f"headers_for: {name} by pattern is what cache says")
                if name.lower() == "cache-control" and value is not None and (self.cache or self.listing):
                    raise ValueError(f'headers: cache or listing says {name}, too: use cache={{"*": ...}} alone')
                if name.lower() == "access-control-allow-credentials" and value is not None and self.cors_credentials:
                    raise ValueError(f"{option}: cors_credentials says {name}, too: leave it out")
        for option in ("cache", "headers_for", "encodings"):
            for pattern in getattr(self, option):
                self.check_pattern(option, pattern)
        for pattern in self.headers_for:
            check_total(f"headers_for: those for {pattern!r} and of headers", self.headers_of(pattern))
        if self.cors_credentials and ("*" in self.cors or not self.cors):
            raise ValueError("cors_credentials: name the origins in cors, or any site could read as the user")

    def check_pattern(self, option: str, pattern: str) -> None:
        """Finds what can fit no file, though it was meant to."""
        if re.search(r"[*?]", pattern):
            return
        if pattern.startswith(".") and not self.dotfiles:
            raise ValueError(f"{option}: {pattern!r} fits no file that is served: write {f'*{pattern}'!r}")
        if pattern.startswith("/") and os.path.isdir(self.path + pattern):
            raise ValueError(f"{option}: {pattern!r} is a directory, and fits no file: write {f'{pattern}/*'!r}")

    def headers_of(self, pattern: str) -> dict[str, str | None]:
        return {**self.headers, **self.headers_for[pattern]}

    def export(self, *names: str) -> dict[str, Any]:
        exported = super().export(*names)
        lines = self.options["headers"].kind.export
        exported["headers_for"] = [(fnmatch_pattern(each), lines(self.headers_of(each))) for each in self.headers_for]
        exported["cors_fields"] = self.cors_fields(exported.pop("cors_credentials"))
        return exported

    def cors_fields(self, credentials: bool) -> bytes:
        """What other origins' scripts are told (Fetch section 3.2.3): "*" is all fields, but where credentials are
        sent; there they must be named.
        """
        if not credentials:
            return b"Access-Control-Expose-Headers: *\r\n"
        own = {name for each in [self.headers, *self.headers_for.values()] for name, value in each.items() if value}
        exposed = ", ".join([*EXPOSED, *sorted(own)])
        return f"Access-Control-Allow-Credentials: true\r\nAccess-Control-Expose-Headers: {exposed}\r\n".encode()


class RouteOptions(Options, group="WebSocket"):
    max_message: int = option(
        1 << 20,
        Amount(1, MAX_MESSAGE, "bytes"),
        """the longest message taken, in bytes, at most 2**31 - 1; a longer one ends the connection with close
        code 1009""",
        flag=Flag("Longest message taken."),
    )
    idle_timeout: float = option(
        120.0,
        Seconds(),
        "seconds of silence after which a connection is given up",
        flag=Flag("Silence after which a connection is given up."),
    )
    ping_interval: float = option(
        None,
        Seconds(),
        "seconds of silence after which a ping is sent, so that a client that lives stays connected",
        shown=": half of idle_timeout, or 45 if that is less: proxies often give up what is silent for 60",
        flag=Flag("Silence after which a ping is sent. It must be less than --idle-timeout."),
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
        flag=Flag("Origin whose scripts may connect, such as https://example.org.", "--origin"),
    )
    subprotocols: tuple[str, ...] = option(
        (),
        Several(Token(), most=LIMITS["subprotocols"]),
        """of those the client offers, the first in this order is agreed on. Browsers and many other clients end a
        connection for which they offered some and got none: the first on each route is logged, and
        stats()["routes"] counts them as ``no_subprotocol``""",
        flag=Flag("Subprotocol: of those the client offers, the first given here is agreed on.", "--subprotocol"),
    )
    topics: tuple[str, ...] = option(
        (),
        Several(Text("TOPIC"), most=LIMITS["topics"]),
        """what is published to these goes to every WebSocket of the route, from its handshake to its end. It takes no
        memory for each, and no handler; a publish to one looks through the connections that there are""",
        flag=Flag("Topic that every WebSocket is subscribed to.", "--topic"),
    )
    max_send_queue: int = option(
        1 << 20,
        Amount(1, MAX_MESSAGE, "bytes"),
        """bytes that may wait in a connection's send queue for the client to read them; each message counts with
        some 100 more, which it takes to keep. ``max_backlog`` is the former name""",
        flag=Flag("Bytes that may wait for a client to read them."),
        alias="max_backlog",
    )
    when_slow: str = option(
        "close",
        Choice(WHEN_SLOW),
        """what becomes of a message for a connection whose send queue is full: ``"close"`` ends the connection
        with 1013, ``"drop-newest"`` drops the message, ``"drop-oldest"`` the oldest in the queue, ``"latest"``
        keeps only the newest message of each topic there. stats()["routes"] counts them. Control frames are
        never dropped""",
        flag=Flag("What becomes of a message for a connection whose send queue is full."),
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
        flag=Flag("permessage-deflate, with memory that all connections share, or with some of each one's own."),
    )
    window_bits: int = option(
        15, Amount(9, 15), "{range}", flag=Flag("Size of the compression's window, as a power of two.")
    )
    memory_level: int = option(
        8, Amount(1, 9), "{range}, as zlib counts", flag=Flag("Memory for the compression, as zlib counts.")
    )

    def check_together(self) -> None:
        if self.ping_interval is None:
            self.ping_interval = min(self.idle_timeout / 2, MAX_PING_INTERVAL)
        elif self.ping_interval >= self.idle_timeout:
            raise ValueError(
                f"ping_interval: {self.ping_interval} is not less than the idle_timeout, {self.idle_timeout}"
            )


def checked_route(path: Any, taken: Mapping[str, Any]) -> str:
    """The path of a WebSocket route beside those that are taken."""
    if callable(path):           # the decorator without its parentheses
        raise TypeError(f"path: {path!r} is not a str: write @server.websocket('/path')")
    path = UrlPath().check("path", path)
    if path in taken:
        raise ValueError(f"path: {path!r} is a WebSocket route already")
    at_most("path", [*taken, path], LIMITS["routes"])
    return str(path)


def checked_durations(exported: Mapping[str, Any], taken: Iterable[Mapping[str, Any]]) -> None:
    """Checks that there is room for one more route's idle_timeout and ping_interval, all as they are exported."""
    durations = {
        duration
        for each in (*taken, exported)
        for duration in (each["ping_interval_ms"], each["idle_timeout_ms"] - each["ping_interval_ms"])
    }
    if len(durations) > MAX_DURATIONS:
        raise ValueError(
            f"idle_timeout: with ping_interval, the routes have {len(durations)} different durations, more than"
            f" {MAX_DURATIONS}: give several routes the same"
        )

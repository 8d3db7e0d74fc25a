"""What `c1m serve` is to serve, as its flags and its configuration file say, and where they say it.

Every value is checked where it is read, so that an error can begin with the flag, or the file, line and key.
"""

from __future__ import annotations

import difflib
import importlib
import logging
import os
import re
import sys
import tomllib
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import c1m
from c1m import systemd
from c1m.kinds import UrlPath
from c1m.options import Options, RootOptions, RouteOptions, ServerOptions
from c1m.toml import Keys, load

_T = TypeVar("_T")
log = logging.getLogger("c1m")

HOOKS = ("on_start", "on_drain_start", "on_stop")
"""What a server calls without arguments; each is a key of the file, too."""
NO_CACHE = {"*": "no-cache"}
"""Kept by browsers, but asked about each time: what was edited shows at the next reload, all else costs a 304."""

OF = {ServerOptions: "the server", RootOptions: "a root", RouteOptions: "a WebSocket route"}
KEYS = {
    ServerOptions: {*ServerOptions.options, "websocket", *HOOKS},
    RootOptions: {*RootOptions.options},
    RouteOptions: {*RouteOptions.options, "handler"},
}
"""What a configuration file may say of each."""
REMEDIES = {
    ServerOptions: "write it above the first [table]",
    RootOptions: 'write it below [root."/"], with the path',
    RouteOptions: 'write it below [websocket."/path"]',
}


class Wrong(ValueError):
    """What can't be right, in a line that begins with where it was said."""


@dataclass
class Part:
    """The options given for one object: the server, a root or a route."""

    declaration: type[Options]
    place: str                                               # where the object was asked for
    values: dict[str, Any] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)     # where each was given

    def give(self, name: str, value: Any, place: str) -> None:
        self.values[name], self.places[name] = value, place

    def made(self, make: Callable[..., _T], *arguments: Any) -> _T:
        """What make() makes of the options. Its errors begin with the name of one."""
        try:
            return make(*arguments, **self.values)
        except (ValueError, TypeError) as error:
            name, _, said = str(error).partition(": ")
            raise Wrong(f"{self.places.get(name, f'{self.place}: {name}')}: {said}") from None
        except OSError as error:             # a root's
            raise type(error)(error.errno, f"root: {_said(error.strerror)}", error.filename) from None


class Plan:
    """What is to be served."""

    def __init__(self) -> None:
        self.server = Part(ServerOptions, "c1m serve")
        self.roots: dict[str, Part] = {}         # by URL prefix
        self.routes: dict[str, Part] = {}        # by URL path
        self.handlers: dict[str, str] = {}       # likewise: "module:name"
        self.hooks: dict[str, tuple[str, str]] = {}      # of HOOKS: "module:name", and where that was said
        self.directories = [os.getcwd()]         # where handlers are looked for, beside where Python looks
        self.source = ""                         # the file that said it
        self.console = False                     # the built-in page, in place of roots

    def override(self, declaration: type[Options], name: str, value: Any, flag: str) -> None:
        """What a flag says counts for all there is of its kind."""
        parts = {ServerOptions: [self.server], RootOptions: self.roots.values(), RouteOptions: self.routes.values()}
        if not parts[declaration]:
            wanted = "a directory to serve" if declaration is RootOptions else "a route: --websocket PATH"
            raise Wrong(f"{flag}: this needs {wanted}")
        for part in parts[declaration]:
            part.give(name, value, flag)

    def override_root(self, path: str) -> None:
        """Serves another directory at "/", for any host; what else was said of that root still holds."""
        self.roots.setdefault("/", Part(RootOptions, "ROOT")).give("path", path, "ROOT")

    def add_route(self, path: Any, place: str) -> Part:
        try:
            UrlPath().check("path", path)
        except ValueError as error:
            raise Wrong(f"{place}: {_said(error)}") from None
        if path in self.routes:
            raise Wrong(f"{place}: {path!r} is a WebSocket route already")
        self.routes[path] = Part(RouteOptions, place)
        return self.routes[path]

    def take_sockets(self) -> None:
        """Where systemd has handed in sockets, and nothing was said of where to listen, it is on these."""
        if systemd.has_sockets() and "sockets" not in self.server.values:
            if said := {"ports", "host", "unix"} & self.server.values.keys():
                places = ", ".join(sorted(self.server.places[name] for name in said))
                log.warning("systemd's sockets are not used, because of %s: --socket systemd adds them", places)
            else:
                self.server.give("sockets", ("systemd",), "LISTEN_FDS")

    def made(self) -> c1m.Server:
        """The server. Raises Wrong, and OSError for a root that is no directory."""
        roots = {prefix: Part(RootOptions, root.place, revalidated(root.values), root.places).made(c1m.Root)
                 for prefix, root in self.roots.items()}
        server = self.server.made(c1m.Server, console() if self.console else roots or None)
        for path, route in self.routes.items():
            handler = self.handlers.get(path)
            if handler is None:
                route.made(server.websocket, path)
            else:
                route.made(server.websocket, path, imported(handler, self.directories, route.places["handler"]))
        for hook, (name, place) in self.hooks.items():
            try:
                getattr(server, hook)(imported(name, self.directories, place))
            except TypeError as error:
                raise Wrong(f"{place}: {_said(error, hook)}") from None
        return server


def revalidated(values: dict[str, Any]) -> dict[str, Any]:
    """A root's options with NO_CACHE for what its own patterns leave over, unless they are said to be none, or a header
    field says it.
    """
    cache: dict[str, str] | None = values.get("cache")
    told = any(name.lower() == "cache-control" for name in values.get("headers", ()))
    full = len(cache or ()) == RootOptions.options["cache"].kind.most  # type: ignore[attr-defined]
    if told or full or cache == {} or (cache and "*" in cache):
        return values
    return {**values, "cache": {**(cache or {}), **NO_CACHE}}


def console() -> c1m.Root:
    """The built-in page, which needs nothing from elsewhere; isolated, so that browsers let it time echoes finely."""
    policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src *"
    return c1m.Root(c1m.PAGE, cache=NO_CACHE, headers={
        "Content-Security-Policy": policy,
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Embedder-Policy": "require-corp",
    })


# ---- the configuration file ----


def read(path: str) -> Plan:
    """What a configuration file says. Raises Wrong, and OSError where it can't be read."""
    with open(path, "rb") as file:
        content = file.read()
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise Wrong(f"{path}:{line}: this is not UTF-8") from None
    try:
        document, lines = load(text)
    except tomllib.TOMLDecodeError as error:
        raise Wrong(_syntax(path, text, str(error))) from None
    return _Reader(path, lines).plan(document)


def _syntax(path: str, text: str, said: str) -> str:
    """tomllib's error, with the line in front."""
    found = re.fullmatch(r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)", said, re.DOTALL)
    if not found:
        return f"{path}: {said}"
    if found[2]:
        return f"{path}:{found[2]}: {found[1]}, in column {found[3]}"
    return f"{path}:{text.rstrip().count(chr(10)) + 1}: {found[1]}, at the end"


class _Reader:
    def __init__(self, path: str, lines: dict[Keys, int]) -> None:
        self.path, self.lines = path, lines
        self.directory = os.path.dirname(os.path.abspath(path))

    def place(self, *keys: str | int) -> str:
        """File, line and key; of an element of an array, the array's key."""
        words = [key for key in keys if isinstance(key, str)]
        return f"{self.path}:{self.lines[keys]}: {words[-1]}"

    def plan(self, document: dict[str, Any]) -> Plan:
        plan = Plan()
        plan.source = self.path
        plan.directories.insert(0, self.directory)
        beside = {key: value for key, value in document.items() if key not in ("root", "websocket", *HOOKS)}
        plan.server = self.part(ServerOptions, (), beside)
        plan.server.place = self.path
        if "root" in document:
            plan.server.places["root"] = self.place("root")
            self.roots(plan, document["root"])
        plan.hooks = {hook: (self.name(document[hook], hook), self.place(hook)) for hook in HOOKS if hook in document}
        routes = document.get("websocket", {})
        if not isinstance(routes, dict):
            raise Wrong(f'{self.place("websocket")}: this is no table of URL paths: write [websocket."/path"]')
        for path, table in routes.items():
            self.route(plan, path, table)
        return plan

    def roots(self, plan: Plan, given: Any) -> None:
        """A directory, a table of a root's options, or one of several such by URL prefix."""
        if not isinstance(given, dict) or not any("/" in key or self.is_root(key, each) for key, each in given.items()):
            plan.roots["/"] = self.root(("root",), given)
            return
        for prefix, each in given.items():
            keys = ("root", prefix)
            try:
                ServerOptions.options["root"].kind.place("root", prefix)  # type: ignore[attr-defined]
            except ValueError as error:
                said = _said(error)
                if prefix in RootOptions.options:
                    said = 'this is of a root at "/" that is not the only one: write it below [root."/"]'
                raise Wrong(f"{self.place(*keys)}: {said}") from None
            plan.roots[prefix] = self.root(keys, each)

    @staticmethod
    def is_root(key: str, value: Any) -> bool:
        """Whether a table is meant to be a root, though its prefix has no slash."""
        return isinstance(value, dict) and key not in RootOptions.options

    def root(self, keys: tuple[str, ...], given: Any) -> Part:
        if isinstance(given, str):
            part = Part(RootOptions, self.place(*keys))
            part.give("path", self.value(RootOptions, "path", keys, given), part.place)
            return part
        if not isinstance(given, dict):
            raise Wrong(f"{self.place(*keys)}: {given!r} is neither a directory nor a table of a root's options")
        part = self.part(RootOptions, keys, given)
        if "path" not in given:
            raise Wrong(f"{part.place}: this root has no path, the directory to serve")
        return part

    def route(self, plan: Plan, path: str, given: Any) -> None:
        place = self.place("websocket", path)
        if not isinstance(given, dict):
            raise Wrong(f'{place}: this is no table of a route: write [websocket."/path"], and its options below')
        part = plan.add_route(path, place)
        handler = given.get("handler")
        options = {name: value for name, value in given.items() if name != "handler"}
        read = self.part(RouteOptions, ("websocket", path), options)
        part.values, part.places = read.values, read.places
        if handler is not None:
            part.places["handler"] = self.place("websocket", path, "handler")
            plan.handlers[path] = self.name(handler, "websocket", path, "handler")

    def name(self, given: Any, *keys: str) -> str:
        """What is to be imported, as "module:name"."""
        if not isinstance(given, str):
            raise Wrong(f'{self.place(*keys)}: {given!r} is not a string such as "chat:Chat"')
        return given

    def part(self, declaration: type[Options], keys: tuple[str, ...], table: dict[str, Any]) -> Part:
        part = Part(declaration, self.place(*keys) if keys else self.path)
        for name in table:
            if name not in declaration.options:
                raise Wrong(f"{self.place(*keys, name)}: {unknown(declaration, name)}")
        for name, value in table.items():
            part.give(name, self.value(declaration, name, (*keys, name), value), self.place(*keys, name))
        return part

    def value(self, declaration: type[Options], name: str, keys: tuple[str, ...], given: Any) -> Any:
        """The value of an option, which was found right. An element of it that is wrong is named by its own line."""
        kind = declaration.options[name].kind
        try:
            loaded = kind.load(given, self.directory)
            kind.check(name, loaded)
        except OSError as error:
            raise Wrong(f"{self.place(*keys)}: {_said(error.strerror)}: {error.filename}") from None
        except ValueError as error:
            raise Wrong(f"{self.place(*keys, *self.wrong(kind, given))}: {_said(error, name)}") from None
        except TypeError as error:
            place = self.place(*keys, *self.wrong(kind, given))
            raise Wrong(f"{place}: {_said(error, name)} (wanted: {kind.toml})") from None
        return loaded

    def wrong(self, kind: Any, given: Any) -> tuple[str | int, ...]:
        """The element that is wrong by itself, where there is one."""
        alone: Iterable[tuple[str | int, Any]] = ()
        if isinstance(given, dict):
            alone = [(key, {key: value}) for key, value in given.items()]
        elif isinstance(given, list):
            alone = [(i, [value]) for i, value in enumerate(given)]
        for key, element in alone:
            try:
                kind.check("", kind.load(element, self.directory))
            except (ValueError, TypeError):
                return (key,)
        return ()


def unknown(declaration: type[Options], key: str) -> str:
    """What there is to say of a key that no option has."""
    if key == "server" and declaration is ServerOptions:
        return f"the server's options have no table: {REMEDIES[ServerOptions]}"
    for other, keys in KEYS.items():
        if other is not declaration and key in keys:
            return f"this is an option of {OF[other]}, not of {OF[declaration]}: {REMEDIES[other]}"
    for name, option in declaration.options.items():
        if option.alias == key:
            return f"this is called {name} now"
    found = difflib.get_close_matches(key, sorted(KEYS[declaration]), 1)
    return f"{OF[declaration]} has no such option" + (f"; did you mean {found[0]}?" if found else "")


def _said(error: Any, name: str = "") -> str:
    """An error without the option's name in front."""
    first, colon, said = str(error).partition(": ")
    return said if colon and first in (name, "root", "path") else str(error)


# ---- handlers ----


def imported(handler: str, directories: list[str], place: str) -> Any:
    """The handler that "module:name" means; of a class, an object. Raises Wrong."""
    if not re.fullmatch(r"\w+(\.\w+)*:\w+(\.\w+)*", handler):
        raise Wrong(f"{place}: {handler!r} is not of the form \"module:name\", such as \"chat:Chat\"")
    name, _, inside = handler.partition(":")
    sys.path[:0] = [directory for directory in dict.fromkeys(directories) if directory not in sys.path]
    try:
        found: Any = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            where = " or in ".join(dict.fromkeys(directories))
            raise Wrong(f"{place}: there is no module {error.name!r} in {where}, and none is installed") from None
        raise Wrong(f"{place}: {_failed(f'module {name!r} cannot be imported', error)}") from error
    except Exception as error:
        raise Wrong(f"{place}: {_failed(f'module {name!r} cannot be imported', error)}") from error
    for step in inside.split("."):
        if not hasattr(found, step):
            close = difflib.get_close_matches(step, dir(found), 1)
            meant = f"; did you mean {close[0]}?" if close else ""
            raise Wrong(f"{place}: module {name!r} ({getattr(found, '__file__', name)}) has no {inside}{meant}")
        found = getattr(found, step)
    if not isinstance(found, type):
        return found
    try:
        return found()
    except Exception as error:
        raise Wrong(f"{place}: {_failed(f'no {inside} can be made without arguments', error)}") from error


def _failed(what: str, error: Exception) -> str:
    """In one line: what failed, why, and where."""
    frames = traceback.extract_tb(error.__traceback__)
    last = frames[-1]
    where = f", in {last.filename}, line {last.lineno}" if len(frames) > 1 and "importlib" not in last.filename else ""
    why = " ".join(str(error).split())
    return f"{what}: {type(error).__name__}{': ' if why else ''}{why}{where}"

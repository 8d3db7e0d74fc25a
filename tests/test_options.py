"""Options are declared once: what is written out for type checkers, documented and refused agrees with that."""

import inspect
import re

import pytest
from client import WebSocket
from wire import BINARY

import c1m
from c1m.kinds import Amount, Choice, HeaderFields, Mapped, Mode, Path, Port, Seconds, Several
from c1m.options import (
    GROUPS,
    LIMITS,
    MAX_DURATIONS,
    MAX_MEDIA_TYPES,
    REQUIRED,
    Options,
    RootOptions,
    RouteOptions,
    ServerOptions,
)
from c1m.options import option as declared

DECLARED = [(c1m.Server, ServerOptions), (c1m.Root, RootOptions), (c1m.Server.websocket, RouteOptions)]
BESIDE = {"self", "path", "handler", "max_backlog"}      # of websocket(): what is no option, and a former name


def parameters(function):
    beside = BESIDE if function is c1m.Server.websocket else set()
    return {name: each for name, each in inspect.signature(function).parameters.items() if name not in beside}


def origins(n):
    return [f"https://{i}.example" for i in range(n)]


# ---- signatures and documentation ----


@pytest.mark.parametrize(("function", "declaration"), DECLARED)
def test_a_signature_is_as_declared(function, declaration):
    written = parameters(function)
    assert list(written) == list(declaration.options)
    for name, option in declaration.options.items():
        default = inspect.Parameter.empty if option.default is REQUIRED else option.default
        assert written[name].default == default or repr(written[name].default) == "<factory>", name
        takes = option.kind.takes + (" | None" if default is None and "None" not in option.kind.takes else "")
        assert written[name].annotation == takes, name


def test_a_former_name_is_in_the_signature_for_type_checkers():
    aliases = {option.alias for option in RouteOptions.options.values() if option.alias}
    assert aliases == {"max_backlog"}
    assert inspect.signature(c1m.Server.websocket).parameters["max_backlog"].default is None


@pytest.mark.parametrize(("documented", "declaration"), DECLARED)
def test_the_documentation_has_every_option_and_its_default(documented, declaration):
    text = inspect.getdoc(documented)
    assert "{" + declaration.__name__ not in text
    assert max(map(len, text.splitlines())) <= 119
    for name, option in declaration.options.items():
        [said] = [
            entry for entry in (" ".join(part.split()) for part in text.replace("\n    ", " ").splitlines())
            if entry.startswith(f"{name}: ")
        ]
        assert ("Default" in said) == (option.default is not REQUIRED), name


def test_the_documentation_reads_well():
    server, route = inspect.getdoc(c1m.Server), inspect.getdoc(c1m.Server.websocket)
    assert "\nhead_timeout: seconds that a request may take from its first byte to its last. Default 10.\n" in server
    assert "it served. Default 64 MiB.\n" in server
    assert "\nkeep_alive_timeout: seconds that a connection may idle between requests. Default 75.\n" in server
    assert '\nindex: names that stand for their directory, the first that exists. Default ``("index.html",)``.\n' in (
        inspect.getdoc(c1m.Root)
    )
    assert "\nwindow_bits: 9 to 15. Default 15.\n" in route
    assert "Default: half of idle_timeout, or 45 if that is less" in " ".join(route.split())


# ---- names ----


def test_a_former_name_does_what_the_present_one_does():
    server = c1m.Server(ports=[0])
    server.websocket("/old", max_backlog=1000)
    server.websocket("/new", max_send_queue=1000)
    old, new = (server._routes[path]["options"] for path in ("/old", "/new"))
    assert old == new
    with server, WebSocket(server.ports[0], "/old") as ws:
        assert ws.echo(b"x") == (BINARY, b"x")


@pytest.mark.parametrize("n", [1000, 1 << 20])
def test_a_former_name_and_the_present_one_are_one_too_many(n):
    says = "max_backlog: the former name of max_send_queue, which is given, too: give max_send_queue only"
    with pytest.raises(TypeError, match=f"^{says}$"):
        c1m.Server().websocket("/ws", max_send_queue=n, max_backlog=n)


def test_a_former_name_may_be_none_beside_the_present_one():
    server = c1m.Server()
    server.websocket("/both", max_backlog=None, max_send_queue=1000)
    server.websocket("/neither", max_backlog=None)
    assert server._routes["/both"]["options"]["max_send_queue"] == 1000
    assert server._routes["/neither"]["options"]["max_send_queue"] == 1 << 20


@pytest.mark.parametrize(("value", "error"), [(0, ValueError), ("1", TypeError)])
def test_a_former_name_is_the_one_that_an_error_names(value, error):
    with pytest.raises(error, match=f"^max_backlog: {value!r} is not "):
        c1m.Server().websocket("/ws", max_backlog=value)


# ---- limits of what is counted: refused where they are given, and named ----

COUNTED_AS = {"cors": "origins", "root": "roots", "cache": "rules", "encodings": "rules", "headers_for": "rules"}


@pytest.mark.parametrize(("make", "says"), [
    (lambda n: c1m.Root(".", cors=origins(n)), "cors"),
    (lambda n: c1m.Root(".", cache={f"*.{i}": "no-cache" for i in range(n)}), "cache"),
    (lambda n: c1m.Root(".", encodings={f"*.{i}": "br" for i in range(n)}), "encodings"),
    (lambda n: c1m.Root(".", headers_for={f"*.{i}": {"X": "y"} for i in range(n)}), "headers_for"),
    (lambda n: c1m.Root(".", index=[f"{i}.html" for i in range(n)]), "index"),
    (lambda n: c1m.Server({f"/{i}": "." for i in range(n)}), "root"),
    (lambda n: c1m.Server().websocket("/ws", origins=origins(n)), "origins"),
    (lambda n: c1m.Server().websocket("/ws", subprotocols=[f"p{i}" for i in range(n)]), "subprotocols"),
])
def test_too_many_are_named_where_they_are_given(make, says):
    most = LIMITS[COUNTED_AS.get(says, says)]
    make(most)
    with pytest.raises(ValueError, match=f"^{says}: {most + 1} are more than {most}$"):
        make(most + 1)


def test_too_many_routes_are_named_where_they_are_given():
    server = c1m.Server(ports=[0])
    for i in range(LIMITS["routes"]):
        server.websocket(f"/{i}")
    with pytest.raises(ValueError, match=r"^path: 1025 are more than 1024$"):
        server.websocket("/more")
    with server, WebSocket(server.ports[0], "/1023") as ws:
        assert ws.echo(b"x") == (BINARY, b"x")


def test_a_name_of_an_index_is_bounded_in_bytes(tmp_path):
    c1m.Root(tmp_path, index="é" * 127 + "x")
    with pytest.raises(ValueError, match=r"^index: '.*' is longer than 255 bytes$"):
        c1m.Root(tmp_path, index="é" * 128)


@pytest.mark.parametrize("listing", ["no", 1, None])
def test_yes_or_no_is_a_bool(listing):
    with pytest.raises(TypeError, match=f"^listing: {listing!r} is not a bool$"):
        c1m.Root(".", listing=listing)


@pytest.mark.parametrize("arguments", [{"cache": 5}, {"cache": [("*", "no-cache")]}, {"headers": "A: b"}])
def test_what_is_no_mapping_is_named(arguments):
    [name] = arguments
    with pytest.raises(TypeError, match=f"^{name}: .* is no mapping$"):
        c1m.Root(".", **arguments)


@pytest.mark.parametrize(("kind", "value"), [
    (Amount(0, 9), True), (Seconds(), True), (Port(), True), (Mode(), True), (Mode(), "660"),
])
def test_what_is_no_number_is_named(kind, value):
    with pytest.raises(TypeError, match=f"^it: {value!r} is not "):
        kind.check("it", value)


@pytest.mark.parametrize(("mode", "right"), [(-1, False), (0, True), (0o777, True), (0o1000, False), (660, False)])
def test_a_mode_is_permissions(mode, right):
    if right:
        assert Mode().check("unix_mode", mode) == mode
    else:
        with pytest.raises(ValueError, match=f"^unix_mode: {mode} is not between 0 and 0o777: an octal number such as"):
            Mode().check("unix_mode", mode)


@pytest.mark.parametrize(("arguments", "error", "says"), [
    ({"ports": "8001"}, TypeError, "ports: '8001' is not an int such as ports=8001"),
    ({"ports": ["8001"]}, TypeError, "ports: '8001' is not an int such as ports=8001"),
    ({"ports": "http"}, TypeError, "ports: 'http' is not an int"),
    ({"ports": b"8001"}, TypeError, "ports: b'8001' is not an int"),
    ({"ports": 8001.0}, TypeError, "ports: 8001.0 is not an int or several"),
    ({"ports": [0, 8001, 0, 8002, 8001]}, ValueError, "ports: 8001 is given twice"),
    ({"host": 5}, TypeError, "host: 5 is not a str or several"),
    ({"unix": 5}, TypeError, "unix: 5 is not a path or several"),
])
def test_one_or_several_are_told_in_a_line(arguments, error, says):
    with pytest.raises(error) as raised:
        c1m.Server(**arguments)
    assert str(raised.value) == says


def test_any_origin_is_had_without_one():
    with pytest.raises(ValueError, match=r"^origins: '\*' is not an origin: leave origins out to let any in$"):
        c1m.Server().websocket("/ws", origins="*")


@pytest.mark.parametrize("path", ["/*", "/ws/*", "/x/{name}", "/x/<name>", "/x/{name}/y", "/**"])
def test_a_path_that_is_a_pattern_is_refused(path):
    with pytest.raises(ValueError) as raised:
        c1m.Server().websocket(path)
    assert str(raised.value).startswith(f"path: {path!r} is a pattern, and patterns are not supported: ")


@pytest.mark.parametrize("path", ["/a{", "/a}b", "/a<b", "/a>", "/>a<", "/{a/b}", "/:name", "/$"])
def test_a_path_that_is_no_pattern_is_taken(path):
    c1m.Server().websocket(path)


def test_the_decorator_without_its_parentheses_is_named():
    server = c1m.Server()
    with pytest.raises(TypeError, match=r"^path: <function .*> is not a str: write @server.websocket\('/path'\)$"):
        @server.websocket
        def echo(ws, message):
            pass


def test_too_many_media_types_are_named_where_they_are_given():
    types = {f"x{i}": "text/x-x" for i in range(MAX_MEDIA_TYPES)}
    with c1m.Server(ports=[0], mime_types=types):
        pass
    with pytest.raises(ValueError, match=f"^mime_types: {MAX_MEDIA_TYPES + 1} are more than {MAX_MEDIA_TYPES}$"):
        c1m.Server(mime_types=types | {"more": "text/x-x"})


def test_too_many_different_durations_are_named_where_they_are_given():
    server = c1m.Server(ports=[0], head_timeout=1001, keep_alive_timeout=1002, write_timeout=1003)
    for i in range(MAX_DURATIONS // 2):
        server.websocket(f"/{i}", ping_interval=1 + i, idle_timeout=500 + 3 * i)      # each of both, and all apart
    server.websocket("/same", ping_interval=1, idle_timeout=500)
    with pytest.raises(ValueError, match=r"^idle_timeout: with ping_interval, the routes have 58 different durations"):
        server.websocket("/more", ping_interval=800, idle_timeout=10000)
    with server, WebSocket(server.ports[0], "/same") as ws:
        assert ws.echo(b"x") == (BINARY, b"x")


# ---- text and configuration files ----


@pytest.mark.parametrize(("kind", "text", "value"), [
    (Seconds(), "1.5", 1.5),
    (Seconds(), "500ms", 0.5),
    (Seconds(), "3 s", 3),
    (Seconds(), ".5m", 30),
    (Seconds(), "2h", 7200),
    (Seconds(), "1d", 86400),
    (Amount(1, 9, "bytes"), "7", 7),
    (Amount(1, 9, "bytes"), "64KiB", 65536),
    (Amount(1, 9, "bytes"), "2 M", 2 << 20),
    (Amount(1, 9, "bytes"), "1GiB", 1 << 30),
    (Mode(), "660", 0o660),
    (Mode(), "0o660", 0o660),
    (Choice((None, "a")), "none", None),
    (HeaderFields({}), "X=", {"X": None}),
    (Amount(1, 9), "12", 12),                            # whether it is within bounds is check()'s to say
    (Choice(("a", "b")), "a", "a"),
    (Several(Port(), int), "8001", [8001]),
    (Several(Port(), int), "8001-8003", [8001, 8002, 8003]),
    (Mapped(), "*.html=max-age=5", {"*.html": "max-age=5"}),
])
def test_text_is_read(kind, text, value):
    assert kind.parse(text) == value


@pytest.mark.parametrize(("kind", "text", "says"), [
    (Seconds(), "soon", "'soon' is not a number of seconds"),
    (Amount(1, 9), "1.5", "'1.5' is not a whole number"),
    (Port(), "70000", "70000 is not a TCP port"),
    (Port(), "2-1", "'2-1' is a range that ends before it begins"),
    (Mapped(), "text/plain", "'text/plain' has no '=': write KEY=VALUE"),
    (Seconds(), "1 week", "'1 week' is not a number of seconds, such as 10, 1.5, 500ms, 2m, 1h or 1d"),
    (Seconds(), "nan", "'nan' is not a number of seconds"),
    (Amount(1, 9, "bytes"), "1MB", "'1MB' is not a number of bytes, such as 65536, 64KiB or 1MiB"),
    (Amount(1, 9, "bytes"), "1iB", "'1iB' is not a number of bytes"),
    (Amount(1, 9), "1K", "'1K' is not a whole number"),
    (Mode(), "690", "'690' is not an octal number such as 660"),
])
def test_text_that_cannot_be_read_is_refused_in_a_line(kind, text, says):
    with pytest.raises(ValueError, match=f"^{says}"):
        kind.parse(text)


@pytest.mark.parametrize("declaration", [ServerOptions, RootOptions, RouteOptions])
def test_every_option_has_a_place_in_the_help(declaration):
    for name, option in declaration.options.items():
        assert option.group in GROUPS, name
        assert re.fullmatch(r"[A-Zp][^`{}]*\.", option.help), name


@pytest.mark.parametrize(("text", "says"), [
    ("names of files. More", "Names of files."),
    ("of ``{range}``; more", "Of 1 to 9."),
    ("e.g. one: two", "E.g."),
])
def test_a_flag_without_help_has_the_beginning_of_the_documentation(text, says):
    class Made(Options, group="Files"):
        x: int = declared(1, Amount(1, 9), text)

    assert Made.options["x"].help == says
    assert Made.options["x"].group == "Files"


@pytest.mark.parametrize(("kind", "value", "loaded"), [
    (Seconds(), "2m", 120),
    (Seconds(), 1.5, 1.5),
    (Several(Port(), int), 8001, [8001]),
    (Several(Port(), int), [8001, "8003-8004"], [8001, 8003, 8004]),
    (Several(Port(), int), {"a": 1}, [{"a": 1}]),                # for check() to refuse
    (Path(), "a", "/etc/c1m/a"),
    (Path(), "/a", "/a"),
    (Path("-"), "-", "-"),
    (Path(), "", ""),                                            # for check() to refuse
    (Several(Path()), ["a", "/b"], ["/etc/c1m/a", "/b"]),
    (HeaderFields({}), {"A": "", "B": "b"}, {"A": None, "B": "b"}),
    (Mapped(), "a=b", "a=b"),
])
def test_values_of_a_configuration_file_are_read(kind, value, loaded):
    assert kind.load(value, "/etc/c1m") == loaded


def test_options_without_any_take_nothing():
    class Nothing(Options):
        pass

    assert vars(Nothing({"x": 1})) == {} == Nothing({}).export()


def test_by_default_a_ping_comes_before_proxies_give_up_who_is_silent():
    """nginx, and others, after 60 seconds."""
    defaults = {name: declared.default for name, declared in RouteOptions.options.items()}
    assert RouteOptions(defaults).ping_interval == 45
    assert RouteOptions(defaults | {"idle_timeout": 20}).ping_interval == 10
    assert RouteOptions(defaults | {"idle_timeout": 3600}).ping_interval == 45
    assert RouteOptions(defaults | {"idle_timeout": 3600, "ping_interval": 600}).ping_interval == 600

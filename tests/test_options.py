"""Options are declared once: what is written out for type checkers, documented and refused agrees with that."""

import inspect

import pytest
from client import WebSocket
from wire import BINARY

import c1m
from c1m.kinds import Amount, Choice, Kind, Mapped, Port, Seconds, Several, Switch
from c1m.options import LIMITS, REQUIRED, Options, RootOptions, RouteOptions, ServerOptions

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
    assert "\nports: one TCP port or several, 0 for one that the kernel chooses. Default 8001.\n" in server
    assert '\nindex: names that stand for their directory, the first that exists. Default ``("index.html",)``.\n' in (
        inspect.getdoc(c1m.Root)
    )
    assert "\nwindow_bits: 9 to 15. Default 15.\n" in route
    assert "Default: half of idle_timeout, or 45 if that is less" in route


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
    with pytest.raises(TypeError, match=r"^max_backlog: the former name of max_send_queue, which is given, too$"):
        c1m.Server().websocket("/ws", max_send_queue=n, max_backlog=n)


# ---- limits of what is counted: refused where they are given, and named ----


@pytest.mark.parametrize(("make", "says"), [
    (lambda n: c1m.Root(".", cors=origins(n)), "cors"),
    (lambda n: c1m.Root(".", cache={f"*.{i}": "no-cache" for i in range(n)}), "cache"),
    (lambda n: c1m.Root(".", index=[f"{i}.html" for i in range(n)]), "index"),
    (lambda n: c1m.Server({f"/{i}": "." for i in range(n)}), "root"),
    (lambda n: c1m.Server().websocket("/ws", origins=origins(n)), "origins"),
    (lambda n: c1m.Server().websocket("/ws", subprotocols=[f"p{i}" for i in range(n)]), "subprotocols"),
])
def test_too_many_are_named_where_they_are_given(make, says):
    most = LIMITS[{"cors": "origins", "root": "roots"}.get(says, says)]
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


# ---- text ----


@pytest.mark.parametrize(("kind", "text", "value"), [
    (Seconds(), "1.5", 1.5),
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
    (Mapped(), "text/plain", "'text/plain' has no '='"),
])
def test_text_that_cannot_be_read_is_refused_in_a_line(kind, text, says):
    with pytest.raises(ValueError, match=f"^{says}"):
        kind.parse(text)


@pytest.mark.parametrize("declaration", [ServerOptions, RootOptions, RouteOptions])
def test_every_flag_can_be_made(declaration):
    """A flag is one word in a declaration: whatever the kind, the command knows how to make it."""
    from c1m.cli import flag
    from c1m.options import Flag

    for name, option in declaration.options.items():
        if option.default is not REQUIRED and type(option.kind) is not Kind and name != "root":
            made = flag(name, option, option.flag or Flag("help"))(lambda **_: None)
            [parameter] = made.__click_params__
            assert parameter.name == name
            assert parameter.is_flag == isinstance(option.kind, Switch)


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

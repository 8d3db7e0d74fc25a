"""Every option by flag and by configuration file, what is wrong in either, and `c1m serve --check`."""

import contextlib
import json
import os
import re
import signal
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from client import PATIENCE, WebSocket, get
from config_docs import DOCUMENT, document
from test_cli import ended, interrupted
from wire import TEXT

import c1m
from c1m.cli import flag_of, main, planned, serve
from c1m.config import Wrong, imported, read
from c1m.kinds import Mapped, Seconds, Several, Switch
from c1m.options import RootOptions, RouteOptions, ServerOptions

EXAMPLES = Path(__file__).parent.parent / "examples"
# Texts of which each kind of option takes some, and refuses others.
TEXTS = [
    "7", "12", "1012", "660", "on", "json", "shared", "latest", "2.5", "500ms", "64KiB", "7001-7003",
    "https://a.example", "x=text/x-x", "x=gzip", "utf-8", "*.a=max-age=5", "*.b=X-A=b", "X-A=b", "a.b", "-1",
    "x y", "a/b", "=", "", "\0", "é" * 200,
    "192.0.2.0/24", "2001:db8::/32",
]

OPTIONS = [
    pytest.param(declaration, name, id=f"{declaration.__name__}-{name}")
    for declaration in (ServerOptions, RootOptions, RouteOptions)
    for name, option in declaration.options.items() if option.flag is not None
]


def plan_of(*arguments):
    """What the flags and the file say, and the server made of it."""
    context = serve.make_context("serve", list(map(str, arguments)))
    given = dict(context.params)
    given.pop("check")
    plan = planned(**given)
    return plan, plan.made()


def got(declaration, name, server):
    """The value that an option has come to, as it is exported to the engines, or as it is kept."""
    if declaration is RouteOptions:
        return server._routes["/ws"]["options"][name + declaration.options[name].kind.suffix]
    return getattr(server._options if declaration is ServerOptions else server._roots[0][2], name)


def wanted(declaration, name, value):
    kind = declaration.options[name].kind
    checked = kind.check(name, value)
    if name == "cache":
        checked |= {"*": "no-cache"}
    return kind.export(checked) if declaration is RouteOptions else checked


def values_of(kind, default):
    """Texts that a kind takes, with their values; the default is none of them."""
    for text in [*TEXTS, *filter(None, getattr(kind, "values", ()))]:
        with contextlib.suppress(ValueError, TypeError):
            value = kind.parse(text)
            if kind.check("x", value) != default:
                yield text, value


def beside(name):
    """The flag that an option needs beside it to be right."""
    return {
        "idle_timeout": ["--ping-interval", "1ms"],
        "ping_interval": ["--idle-timeout", "1d"],
        "cors_credentials": ["--cors", "https://a.example"],
        "unix_mode": ["--unix", "c1m.sock"],
    }.get(name, [])


# ---- each option, by the declarations ----


@pytest.mark.parametrize(("declaration", "name"), OPTIONS)
def test_every_option_by_flag(declaration, name, tmp_path):
    option = declaration.options[name]
    flag = flag_of(name, option)
    before = [tmp_path, "--websocket", "/ws", *beside(name)]
    if isinstance(option.kind, Switch):
        for text, value in ((flag, True), (f"--no-{flag[2:]}", False)):
            assert got(declaration, name, plan_of(*before, text)[1]) is value
        return
    texts = list(values_of(option.kind, option.default))
    assert texts, "TEXTS has none that this option takes"
    for text, value in texts[:3]:
        assert got(declaration, name, plan_of(*before, flag, text)[1]) == wanted(declaration, name, value)
    if isinstance(option.kind, Several | Mapped) and len(texts) > 1:
        (one, a), (other, b) = texts[:2]
        both = a | b if isinstance(a, dict) else a + b
        server = plan_of(*before, flag, one, flag, other)[1]
        assert got(declaration, name, server) == wanted(declaration, name, both)


@pytest.mark.parametrize(("declaration", "name"), OPTIONS)
def test_every_option_by_file(declaration, name, tmp_path):
    option = declaration.options[name]
    if isinstance(option.kind, Switch):
        values = [("true", True), ("false", False)]
    else:
        values = [(written(option.kind, text, value), value) for text, value in values_of(option.kind, option.default)]
        if isinstance(option.kind, Seconds):
            values += [("2.5", 2.5), ("3", 3)]
    for text, value in values[:3]:
        path = config(tmp_path, declaration, f"{name} = {text}\n")
        server = plan_of("--config", path, *beside(name))[1]
        if isinstance(value, str | list) and "PATH" in option.kind.metavar.replace("FILE", "PATH"):
            value = option.kind.load(value, str(tmp_path))       # it starts at the file's directory
        assert got(declaration, name, server) == wanted(declaration, name, value)


def config(directory, declaration, lines):
    """A file that has these lines where options of this kind belong."""
    path = directory / "c1m.toml"
    text = {each: lines if each is declaration else "" for each in (ServerOptions, RootOptions, RouteOptions)}
    path.write_text(
        f'{text[ServerOptions]}[root."/"]\npath = "."\n{text[RootOptions]}[websocket."/ws"]\n{text[RouteOptions]}'
    )
    return path


def written(kind, text, value):
    """The text of a flag, as TOML: a whole number as one, mappings as tables, lists as arrays, all else as a string."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {written(kind, '', each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return json.dumps(value)
    if isinstance(value, int):
        return str(value)
    return json.dumps(text or value or "", ensure_ascii=False)


@pytest.mark.parametrize(("declaration", "name"), OPTIONS)
def test_what_is_wrong_is_told_in_a_line_that_names_the_flag(declaration, name, tmp_path):
    option = declaration.options[name]
    flag = flag_of(name, option)
    if isinstance(option.kind, Switch):
        return
    for text in TEXTS:
        try:
            option.kind.check(name, option.kind.parse(text))
        except (ValueError, TypeError):
            done = CliRunner().invoke(main, ["serve", str(tmp_path), "--websocket", "/ws", flag, text, "--check"])
            assert done.exit_code == 2
            assert re.fullmatch(rf"Error: {flag}: [^\n]+\n", done.output), done.output


@pytest.mark.parametrize(("declaration", "name"), OPTIONS)
def test_a_wrong_type_is_told_with_file_line_and_key(declaration, name, tmp_path):
    path = config(tmp_path, declaration, f"\n{name} = [[1979-05-27]]\n")
    line = path.read_text()[:path.read_text().index(f"{name} = ")].count("\n") + 1
    with pytest.raises(Wrong, match=rf"^{re.escape(str(path))}:{line}: {name}: [^\n]+$"):
        read(str(path))


def test_no_two_options_have_one_flag():
    every = [each for parameter in serve.params for each in parameter.opts + parameter.secondary_opts]
    assert len(every) == len(set(every))


# ---- files that are wrong ----

GOOD = """\
ports = [0]
head_timeout = "5s"

[root."/"]
path = "."
[root."/".headers]
"X-A" = "a"

[websocket."/chat"]
handler = "handlers:Chat"
[websocket."/echo"]
max_message = 1000
"""

HANDLERS = """\
class Chat:
    def on_message(self, ws, message): ws.send("chat " + message)
class Needs:
    def __init__(self, something): pass
class Outer:
    Inner = Chat
async def later(ws, message): await ws.send("later " + message)
def upper(ws, message): ws.send(message.upper())
nothing = 5
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The directory of a configuration file, with handlers beside it."""
    (tmp_path / "c1m.toml").write_text(GOOD)
    (tmp_path / "handlers.py").write_text(HANDLERS)
    (tmp_path / "broken.py").write_text("import os\n\nraise RuntimeError('no\\ndatabase')\n")
    (tmp_path / "lacking.py").write_text("import nowhere_to_be_found\n")
    (tmp_path / "unfinished.py").write_text("def f(:\n")
    monkeypatch.setattr(sys, "path", sys.path[:])
    yield tmp_path
    for name in ("handlers", "broken", "lacking", "unfinished"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(("old", "new", "told"), [
    ("ports = [0]", "prots = [0]", "1: prots: the server has no such option; did you mean ports?"),
    ("ports = [0]", "zzz = 1", "1: zzz: the server has no such option"),
    ("ports = [0]", "listing = true", "1: listing: this is an option of a root, not of the server: write it below "
     '[root."/"], with the path'),
    ("ports = [0]", "[server]\nports = [0]", "1: server: the server's options have no table: write it above the first "
     "[table]"),
    ("ports = [0]", "ports = [0]\ncharset = 5", "2: charset: this is an option of a root, not of the server: write it "
     'below [root."/"], with the path'),
    ('path = "."', 'path = "."\ncharset = ""', "6: charset: '' is not the name of a character encoding, or \"none\""),
    ('[root."/"]\npath = "."\n[root."/".headers]', '[root]\npath = "."\n[root."/x"]\npath = "."\n[root."/x".headers]',
     '5: path: this is of a root at "/" that is not the only one: write it below [root."/"]'),
    ('[root."/"]\npath = "."\n[root."/".headers]', '[root."assets"]\npath = "."\n[root."assets".headers]',
     "4: assets: the URL prefix 'assets' has no '/': write '/assets'"),
    ('path = "."', 'path = "."\nports = 1', "6: ports: this is an option of the server, not of a root: write it above "
     "the first [table]"),
    ("ports = [0]", "ports = [0,\n 70000]", "2: ports: 70000 is not a TCP port (0 to 65535)"),
    ("ports = [0]", 'ports = "1-x"', "1: ports: '1-x' is not a port such as 8001, or a range such as 8002-8030"),
    ("ports = [0]", "ports = []", "1: ports: none given, and no unix socket either"),
    ("ports = [0]", "on_drain_start = 5", '1: on_drain_start: 5 is not a string such as "chat:Chat"'),
    ("ports = [0]", 'on_drain_start = "handlers:upper"', "1: on_drain_start: the function takes (ws, message); it "
     "is called with ()"),
    ("ports = [0]", 'on_drain_start = "handlers:nothing"', "1: on_drain_start: 5 is no function"),
    ("ports = [0]", 'on_start = "handlers:upper"',
     "1: on_start: the function takes (ws, message); it is called with ()"),
    ("ports = [0]", 'on_drain_start = "handlers:uper"', "1: on_drain_start: module 'handlers' ({}/handlers.py) has no "
     "uper; did you mean upper?"),
    ("5s", "soon", "2: head_timeout: 'soon' is not a number of seconds, such as 10, 1.5, 500ms, 2m, 1h or 1d"),
    ('"5s"', "true", "2: head_timeout: True is not a number of seconds (wanted: seconds)"),
    ('"5s"', "", "2: Invalid value, in column 16"),
    ('path = "."', "", '4: /: this root has no path, the directory to serve'),
    ('path = "."', 'path = "nowhere"', "5: path: no such directory: {}/nowhere"),
    ('path = "."', 'path = "c1m.toml"', "5: path: not a directory: {}/c1m.toml"),
    ('path = "."', 'pathe = "."', "5: pathe: a root has no such option; did you mean path?"),
    ('"X-A" = "a"', '"X-A" = "a"\n"X B" = "b"', "8: X B: 'X B' is not a field name"),
    ('"X-A" = "a"', '"X-A" = "a"\n[root."/".headers_for]\n"*.x" = "X-A: b"',
     "9: *.x: 'X-A: b', for '*.x', is no mapping of field names to values (wanted: table of tables of strings)"),
    ('"X-A" = "a"', '"Cache-Control" = "a"\n[root."/".cache]\n"*" = "b"', '6: headers: cache or listing says '
     'Cache-Control, too: use cache={{"*": ...}} alone'),
    ('[root."/"]\npath = "."\n[root."/".headers]', 'root = 5\n[websocket."/x"]', "4: root: 5 is neither a "
     "directory nor a table of a root's options"),
    ('[root."/".headers]', '[root."/a"]\npath="."\n[root."/a/"]\npath="."\n[root."/a/".headers]', "4: root: a "
     "URL prefix is given twice, with and without its last slash, in ['/', '/a', '/a/']"),
    ('[root."/"]\npath = "."\n[root."/".headers]', '[root."/"]\npath="."\n[root."/a?b"]\npath="."\n'
     '[root."/".headers]', "6: /a?b: the URL prefix '/a?b' has a query, fragment or escape in it: it is a path, "
     "written unescaped"),
    ("max_message = 1000", "max_backlog = 1000", "12: max_backlog: this is called max_send_queue now"),
    ("max_message = 1000", "max_message = 0", "12: max_message: 0 is not between 1 and 2147483647"),
    ("max_message = 1000", "ping_interval = 200", "12: ping_interval: 200 is not less than the idle_timeout, 120.0"),
    ('[websocket."/echo"]', '[websocket."echo"]', "11: echo: 'echo' does not start with '/'"),
    ('[websocket."/chat"]\nhandler = "handlers:Chat"\n[websocket."/echo"]\nmax_message = 1000',
     '[[websocket]]\npath = "/ws"', '9: websocket: this is no table of URL paths: write [websocket."/path"]'),
    ('[websocket."/echo"]\nmax_message = 1000', '[websocket]\npath = "/ws"', '12: path: this is no table of a '
     'route: write [websocket."/path"], and its options below'),
    ('"handlers:Chat"', "5", '10: handler: 5 is not a string such as "chat:Chat"'),
    ('"handlers:Chat"', '"Chat"', '10: handler: \'Chat\' is not of the form "module:name", such as "chat:Chat"'),
    ("handlers:Chat", "handlers:Chatt", "10: handler: module 'handlers' ({}/handlers.py) has no Chatt; did you mean "
     "Chat?"),
    ("handlers:Chat", "handlers:Needs", "10: handler: no Needs can be made without arguments: TypeError: "
     "Needs.__init__() missing 1 required positional argument: 'something'"),
    ("handlers:Chat", "handlers:nothing", "10: handler: 5 is no function and has none of the methods "
     "on_upgrade, on_open, on_message, on_drain, on_close"),
    ("handlers:Chat", "nowhere_at_all:x", "10: handler: there is no module 'nowhere_at_all' in {} or in "
     f"{os.getcwd()}, and none is installed"),
    ("handlers:Chat", "lacking:x", "10: handler: module 'lacking' cannot be imported: ModuleNotFoundError: No "
     "module named 'nowhere_to_be_found', in {}/lacking.py, line 1"),
    ("handlers:Chat", "broken:x", "10: handler: module 'broken' cannot be imported: RuntimeError: no database, in "
     "{}/broken.py, line 3"),
    ("handlers:Chat", "unfinished:f", "10: handler: module 'unfinished' cannot be imported: SyntaxError: "
     "invalid syntax (unfinished.py, line 1)"),
])
def test_a_file_that_is_wrong(folder, old, new, told):
    path = folder / "c1m.toml"
    assert old in GOOD
    path.write_text(GOOD.replace(old, new))
    with pytest.raises(Wrong) as raised:
        read(str(path)).made()
    if told is not None:
        assert str(raised.value) == f"{path}:{told.format(folder)}"
    assert "\n" not in str(raised.value)


def test_a_file_that_is_not_utf_8(folder):
    (folder / "c1m.toml").write_bytes(b"ports = 1\n# \xff")
    with pytest.raises(Wrong, match=r"c1m\.toml:2: this is not UTF-8$"):
        read(str(folder / "c1m.toml"))


def test_a_file_that_ends_too_soon(folder):
    (folder / "c1m.toml").write_text("ports = 1\nhost = [\n\n")
    with pytest.raises(Wrong, match=r"c1m\.toml:2: Invalid value, at the end$"):
        read(str(folder / "c1m.toml"))


@pytest.mark.parametrize(("handler", "kind"), [
    ("handlers:Chat", "Chat"), ("handlers:Outer.Inner", "Chat"), ("handlers:upper", "function"),
])
def test_a_handler_is_an_object_or_a_function(folder, handler, kind):
    assert type(imported(handler, [str(folder)], "x")).__name__ == kind


# ---- what a file says, and flags beside it ----


def test_flags_override_the_file_for_all_its_roots_and_routes(folder):
    (folder / "c1m.toml").write_text(
        'ports = [1]\nhead_timeout = 5\n[root]\n"/" = "."\n"a.example/b" = {path = ".", listing = true}\n'
        '[websocket."/a"]\nmax_message = 1\n[websocket."/b"]\n'
    )
    (folder / "other").mkdir()
    plan, server = plan_of(
        folder / "other", "--config", folder / "c1m.toml", "--port", 2, "--no-listing", "--max-message", 7,
        "--websocket", "/c",
    )
    assert server.ports == [2]
    assert server._options.head_timeout == 5
    roots = {(host, prefix): root for host, prefix, root in server._roots}
    assert roots["", ""].path == str(folder / "other")
    assert roots["a.example", "/b"].path == str(folder)
    assert not any(root.listing for root in roots.values())
    assert [route["options"]["max_message"] for route in server._routes.values()] == [7, 7, 7]
    assert not plan.console


def test_a_file_that_has_nothing_to_serve(folder):
    (folder / "c1m.toml").write_text("ports = [0]\n")
    with pytest.raises(Wrong, match=r'c1m\.toml: nothing is served: write root = "DIRECTORY", or '):
        plan_of("--config", folder / "c1m.toml")
    assert list(plan_of("--config", folder / "c1m.toml", "--websocket", "/ws")[0].routes) == ["/ws"]
    assert plan_of("--config", folder / "c1m.toml", ".")[1]._roots


def test_a_unix_socket_alone(folder):
    (folder / "c1m.toml").write_text('ports = []\nunix = "a.sock"\nroot = "."\n')
    for arguments in (["--config", folder / "c1m.toml"], [".", "--unix", "a.sock", "--port", "none"]):
        options = plan_of(*arguments)[1]._options
        assert (options.ports, len(options.unix)) == ((), 1)


def test_no_charset_by_flag_and_file(folder):
    (folder / "c1m.toml").write_text('[root]\npath = "."\ncharset = "none"\n')
    for arguments in (["--config", folder / "c1m.toml"], [".", "--charset", "none"]):
        assert plan_of(*arguments)[1]._roots[0][2].charset is None


def test_fields_by_pattern_by_flag_and_file(folder):
    (folder / "c1m.toml").write_text(
        '[root]\npath = "."\n[root.headers_for]\n"*.pdf" = {"X-A" = "b", "X-B" = ""}\n"/e/*" = {"X-A" = "c=d"}\n'
    )
    flags = ["*.pdf=X-A=b", "/e/*=X-A=c=d", "*.pdf=X-B="]
    wanted = {"*.pdf": {"X-A": "b", "X-B": None}, "/e/*": {"X-A": "c=d"}}
    by_flags = [".", *(part for each in flags for part in ("--header-for", each))]
    for arguments in (["--config", folder / "c1m.toml"], by_flags):
        assert plan_of(*arguments)[1]._roots[0][2].headers_for == wanted


def test_a_root_may_be_one_table(folder):
    (folder / "c1m.toml").write_text('[root]\npath = "."\nlisting = true\n')
    [(host, prefix, root)] = plan_of("--config", folder / "c1m.toml")[1]._roots
    assert (host, prefix, root.path, root.listing) == ("", "", str(folder), True)


@pytest.mark.parametrize(("arguments", "told"), [
    (["--listing"], "--listing: this needs a directory to serve"),
    ([".", "--max-message", "5"], "--max-message: this needs a route: --websocket PATH"),
    ([".", "--unix-mode", "660"], "--unix-mode: no unix socket is given"),
])
def test_a_flag_for_what_is_not_served_is_told(arguments, told):
    with pytest.raises(Wrong, match=f"^{told}$"):
        plan_of(*arguments)


def test_an_echo_beside_a_route_of_the_file_has_a_path_of_its_own(folder):
    with pytest.raises(Wrong, match=r"^--websocket: '/chat' is a WebSocket route already$"):
        plan_of("--config", folder / "c1m.toml", "--websocket", "/chat")


# ---- caching ----


@pytest.mark.parametrize(("arguments", "cache"), [
    ([], {"*": "no-cache"}),
    (["--cache", "*.js=max-age=5"], {"*.js": "max-age=5", "*": "no-cache"}),
    (["--cache", "*=max-age=5"], {"*": "max-age=5"}),
    (["--header", "cache-control=no-store"], {}),
    ([each for i in range(RootOptions.options["cache"].kind.most) for each in ("--cache", f"*.{i}=a")],
     {f"*.{i}": "a" for i in range(RootOptions.options["cache"].kind.most)}),
])
def test_all_is_revalidated_unless_told_otherwise(tmp_path, arguments, cache):
    given = plan_of(tmp_path, *arguments)[1]._roots[0][2].cache
    assert given == cache
    assert list(given) == sorted(given, key=lambda pattern: pattern == "*")      # the first that fits counts


def test_a_file_may_have_no_cache_rules(folder):
    (folder / "c1m.toml").write_text('[root]\npath = "."\ncache = {}\n')
    assert plan_of("--config", folder / "c1m.toml")[1]._roots[0][2].cache == {}


def test_an_edited_script_shows_at_the_next_reload(serving, tmp_path):
    (tmp_path / "a.js").write_text("1")
    process = serving(tmp_path, "--port", 0)
    first = get(process.port, "/a.js")
    assert first["Cache-Control"] == "no-cache"
    again = get(process.port, "/a.js", f"If-None-Match: {first['ETag']}")
    assert (again.status, again["Cache-Control"]) == (304, "no-cache")


def test_the_library_has_no_opinion(tmp_path):
    (tmp_path / "a.js").write_text("1")
    with c1m.Server(tmp_path, ports=[0]) as server:
        assert get(server.ports[0], "/a.js").all("Cache-Control") == []


# ---- the command ----


def test_check_says_what_would_be_served(folder):
    (folder / "c1m.toml").write_text(GOOD.replace("[0]", '"8001-8003"').replace(
        '[websocket."/chat"]', f'[root."a.example/b"]\npath = "{EXAMPLES}"\n[websocket."/chat"]',
    ))
    out, errors, status = ended("serve", "--config", folder / "c1m.toml", "--check")
    assert (errors, status) == ("", 0)
    assert out.splitlines()[0].endswith(f" would serve what {folder}/c1m.toml says")
    assert out.splitlines()[1:] == [
        f"  http://127.0.0.1:8001/   {folder}   and on ports 8002-8003",
        f"  http://a.example:8001/b/   {EXAMPLES}",
        "  ws://127.0.0.1:8001/chat   handlers:Chat",
        "  ws://127.0.0.1:8001/echo   echo",
    ]


@pytest.mark.parametrize(("arguments", "told"), [
    (["nowhere"], "root: no such directory: nowhere"),
    ([".", "--unix", "/nowhere/socket"], "unix: No such file or directory: /nowhere"),
    ([".", "--unix", "/etc/passwd"],
     "unix: a file that is no socket is in the way (remove it, or give another path): /etc/passwd"),
    ([".", "--access-log", "/nowhere/log"], "access_log: No such file or directory: /nowhere"),
    ([".", "--host", "no host"], None),
    (["--config", "/nowhere/c1m.toml"], "--config: No such file or directory: /nowhere/c1m.toml"),
])
def test_check_finds_what_would_fail(arguments, told):
    out, errors, status = ended("serve", *arguments, "--check")
    assert (out, status) == ("", 2)
    assert re.fullmatch(f"Error: {re.escape(told)}\n" if told else "Error: host: 'no host' is [^\n]+\n", errors)


def test_check_does_not_listen(tmp_path):
    path = tmp_path / "socket"
    assert ended("serve", tmp_path, "--port", 1, "--unix", path, "--access-log", tmp_path / "log", "--check")[2] == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("handler", "message", "answer"), [
    ("handlers:Chat", b"x", b"chat x"), ("handlers:upper", b"x", b"X"), ("handlers:later", b"x", b"later x"),
])
def test_a_file_with_a_handler_is_served(serving, folder, handler, message, answer):
    (folder / "c1m.toml").write_text(GOOD.replace("handlers:Chat", handler))
    process = serving("--config", folder / "c1m.toml", cwd="/")
    assert get(process.port, "/handlers.py")["X-A"] == "a"
    with WebSocket(process.port, "/chat") as ws:
        assert ws.echo(message, TEXT) == (TEXT, answer)
        process.send_signal(signal.SIGUSR1)      # which does no harm
        assert ws.echo(message, TEXT) == (TEXT, answer)
    assert interrupted(process) == ("", "", 0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_one_in_asyncio_well(serving, folder, number):
    (folder / "c1m.toml").write_text(GOOD.replace("handlers:Chat", "handlers:later"))
    process = serving("--config", folder / "c1m.toml")
    with WebSocket(process.port, "/chat") as ws:
        process.send_signal(number)
        assert ws.closing() == 1001
    assert process.wait() == 0
    assert process.stderr.read() == ""


def test_a_second_ctrl_c_does_not_wait_in_asyncio(serving, folder):
    (folder / "c1m.toml").write_text(GOOD.replace("handlers:Chat", "handlers:later"))
    process = serving("--config", folder / "c1m.toml", "--shutdown-timeout", "1h")
    with WebSocket(process.port, "/chat") as ws:
        process.send_signal(signal.SIGINT)
        assert ws.closing() == 1001
        assert interrupted(process)[::2] == ("", 130)


@pytest.mark.parametrize(("name", "said"), [("handlers:room.goodbye", "bye"), ("handlers:soon", "soon")])
def test_a_file_says_who_says_goodbye(serving, folder, name, said):
    """With a method of the very object that is a handler; or a coroutine function, which takes asyncio."""
    (folder / "handlers.py").write_text("""
class Room:
    clients = []
    def on_open(self, ws): self.clients.append(ws)
    def goodbye(self, said="bye"): [ws.send(said) for ws in self.clients]
room = Room()
async def soon(): room.goodbye("soon")
""")
    text = GOOD.replace("handlers:Chat", "handlers:room")
    (folder / "c1m.toml").write_text(f'on_drain_start = "{name}"\n{text}')
    process = serving("--config", folder / "c1m.toml")
    with WebSocket(process.port, "/chat") as ws:
        process.send_signal(signal.SIGTERM)
        assert ws.message() == (TEXT, said.encode())
        assert ws.closing() == 1001
    assert process.wait(PATIENCE) == 0
    assert process.stderr.read() == ""


def test_no_ports_at_all(folder):
    (folder / "c1m.toml").write_text('ports = []\nunix = "socket"\n[root]\n"/" = "."\n"/a" = "."\n[websocket."/ws"]\n')
    out, _, status = ended("serve", "--config", folder / "c1m.toml", "--check")
    assert status == 0
    assert out.splitlines()[1:] == [f"  /   {folder}", f"  /a/   {folder}", "  /ws   echo", f"  unix:{folder}/socket"]


# ---- help and documentation ----


def test_help_is_in_groups_and_fits_80_columns():
    text = CliRunner().invoke(main, ["serve", "--help"], terminal_width=78).stdout
    assert max(map(len, text.splitlines())) <= 78
    sections = dict(re.findall(r"^([A-Z][\w ]+):\n((?:  .*\n)+)", text, re.MULTILINE))
    assert list(sections) == [
        "Listening", "Proxies", "Workers", "Files", "WebSocket", "Limits and timeouts", "Log", "Command"]
    for declaration in (ServerOptions, RootOptions, RouteOptions):
        for name, option in declaration.options.items():
            if option.flag is None:
                continue
            flag = flag_of(name, option)
            shown = f"--[no-]{flag[2:]}" if isinstance(option.kind, Switch) else f"{flag} {option.kind.metavar}"
            pattern = rf"^  {re.escape(shown.split()[0])}(?= |\n).*\n(?:    .*\n)*"
            found = re.search(pattern, sections[option.group], re.MULTILINE)
            assert found, name
            assert "default: " in " ".join(found[0].split()), name


def test_the_documentation_of_the_file_is_as_declared():
    text = DOCUMENT.read_text()
    assert document(text) == text, "run python tests/config_docs.py"
    assert all(f"\n| `{name}` |" in text for declaration in (ServerOptions, RootOptions, RouteOptions)
               for name in declaration.options if name != "root")


def test_the_documented_file_is_right(tmp_path):
    [example] = re.findall(r"```toml\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    for name in ("public", "static"):
        (tmp_path / name).mkdir()
    (tmp_path / "c1m.toml").write_text(example.replace("chat:Chat", "documented:Chat"))
    (tmp_path / "documented.py").write_text(HANDLERS)
    assert ended("serve", "--config", tmp_path / "c1m.toml", "--check")[1:] == ("", 0)


def test_the_example(serving):
    process = serving("--config", EXAMPLES / "c1m.toml", "--port", 0, "--origin", "https://a.example")
    assert b"<!doctype html>" in get(process.port).body.lower()
    lobby = get(process.port, "/examples/lobby.py")
    assert (lobby.body, lobby["Cache-Control"]) == ((EXAMPLES / "lobby.py").read_bytes(), "public, max-age=60")
    with WebSocket(process.port, "/lobby") as one, WebSocket(process.port, "/ws") as other:
        assert one.echo(b"hello", TEXT) == other.echo(b"hello", TEXT) == (TEXT, b"hello")
    assert interrupted(process) == ("", "", 0)


def test_click_says_nothing_but_what_it_must():
    """Flags without a value, and unknown ones, are click's to tell."""
    with pytest.raises(click.UsageError):
        serve.make_context("serve", ["--port"])

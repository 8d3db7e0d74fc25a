"""The arrows between the modules of src/ point down, and the stubs say what the modules have."""

import ast
import importlib
import inspect
import re
from pathlib import Path

import pytest

import c1m

SOURCES = Path(__file__).parent.parent / "src"

# Who may know whom: those in the layers above it, and nobody in a module's own.
LAYERS = [
    {"linux", "buf", "coding", "histogram", "atomics"},
    {"siphash", "transport", "tally", "address", "interest"},
    {"naming", "ring"},
    {"http", "ws", "deflate", "files", "proxyproto", "limits", "reactor"},
    {"semantics", "forwarded", "topics", "mailbox", "loop", "handlers"},
    {"accesslog", "wsconn", "loadconn", "gate"},
    {"response", "handshake", "pubsub", "loadws", "loadhttp"},
    {"static", "websocket", "loadgen", "counts"},
    {"httpconn", "shared"},
    {"calls"},
    {"site", "kinds", "listeners", "listing", "logwriter", "mediatypes", "systemd", "toml"},
    {"options", "runner", "workers"},
    {"root", "loadoptions", "loadwork"},
    {"server", "loadrun", "machine"},
    {"c1m"},                     # __init__.py
    {"config", "flags", "loadview"},
    {"loadcli", "service", "doctorcli"},
    {"cli"},
    {"__main__"},
]
ENGINES = {"http", "ws", "deflate", "files", "proxyproto", "limits"}
STRANGERS = {                    # and who, further down, is still none of its business
    "transport": {"buf", "coding"},
    "address": {"coding"},
    "naming": {"transport"},
    "http": {"linux", "coding", "siphash", "transport", "naming", "address"},
    "ws": {"linux", "coding", "siphash", "transport", "naming", "address"},
    "deflate": {"linux", "coding", "siphash", "transport", "naming", "address"},
    "files": {"transport", "address"},
    "proxyproto": {"coding", "siphash", "transport", "naming"},
    "limits": {"coding", "transport", "naming"},
    "reactor": {"coding", "siphash", "naming", "interest", "ring"},
    "interest": {"linux", "buf", "coding", "histogram"},
    "ring": {"coding", "histogram", "transport", "tally"},
    "semantics": {"linux", "ws", "deflate", "files", "reactor"},
    "forwarded": ENGINES - {"http"} | {"linux", "siphash", "reactor", "transport"},
    "topics": ENGINES | {"reactor", "transport"},
    "loop": ENGINES | {"transport", "siphash"},
    "mailbox": ENGINES | {"transport"},
    "accesslog": {"ws", "files", "reactor", "deflate"},
    "gate": {"http", "ws", "deflate", "files", "semantics", "forwarded", "siphash", "topics", "mailbox", "transport"},
    "wsconn": {"http", "semantics", "files", "linux", "transport"},
    "response": {"ws", "deflate", "files", "topics", "mailbox", "wsconn", "linux", "transport"},
    "handshake": {"files", "reactor", "semantics", "topics", "mailbox", "linux", "transport"},
    "pubsub": ENGINES | {"semantics", "transport"},
    "static": {"ws", "deflate", "wsconn", "handshake", "pubsub", "topics", "mailbox", "transport"},
    "websocket": {"http", "deflate", "files", "semantics", "response", "handshake", "linux", "transport"},
    "counts": {"http", "ws", "deflate", "semantics", "topics", "mailbox", "pubsub", "ring", "transport"},
    "shared": {*ENGINES, "reactor", "response", "wsconn", "topics", "mailbox", "pubsub", "transport"},
    "httpconn": {"ws", "deflate", "files", "pubsub", "topics", "mailbox", "linux", "transport"},
    "calls": {"deflate", "handshake", "topics", "mailbox", "transport"},
    "site": {"http", "semantics", "handshake", "topics", "transport", "linux"},
    "loadconn": {"files", "ws", "semantics", "topics", "mailbox", "transport"},
    "loadws": {"files", "semantics", "topics", "mailbox", "linux", "transport"},
    "loadhttp": {"ws", "deflate", "files", "semantics", "topics", "mailbox", "linux", "transport"},
    "loadgen": {"http", "files", "semantics", "topics", "mailbox", "transport"},
    "kinds": {"site"},
    "options": {*ENGINES, "reactor", "buf", "linux"},
    "root": {*ENGINES, "reactor", "buf", "linux"},
    "workers": {"listeners", "logwriter", *ENGINES, "reactor", "buf", "linux"},
    "server": {*ENGINES, "reactor", "buf", "linux"},
    "loadrun": {"site", "loadgen", "loadconn", *ENGINES, "reactor", "buf", "linux"},
    "config": {"site", "websocket", "listeners", *ENGINES, "reactor", "buf", "linux"},
    "cli": {"site", *ENGINES, "reactor", "buf", "linux"},
}

IMPORT = re.compile(
    r"^\s*(?:from\s+(?P<package>c1m|\.+)(?:\.(?P<module>\w+))?\s+c?import\s+(?P<names>.*)"
    r"|c?import\s+c1m(?:\.(?P<plain>\w+))?)",
    re.MULTILINE,
)


def modules():
    return sorted({path.stem for path in SOURCES.iterdir() if path.suffix in (".py", ".pyx", ".pxd")})


def name_of(stem):
    return "c1m" if stem == "__init__" else stem


def known_to(stem):
    """The modules of c1m that a module imports or cimports."""
    known = set()
    for path in SOURCES.glob(f"{stem}.p[yx]*"):
        if path.suffix not in (".py", ".pyx", ".pxd"):
            continue
        for found in IMPORT.finditer(path.read_text()):
            if found["names"] and not found["module"]:
                known |= {name.strip() for name in found["names"].split(",")}
            else:
                known.add(found["module"] or found["plain"] or "c1m")
    return known - {name_of(stem)}


def layer_of(name):
    for i, layer in enumerate(LAYERS):
        if name in layer:
            return i
    raise AssertionError(f"{name} is in no layer: say here whom it may know")


@pytest.mark.parametrize("stem", modules())
def test_arrows_point_down(stem):
    name = name_of(stem)
    for other in known_to(stem):
        assert layer_of(other) < layer_of(name), f"{name} must not know {other}"
        assert other not in STRANGERS.get(name, ()), f"{name} must not know {other}"


def test_the_arrows_are_read_at_all():
    assert {"ws", "deflate", "reactor"} <= known_to("wsconn")
    assert {"httpconn", "calls", "websocket"} <= known_to("site")
    assert "site" in known_to("server")
    assert known_to("buf") == known_to("linux") == set()


def test_only_calls_takes_the_gil():
    """`with gil` is the one door into Python."""
    for path in SOURCES.glob("*.p[yx]*"):
        if path.suffix in (".pyx", ".pxd") and path.stem != "calls":
            assert not re.search(r"^\s*with gil", path.read_text(), re.MULTILINE), path.name


def test_what_is_declared_for_others_needs_no_gil_and_raises_nothing():
    for path in SOURCES.glob("*.pxd"):
        inside = False           # a class: its methods belong to Python
        for line in path.read_text().splitlines():
            if line and not line[0].isspace():
                inside = line.startswith("cdef class")
            is_function = re.match(r"\s*(cdef |ctypedef |int |ssize_t |void |bint |long )[^#=]*\)", line)
            gives_an_object = re.match(r"cdef (object|bytes|str|list|dict|tuple) ", line)
            if is_function and not gives_an_object and not inside and '"""' not in line:
                assert "noexcept nogil" in line, f"{path.name}: {line.strip()}"


@pytest.mark.parametrize(("stem", "checked"), [
    ("reactor", "static_assert(sizeof(Conn) == 64)"),
    ("http", "static_assert(sizeof(HttpParser) == 16)"),
    ("ws", "static_assert(sizeof(WsParser) == 16)"),
    ("deflate", "static_assert(sizeof(DeflateTerms) == 4)"),
    ("topics", "static_assert(sizeof(Member) + sizeof(Subscription) == 16)"),
])
def test_the_sizes_that_matter_are_checked(stem, checked):
    assert f"\n{checked}" in (SOURCES / f"{stem}.pyx").read_text()


# ---- stubs ----


def extensions():
    return sorted(path.stem for path in SOURCES.glob("*.pyx"))


def public(module):
    """The public functions and classes that a module defines."""
    return {
        name: value for name, value in vars(module).items()
        if not name.startswith("_")
        and callable(value) and getattr(value, "__module__", None) == module.__name__
    }


def parameters(arguments):
    """What a stub says of a function's parameters: (name, kind, whether there is a default)."""
    kinds = inspect.Parameter
    positional = arguments.posonlyargs + arguments.args
    given = len(positional) - len(arguments.defaults)
    return [
        *((each.arg, kinds.POSITIONAL_OR_KEYWORD, i >= given) for i, each in enumerate(positional)),
        *((each.arg, kinds.KEYWORD_ONLY, default is not None)
          for each, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)),
    ]


def signature(function):
    """The same of the function itself."""
    return [
        (name, each.kind, each.default is not each.empty)
        for name, each in inspect.signature(function).parameters.items()
    ]


def constructor(stem, name):
    """The same of a class's __cinit__, which has no signature at run time."""
    source = (SOURCES / f"{stem}.pyx").read_text()
    found = re.search(rf"^cdef class {name}\b.*?def __c?init__\((.*?)\):$", source, re.MULTILINE | re.DOTALL)
    untyped = re.sub(r"[\w.]+(?:\[[^]]*\])? +(?=\w+ *[,=)]|\w+$)", "", found[1])
    [function] = ast.parse(f"def f({untyped}): pass").body
    return parameters(function.args)


@pytest.mark.parametrize("stem", extensions())
def test_a_stub_says_what_its_module_has(stem):
    module = importlib.import_module(f"c1m.{stem}")
    stub = SOURCES / f"{stem}.pyi"
    if not stub.exists():
        assert public(module) == {}
        return
    declared = {
        node.name: node for node in ast.parse(stub.read_text()).body
        if isinstance(node, ast.ClassDef | ast.FunctionDef)
    }
    assert set(declared) == set(public(module))
    for name, node in declared.items():
        value = getattr(module, name)
        if isinstance(node, ast.FunctionDef):
            assert parameters(node.args) == signature(value), name
            continue
        methods = {each.name: each for each in node.body if isinstance(each, ast.FunctionDef)}
        fields = {each.target.id for each in node.body if isinstance(each, ast.AnnAssign)}
        said = {each for each in {*methods, *fields} if not each.startswith("_")}
        assert {each for each in vars(value) if not each.startswith("_")} == said
        for each, declaration in methods.items():
            if declaration.decorator_list or each.startswith("__a"):
                continue         # a property, or a slot of the type: they have no signature at run time
            actual = constructor(stem, name) if each == "__init__" else signature(getattr(value, each))
            assert parameters(declaration.args) == actual, f"{name}.{each}"


@pytest.mark.parametrize("stem", extensions())
def test_a_stub_names_the_classes_below(stem):
    module = importlib.import_module(f"c1m.{stem}")
    stub = SOURCES / f"{stem}.pyi"
    for node in ast.parse(stub.read_text()).body if stub.exists() else ():
        if isinstance(node, ast.ClassDef):
            below = [each.__name__ for each in getattr(module, node.name).__bases__ if each is not object]
            assert [each.id for each in node.bases] == below


def test_public_names_are_the_ones_announced():
    defined = {name for name in vars(c1m) if not name.startswith("_")} - set(modules())
    assert set(c1m.__all__) == defined | {"__version__"}
    for name in c1m.__all__:
        assert getattr(c1m, name) is not None

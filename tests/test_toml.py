"""The lines of a TOML document's keys."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from c1m.toml import lines_of, load


def leaves(value, keys=()):
    """Every value of a document that is neither table nor array, with the way to it."""
    if isinstance(value, dict | list):
        for key, each in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(each, (*keys, key))
    else:
        yield keys, value


def ways(value, keys=()):
    """The ways to all there is in a document."""
    for key, each in value.items() if isinstance(value, dict) else enumerate(value):
        yield (*keys, key)
        if isinstance(each, dict | list):
            yield from ways(each, (*keys, key))


def agrees(text):
    """Every value that is a number is its line."""
    document, lines = load(text)
    assert set(lines) == set(ways(document))
    numbers = {keys: value for keys, value in leaves(document) if type(value) is int}
    assert numbers == {keys: lines[keys] for keys in numbers}
    return len(numbers)


@pytest.mark.parametrize("text", [
    "a = 1\n\n# b = 2\nc = 4",
    '"a.b" = 1\n\'c "d\' = 2\n"\\u0041\\"=" = 3\n"" = 4\n"[x]" = 5\n"#" = 6',
    "a.b.c = 1\na . \"b\" . d = 2\n",
    "[a]\nb = 2\n[ a . 'c.d' ]\ne = 4\n[f.g.h]\ni = 6\n[f]\nj = 8",
    "[[a]]\nb = 2\n[[a]]\nb = 4\n[a.c]\nd = 6\n[[a.e]]\nf = 8\n[[a.e]]\nf = 10\n[[a]]\n[a.c]\nd = 13",
    "a = [1, 1,\n 2, # 3,\n [3,], { b = 3, c.d = 3 },\n\n]\ne = 6",
    'a = """\nb = 7\n[c]\n"""\nd = 5',
    'a = """x \\""" = 3\n""""\nb = 3',
    "a = '''\n\\'''\nb = 3\nc = '''''d'''''\ne = 5",
    'a = ""\nb = \'\'\nc = "\\\\"\nd = 4\ne = "# [ { \\" "\nf = 6',
    "a = 1979-05-27 07:32:00\nb = 2\nc = 1979-05-27T07:32:00-07:00 # x\nd = [1979-05-27 07:32:00.5, 4]",
    "a = -inf\nb = true\nc = [ +1e3, nan, 3 ]\nd = {}\ne = 5",
    "a = 1\r\nb = '''\r\n'''\r\nc = 4\r\n",
    "",
    "# nothing\n",
    "a = 1 # at the end, without a newline",
])
def test_lines(text):
    agrees(text)


def test_a_table_has_the_line_of_its_header_and_else_of_its_first_key():
    lines = lines_of("[a.b]\nc.d = 1\n\n[a]\n\n[[e]]\n\n[[e]]\n")
    assert lines == {
        ("a",): 1, ("a", "b"): 1, ("a", "b", "c"): 2, ("a", "b", "c", "d"): 2, ("e",): 6, ("e", 0): 6, ("e", 1): 8,
    }


# ---- documents made at random ----

WORDS = ["a", "b-1", '"c.d"', "'e = [f]'", '"#\\""', '"\\u00e9"', "1", '""']
NOISE = ["", "  # [x] = 'y", "\t#\"\"\"", " "]
TEXTS = [
    '"x"', '"""\n[y]\nz = 1\\"" """', "'''\n\n'''", "'\\'", "true", "1.5", "1979-05-27 07:32:00", '"}]#"', "[]", "{}",
]


class Writer:
    """Writes documents in which every whole number is its line."""

    def __init__(self, draw):
        self.draw, self.text = draw, ""

    def pick(self, values):
        return self.draw(st.sampled_from(values))

    def put(self, text):
        self.text += text

    def number(self):
        self.put(str(self.text.count("\n") + 1))

    def value(self, depth):
        kind = self.pick(["number", "number", "text", "array", "inline"] if depth else ["number", "text"])
        if kind == "number":
            self.number()
        elif kind == "text":
            self.put(self.pick(TEXTS))
        elif kind == "array":
            self.put("[")
            for _ in range(self.pick(range(4))):
                self.put(self.pick(["", "\n", " # [,\n ", "\n\n"]))
                self.value(depth - 1)
                self.put(self.pick(["", "\n", " #]\n"]) + ",")
            self.put(self.pick(["", "\n"]) + "]")
        else:
            self.put("{")
            for i, key in enumerate(self.keys()):
                self.put(", " * (i > 0) + key + self.pick([" = ", "="]))
                self.value(depth - 1)
            self.put("}")

    def keys(self):
        return self.draw(st.lists(st.sampled_from(WORDS), unique=True, max_size=4))

    def pairs(self):
        for key in self.keys():
            self.put(self.pick(["", " "]) + key + self.pick(["", ".x", " . 'y z'.w"]) + self.pick(["=", " = "]))
            self.value(2)
            self.put(self.pick(NOISE) + self.pick(["\n", "\n\n"]))

    def document(self):
        self.pairs()
        for _ in range(self.pick(range(5))):
            name = ".".join([f"t{self.pick(range(2))}", *self.draw(st.lists(st.sampled_from(WORDS), max_size=2))])
            kind = self.pick(["[{}]", "[ {} ]", "[[{}]]", "[[ {}]]"])
            before = self.text
            self.put(kind.format(name) + self.pick(NOISE) + "\n")
            self.pairs()
            try:
                tomllib.loads(self.text)
            except tomllib.TOMLDecodeError:      # a table twice, say
                self.text = before
        return self.text


@st.composite
def documents(draw):
    return Writer(draw).document()


@given(documents())
def test_lines_of_any_document(text):
    agrees(text)

"""Kinds of options: what a value may be, how it is written as text, and what is handed to `c1m.site` for it.

A kind is one small object. `check` takes what a caller gave and returns it normalised, or raises ValueError or
TypeError in one line that begins with the option's name; `parse` reads the text of a flag, `load` the value of a
configuration file; `export` makes what `c1m.site` takes; `takes`, `toml`, `range`, `metavar` and `shown` are what
signatures and documentation say of it.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import re
import socket
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, TypeVar

MAX_SECONDS = 365 * 86400.0
UNITS_OF_TIME = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
UNITS_OF_BYTES = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}      # and what to shift by
MAX_CACHE_CONTROL = 1024         # bytes
MAX_FIELD_BYTES = 8192           # of all header fields of a root
MAX_TOKEN = 255                  # characters
MAX_MEDIA_TYPE = 128             # characters
MAX_CHARSET = 40                 # characters: RFC 2978 section 2.3

TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
HOST = re.compile(r"([a-z0-9\-]+\.)*[a-z0-9\-]+\.?|\[[0-9a-f:.]+\]")
ORIGIN = re.compile(r"(([A-Za-z][A-Za-z0-9+.\-]*)://((?![/?#@,])[!-~]){1,300})([/?#][!-~]*)?")
MEDIA_TYPE = re.compile(r"[A-Za-z0-9!#$&^_.+\-]+/[A-Za-z0-9!#$&^_.+\-]+(; ?[\x20-\x7e]+)?")
# XML names its encoding itself, and a charset would be believed before that (RFC 7303 section 3); or one may be there.
NO_CHARSET = re.compile(r"[/+]xml$|;", re.IGNORECASE)
DEFAULT_PORTS = {"http": ":80", "https": ":443"}
# Fields that say how a response is framed or what it is; to override one would make the others lies.
RESERVED_FIELDS = {
    "accept-ranges", "access-control-allow-origin", "connection", "content-encoding", "content-length", "content-range",
    "content-type", "date", "etag", "keep-alive", "last-modified", "location", "proxy-connection", "te", "trailer",
    "transfer-encoding", "upgrade", "vary",
}  # fmt: skip


_C = TypeVar("_C", bound=Collection[Any])


class Kind:
    """Anything at all; the kinds below say more."""

    takes = "Any"                # the type, as a signature has it
    noun = "a value"             # and as a sentence has it
    toml = "string"              # and as a configuration file has it
    metavar = "TEXT"             # in a flag's usage
    range = ""                   # the values that are possible, in words
    suffix = ""                  # of the option's name in c1m.site, where that has another unit

    def check(self, name: str, value: Any) -> Any:
        return value

    def parse(self, text: str) -> Any:
        """Raises ValueError for text that cannot be read; `check` is still to come."""
        return text

    def load(self, value: Any, directory: str) -> Any:
        """What a configuration file in that directory has, for `check` to take. Raises ValueError like `parse`, which
        reads a string here, too.
        """
        return self.parse(value) if isinstance(value, str) else value

    def export(self, value: Any) -> Any:
        return value

    def shown(self, value: Any) -> str:
        """A default, for the documentation."""
        return f"``{quoted(value)}``" if isinstance(value, (str, tuple)) and value else str(value or "none")


class Seconds(Kind):
    """A duration, or with `or_none` 0 for none. Its text is a number of seconds, or one with a unit: "500ms", "2m"."""

    takes, metavar, suffix = "float", "SECONDS", "_ms"
    toml = "seconds"

    def __init__(self, or_none: bool = False) -> None:
        self.or_none = or_none
        self.range = "0, or above and at most a year" if or_none else "above 0, at most a year"

    def check(self, name: str, value: Any) -> float:
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            raise TypeError(f"{name}: {value!r} is not a number of seconds")
        if not 0 < value <= MAX_SECONDS and not (self.or_none and value == 0):
            least = "0 seconds or more" if self.or_none else "above 0 seconds"
            raise ValueError(f"{name}: {value} is not {least} and at most a year")
        return value

    def parse(self, text: str) -> float:
        found = re.fullmatch(r"([0-9]+\.?[0-9]*|\.[0-9]+) ?(ms|s|m|h|d|)", text)
        if not found:
            raise ValueError(f"{text!r} is not a number of seconds, such as 10, 1.5, 500ms, 2m, 1h or 1d")
        return float(found[1]) * UNITS_OF_TIME[found[2]]

    def export(self, value: float) -> int:
        return max(1, round(value * 1000)) if value else 0

    def shown(self, value: float) -> str:
        return f"{value:g}"


class Amount(Kind):
    """A whole number between two bounds. That of bytes may have a unit in its text: "64KiB", "1M"."""

    takes = "int"

    def __init__(self, least: int, most: int, unit: str = "") -> None:
        self.least, self.most = least, most
        self.metavar = unit.upper() or "N"
        self.toml = unit or "whole number"
        self.range = f"{least} to {most}"

    def check(self, name: str, value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError(f"{name}: {value!r} is not an int")
        if not self.least <= value <= self.most:
            raise ValueError(f"{name}: {value} is not between {self.least} and {self.most}")
        return value

    def parse(self, text: str) -> int:
        if self.metavar != "BYTES":
            if not re.fullmatch(r"-?[0-9]{1,20}", text):
                raise ValueError(f"{text!r} is not a whole number")
            return int(text)
        found = re.fullmatch(r"([0-9]{1,20}) ?([KMGT](?=$|iB))?(iB)?", text)
        if not found or (found[3] and not found[2]):
            raise ValueError(f"{text!r} is not a number of bytes, such as 65536, 64KiB or 1MiB")
        return int(found[1]) << UNITS_OF_BYTES[found[2] or ""]

    def shown(self, value: int) -> str:
        return f"{value >> 20} MiB" if self.metavar == "BYTES" and value % (1 << 20) == 0 else str(value)


class Code(Amount):
    """One of two numbers that mean something."""

    def __init__(self, one: int, other: int) -> None:
        super().__init__(one, other)
        self.metavar, self.toml, self.range = f"{one}|{other}", "whole number", f"{one} or {other}"

    def check(self, name: str, value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError(f"{name}: {value!r} is not an int")
        if value not in (self.least, self.most):
            raise ValueError(f"{name}: {value} is neither {self.least} nor {self.most}")
        return value


class AmountOr(Amount):
    """A whole number between two bounds, or a word."""

    takes = "int | str"

    def __init__(self, word: str, least: int, most: int) -> None:
        super().__init__(least, most)
        self.word, self.metavar, self.toml = word, f"N|{word}", f'whole number or `"{word}"`'

    def check(self, name: str, value: Any) -> Any:
        if isinstance(value, str) and value != self.word:
            raise ValueError(f"{name}: {value!r} is neither a number nor {self.word!r}")
        return value if value == self.word else super().check(name, value)

    def parse(self, text: str) -> Any:
        if text != self.word and not re.fullmatch(r"-?[0-9]{1,20}", text):
            raise ValueError(f"{text!r} is neither a whole number nor {self.word}")
        return text if text == self.word else int(text)


class Choice(Kind):
    """One of a few words; None may be among them. `c1m.site` takes its number."""

    takes = "str"

    def __init__(self, values: Sequence[str | None]) -> None:
        self.values = values
        self.metavar = "|".join(each or "none" for each in values)
        self.toml = " or ".join(f'"{each or "none"}"' for each in values)
        self.range = ", ".join(f"``{quoted(value)}``" for value in values)

    def check(self, name: str, value: Any) -> str | None:
        if value not in self.values:
            words = [repr(each) for each in self.values]
            what = f"neither {words[0]} nor {words[1]}" if len(words) == 2 else f"none of {', '.join(words)}"
            raise ValueError(f"{name}: {value!r} is {what}")
        return value  # type: ignore[no-any-return]

    def parse(self, text: str) -> str | None:
        return None if text == "none" and None in self.values else text

    def export(self, value: str | None) -> int:
        return self.values.index(value)


class Switch(Kind):
    """Yes or no."""

    takes, toml = "bool", "true or false"

    def check(self, name: str, value: Any) -> bool:
        if not isinstance(value, bool):
            raise TypeError(f"{name}: {value!r} is not a bool")
        return value

    def shown(self, value: bool) -> str:
        return str(value)


class Text(Kind):
    takes, noun = "str", "a str"

    def __init__(self, metavar: str = "TEXT") -> None:
        self.metavar = metavar

    def check(self, name: str, value: Any) -> str:
        if not isinstance(value, str):
            raise TypeError(f"{name}: {value!r} is not a str")
        return value

    def export(self, value: str) -> bytes:
        return value.encode()


class HostName(Text):
    """A host's name or address. Whether there is such a host is asked when it is listened on."""

    def check(self, name: str, value: Any) -> str:
        if "://" in super().check(name, value):
            raise ValueError(f"{name}: {value!r} is a URL: give the host alone; ports go in ports")
        if re.fullmatch(r"([^:]*|\[.*\]):[0-9]*", value):
            raise ValueError(f"{name}: {value!r} has a port in it: ports go in ports")
        return value  # type: ignore[no-any-return]


class Network(Text):
    """An address, a network, or "unix": whoever connects to a Unix-domain socket."""

    def __init__(self) -> None:
        super().__init__("NETWORK")

    def check(self, name: str, value: Any) -> str:
        if super().check(name, value) == "unix":
            return "unix"
        try:
            network = ipaddress.ip_network(value, strict=False)
            exact = ipaddress.ip_network(value.partition("/")[0]).network_address == network.network_address
        except ValueError:
            raise ValueError(
                f'{name}: {value!r} is not an address, a network such as "10.0.0.0/8" or "2001:db8::/32", or "unix"'
            ) from None
        if "%" in value:
            raise ValueError(f"{name}: {value!r} has a zone in it: give the address alone")
        if not exact:
            raise ValueError(f"{name}: {value!r} has more bits in it than count: write {str(network)!r}")
        mapped = network.network_address.ipv4_mapped if isinstance(network, ipaddress.IPv6Network) else None
        if mapped is not None and network.prefixlen >= 96:
            return str(ipaddress.ip_network((mapped, network.prefixlen - 96)))
        return str(network)

    def export(self, value: str) -> tuple[bytes, int] | None:  # type: ignore[override]
        """The address's bytes, and how many bits of them count; None for "unix"."""
        if value == "unix":
            return None
        network = ipaddress.ip_network(value)
        return network.network_address.packed, network.prefixlen


class Token(Text):
    """A token by RFC 9110 section 5.6.2."""

    def check(self, name: str, value: Any) -> str:
        if not TOKEN.fullmatch(super().check(name, value)) or len(value) > MAX_TOKEN:
            raise ValueError(f"{name}: {value!r} is not a token of up to {MAX_TOKEN} characters")
        return value  # type: ignore[no-any-return]


class Charset(Kind):
    """A character encoding's name (RFC 2978 section 2.3), or None."""

    takes, metavar, toml = "str | None", "NAME|none", 'string, or "none"'

    def check(self, name: str, value: Any) -> str | None:
        if value is not None and not isinstance(value, str):
            raise TypeError(f"{name}: {value!r} is not a str")
        if value is not None and (not TOKEN.fullmatch(value) or len(value) > MAX_CHARSET):
            raise ValueError(f"{name}: {value!r} is not the name of a character encoding, or \"none\"")
        return value

    def parse(self, text: str) -> str | None:
        return None if text == "none" else text

    def export(self, value: str | None) -> bytes:
        return (value or "").encode()


class FileName(Text):
    def __init__(self, most: int) -> None:
        super().__init__("NAME")
        self.most = most         # bytes

    def check(self, name: str, value: Any) -> str:
        super().check(name, value)
        if not value or "/" in value or "\0" in value or value.startswith("."):
            raise ValueError(f"{name}: {value!r} is not a file name that can be served")
        if len(os.fsencode(value)) > self.most:
            raise ValueError(f"{name}: {value!r} is longer than {self.most} bytes")
        return value  # type: ignore[no-any-return]

    def export(self, value: str) -> str:  # type: ignore[override]  # Site encodes it as the file system does
        return value


class Origin(Text):
    """An origin as a browser would send it, in small letters and without a default port; or one word that is none."""

    def __init__(self, beside: str) -> None:
        super().__init__("ORIGIN")
        self.beside = beside

    def check(self, name: str, value: Any) -> str:
        if super().check(name, value) == self.beside:
            return self.beside
        if value == "*":
            raise ValueError(f"{name}: '*' is not an origin: leave {name} out to let any in")
        found = ORIGIN.fullmatch(value)
        if not found:
            several = ", but several: give each by itself" if "," in value else " such as 'https://example.org'"
            raise ValueError(f"{name}: {value!r} is not an origin{several}")
        bare, scheme = found[1], found[2].lower()
        if scheme in DEFAULT_PORTS:
            bare = bare.lower().removesuffix(DEFAULT_PORTS[scheme])
        if found[4]:
            raise ValueError(f"{name}: {value!r} is not an origin but has {found[4]!r} behind it: write {bare!r}")
        return bare


class Path(Kind):
    """A path, or one word that is none."""

    takes, noun, metavar = "_Path", "a path", "PATH"
    one = (str, bytes, os.PathLike)

    def __init__(self, beside: str = "") -> None:
        self.beside = beside

    def check(self, name: str, value: Any) -> str:
        try:
            path = os.fsdecode(value)
        except TypeError:
            raise TypeError(f"{name}: {value!r} is not a path") from None
        if not path or "\0" in path:
            raise ValueError(f"{name}: {value!r} is not a path")
        return path

    def load(self, value: Any, directory: str) -> Any:
        """A relative one starts at the directory of the configuration file."""
        return os.path.join(directory, value) if isinstance(value, str) and value not in ("", self.beside) else value


class Directory(Path):
    """One that exists, made absolute."""

    def check(self, name: str, value: Any) -> str:
        path = super().check(name, value) if value not in ("", b"") else ""
        if not os.path.exists(path):
            raise FileNotFoundError(errno.ENOENT, f"{name}: no such directory", path)
        if not os.path.isdir(path):
            raise NotADirectoryError(errno.ENOTDIR, f"{name}: not a directory", path)
        return os.path.abspath(path)


class Port(Kind):
    takes, noun, metavar, toml = "int", "an int", "N|N-M|none", 'port, or range such as "8001-8030"'
    most = 65535

    def check(self, name: str, value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool):
            meant = isinstance(value, str) and re.fullmatch(r" *([0-9]{1,5}) *", value)
            raise TypeError(f"{name}: {value!r} is not an int" + (f" such as {name}={int(meant[1])}" if meant else ""))
        if not 0 <= value <= self.most:
            raise ValueError(f"{name}: {value} is not a TCP port (0 to {self.most})")
        return value

    def parse(self, text: str) -> range:
        """One port, a range of them, or none."""
        if text == "none":
            return range(0)
        first, dash, last = text.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise ValueError(f"{text!r} is not a port such as 8001, or a range such as 8002-8030")
        ports = range(int(first), int(last or first) + 1)
        if not ports:
            raise ValueError(f"{text!r} is a range that ends before it begins")
        if ports[-1] > self.most:
            raise ValueError(f"{ports[-1]} is not a TCP port (0 to {self.most})")
        return ports


class ListeningSocket(Kind):
    """A socket that somebody else has opened, or its descriptor, or "systemd" for all that it has handed in. Whether it
    can be listened on is looked at when it is.
    """

    takes, noun, metavar, toml = "socket.socket | int | str", "a socket", "FD|systemd", 'descriptor, or "systemd"'
    one = (socket.socket, int)

    def check(self, name: str, value: Any) -> socket.socket | int | str:
        if isinstance(value, bool) or not isinstance(value, (socket.socket, int, str)):
            raise TypeError(f"{name}: {value!r} is neither a socket nor a descriptor")
        if isinstance(value, str) and value != "systemd":
            raise ValueError(f'{name}: {value!r} is neither a socket nor "systemd"')
        if isinstance(value, int) and not 0 <= value < 1 << 31:
            raise ValueError(f"{name}: {value} is not a descriptor")
        return value

    def parse(self, text: str) -> int | str:
        if text != "systemd" and not re.fullmatch(r"[0-9]{1,10}", text):
            raise ValueError(f"{text!r} is not a descriptor such as 3, or systemd")
        return text if text == "systemd" else int(text)


class Mode(Kind):
    """Permissions of a file, in octal where they are text."""

    takes, metavar, toml, range = "int", "MODE", '0o660 or "660"', "0 to 0o777"
    most = 0o777

    def check(self, name: str, value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError(f"{name}: {value!r} is not an int such as 0o660")
        if not 0 <= value <= self.most:
            raise ValueError(f"{name}: {value} is not between 0 and 0o777: an octal number such as 0o660 is wanted")
        return value

    def parse(self, text: str) -> int:
        if not re.fullmatch(r"(0o)?[0-7]{1,4}", text):
            raise ValueError(f"{text!r} is not an octal number such as 660")
        return int(text.removeprefix("0o"), 8)


class Several(Kind):
    """One value of another kind or several, as a tuple. With `most`, each counts once, and no more than so many may
    be given.
    """

    def __init__(self, each: Kind, one: type | tuple[type, ...] = str, most: int | None = None) -> None:
        self.each, self.one, self.most = each, one, most
        self.takes = f"{each.takes} | Iterable[{each.takes}]"
        self.toml = f"{each.toml}, or list of them"
        self.metavar = each.metavar

    def check(self, name: str, value: Any) -> tuple[Any, ...]:
        if isinstance(value, (str, bytes, self.one)):      # text is no iterable of what it is not itself
            value = [value]
        if not isinstance(value, Iterable):
            raise TypeError(f"{name}: {value!r} is not {self.each.noun} or several")
        checked = [self.each.check(name, each) for each in value]
        return tuple(checked if self.most is None else at_most(name, list(dict.fromkeys(checked)), self.most))

    def parse(self, text: str) -> list[Any]:
        parsed = self.each.parse(text)
        return list(parsed) if isinstance(parsed, range) else [parsed]

    def load(self, value: Any, directory: str) -> list[Any]:
        loaded = [self.each.load(each, directory) for each in (value if isinstance(value, list) else [value])]
        return [one for each in loaded for one in (each if isinstance(each, range) else [each])]

    def export(self, value: tuple[Any, ...]) -> list[Any]:
        return [self.each.export(each) for each in value]

    def shown(self, value: Any) -> str:
        return super().shown(value) if isinstance(value, (str, tuple)) else self.each.shown(value)


class Mapped(Kind):
    """A mapping whose pairs are each checked by `pair`, which returns them normalised."""

    metavar, toml = "KEY=VALUE", "table of strings"

    def pair(self, name: str, key: Any, value: Any) -> tuple[Any, Any]:
        raise NotImplementedError

    def check(self, name: str, value: Any) -> dict[Any, Any]:
        if not isinstance(value, Mapping):
            raise TypeError(f"{name}: {value!r} is no mapping")
        return dict(self.pair(name, key, each) for key, each in value.items())

    def parse(self, text: str) -> dict[str, Any]:
        key, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"{text!r} has no '=': write {self.metavar}")
        return {key: value}

    def load(self, value: Any, directory: str) -> Any:
        return value

    def joined(self, parsed: Iterable[dict[str, Any]]) -> dict[str, Any]:
        """What several texts say together; of the same key the last counts."""
        return {key: value for each in parsed for key, value in each.items()}


class PatternRules(Mapped):
    """Something said of files by pattern, the first that fits."""

    def __init__(self, most: int) -> None:
        self.most = most

    def check(self, name: str, value: Any) -> dict[str, Any]:
        return at_most(name, super().check(name, value), self.most)

    def pair(self, name: str, key: Any, value: Any) -> tuple[str, Any]:
        if not isinstance(key, str):
            raise TypeError(f"{name}: {key!r} is not a str")
        if not key or re.search(r"[\0\ud800-\udc7f\udd00-\udfff]", key):      # what no file's name has, encoded or not
            raise ValueError(f"{name}: {key!r} is not a pattern")
        if "/" in key and not key.startswith("/"):
            raise ValueError(f"{name}: no file's name has a slash, as {key!r} has: write {f'/{key}'!r} for a path")
        if key.endswith("/"):
            raise ValueError(f"{name}: {key!r} fits directories, and no file: write {f'{key}*'!r}")
        return key, self.said(name, key, value)

    def said(self, name: str, pattern: str, value: Any) -> Any:
        """The value, checked and normalised."""
        raise NotImplementedError

    def export(self, value: dict[str, Any]) -> list[tuple[bytes, bytes]]:
        return [(fnmatch_pattern(pattern), said.encode()) for pattern, said in value.items()]


class CacheRules(PatternRules):
    """Values of Cache-Control."""

    takes, metavar = "Mapping[str, str]", "PATTERN=VALUE"

    def said(self, name: str, pattern: str, value: Any) -> str:
        check_field_value(name, f"the value for {pattern!r}", value)
        if len(value) > MAX_CACHE_CONTROL:
            raise ValueError(f"{name}: the value for {pattern!r} is longer than {MAX_CACHE_CONTROL} bytes")
        return value  # type: ignore[no-any-return]


class Encodings(PatternRules):
    """Content codings of files that are stored in them."""

    takes, metavar = "Mapping[str, str]", "PATTERN=CODING"

    def __init__(self, most: int, codings: Sequence[str]) -> None:
        super().__init__(most)
        self.codings = codings

    def said(self, name: str, pattern: str, value: Any) -> str:
        if value not in self.codings:
            raise ValueError(f"{name}: {value!r}, for {pattern!r}, is none of {', '.join(map(repr, self.codings))}")
        return value  # type: ignore[no-any-return]


class HeaderFields(Mapped):
    """Header fields, beside some that are sent unless a value of None takes them away; as text that is an empty one."""

    takes, metavar = "Mapping[str, str | None]", "NAME=VALUE"
    toml = "table of strings"

    def __init__(self, beside: Mapping[str, str]) -> None:
        self.beside = beside

    def check(self, name: str, value: Any) -> dict[str, str | None]:
        fields = super().check(name, value)
        check_total(name, fields)
        return fields

    def pair(self, name: str, key: Any, value: Any) -> tuple[str, str | None]:
        check_field_name(name, key)
        if key.lower() in RESERVED_FIELDS or key.lower().startswith("sec-websocket-"):
            raise ValueError(f"{name}: {key} is the server's to say")
        if value is not None:
            check_field_value(name, f"the value of {key}", value)
        return key, value

    def parse(self, text: str) -> dict[str, Any]:
        return {key: value or None for key, value in super().parse(text).items()}

    def load(self, value: Any, directory: str) -> Any:
        return {key: None if each == "" else each for key, each in value.items()} if isinstance(value, dict) else value

    def export(self, value: dict[str, str | None]) -> bytes:
        """Whole header lines."""
        fields = {key.lower(): (key, each) for key, each in [*self.beside.items(), *value.items()]}
        return "".join(f"{key}: {each}\r\n" for key, each in fields.values() if each is not None).encode()


class HeaderRules(PatternRules):
    """Header fields beside those that all files have, or in place of them."""

    takes, metavar = "Mapping[str, Mapping[str, str | None]]", "PATTERN=NAME=VALUE"
    toml = "table of tables of strings"

    def __init__(self, most: int) -> None:
        super().__init__(most)
        self.fields = HeaderFields({})

    def said(self, name: str, pattern: str, value: Any) -> dict[str, str | None]:
        if not isinstance(value, Mapping):
            raise TypeError(f"{name}: {value!r}, for {pattern!r}, is no mapping of field names to values")
        return self.fields.check(name, value)

    def parse(self, text: str) -> dict[str, Any]:
        if text.count("=") < 2:
            raise ValueError(f"{text!r} has no second '=': write {self.metavar}")
        return {pattern: self.fields.parse(said) for pattern, said in super().parse(text).items()}

    def load(self, value: Any, directory: str) -> Any:
        if not isinstance(value, dict):
            return value
        return {key: self.fields.load(each, directory) for key, each in value.items()}

    def export(self, value: dict[str, Any]) -> Any:
        return value             # RootOptions makes header lines of it, with those that all files have

    def joined(self, parsed: Iterable[dict[str, Any]]) -> dict[str, Any]:
        joined: dict[str, Any] = {}
        for each in parsed:
            for pattern, fields in each.items():
                joined.setdefault(pattern, {}).update(fields)
        return joined


class MediaType(Text):
    """A media type, with parameters or without."""

    def __init__(self) -> None:
        super().__init__("TYPE")

    def check(self, name: str, value: Any) -> str:
        if not MEDIA_TYPE.fullmatch(super().check(name, value)) or len(value) > MAX_MEDIA_TYPE:
            raise ValueError(f"{name}: {value!r} is not a media type")
        return value  # type: ignore[no-any-return]

    def export(self, value: str) -> tuple[bytes, bool]:  # type: ignore[override]
        """With whether a root's charset is said of it."""
        return value.encode(), value.lower().startswith("text/") and not NO_CHARSET.search(value)


class MediaTypes(Mapped):
    """Media types by file extension or file name."""

    takes, metavar = "Mapping[str, str]", "EXTENSION|NAME=TYPE"

    def __init__(self, most: int, longest: int) -> None:
        self.most = most
        self.longest = longest   # bytes of an extension with its dot, or of a name

    def check(self, name: str, value: Any) -> dict[str, str]:
        return at_most(name, super().check(name, value), self.most)

    def pair(self, name: str, key: Any, value: Any) -> tuple[str, str]:
        if not isinstance(key, str):
            raise TypeError(f"{name}: {key!r} is not a str")
        if "*" in key or "," in key:
            raise ValueError(f"{name}: {key!r} is a pattern or several: give each extension or name by itself")
        if not re.fullmatch(r"[!-.0-~]+", key) or len(key) > self.longest or not key.strip("."):
            raise ValueError(
                f"{name}: {key!r} is neither a file extension nor a file name of up to {self.longest} ASCII characters"
            )
        return key.lower(), MediaType().check(name, value)

    def export(self, value: dict[str, str]) -> dict[bytes | None, tuple[bytes, bool]]:
        """By extension, with its dot, and by name: a word without a dot may be either."""
        types: dict[bytes | None, tuple[bytes, bool]] = {}
        for key, kind in value.items():
            if key.rfind(".") != 0:
                types[key.encode()] = MediaType().export(kind)
            if "." not in key or key.rfind(".") == 0:
                types[b"." + key.removeprefix(".").encode()] = MediaType().export(kind)
        return types


class Places(Kind):
    """Something at "/", or a mapping from URL prefixes, with or without a host; becomes a list of (host, prefix, what)
    with "" for any host and no slash at the prefix's end.
    """

    def __init__(self, takes: str, most: int) -> None:
        self.takes = f"{takes} | Mapping[str, {takes}]"
        self.most = most

    def check(self, name: str, value: Any) -> list[tuple[str, str, Any]]:
        given = value if isinstance(value, Mapping) else {"/": value}
        places = [(*self.place(name, place), what) for place, what in given.items()]
        if len({place[:2] for place in places}) < len(places):
            raise ValueError(f"{name}: a URL prefix is given twice, with and without its last slash, in {list(given)}")
        return at_most(name, places, self.most)

    def place(self, name: str, place: Any) -> tuple[str, str]:
        if not isinstance(place, str):
            raise TypeError(f"{name}: the URL prefix {place!r} is not a str")
        host, slash, prefix = place.partition("/")
        if not slash:
            raise ValueError(f"{name}: the URL prefix {place!r} has no '/': write {f'/{place}'!r}")
        if host and not HOST.fullmatch(host.lower()):
            raise ValueError(f"{name}: {host!r} is not a host name without its port")
        if host and not re.search(r"[.:]|^localhost$", host.lower()):      # far likelier a path without its slash
            raise ValueError(
                f"{name}: the URL prefix {place!r} begins with no slash: write {f'/{place}'!r}, or, if {host!r} is a"
                f" host, {f'{host}./{prefix}'!r}"
            )
        prefix = f"/{prefix}".removesuffix("/")
        if wrong := not_a_prefix(prefix):
            raise ValueError(f"{name}: the URL prefix {place!r} {wrong}")
        return host.lower().removesuffix("."), prefix


class UrlPath(Text):
    """A path at which something answers."""

    def __init__(self) -> None:
        super().__init__("PATH")

    def check(self, name: str, value: Any) -> str:
        if not super().check(name, value).startswith("/"):
            raise ValueError(f"{name}: {value!r} does not start with '/'")
        if wrong := not_a_prefix(value.removesuffix("/")):
            raise ValueError(f"{name}: {value!r} {wrong}")
        if re.search(r"\*|\{[^/]*\}|<[^/]*>", value):
            raise ValueError(
                f"{name}: {value!r} is a pattern, and patterns are not supported: give a whole path, to which clients"
                " may add a query"
            )
        return value  # type: ignore[no-any-return]


def at_most(name: str, values: _C, most: int) -> _C:
    if len(values) > most:
        raise ValueError(f"{name}: {len(values)} are more than {most}")
    return values


def fnmatch_pattern(pattern: str) -> bytes:
    """For fnmatch(3), to which brackets and backslashes would mean something, too."""
    return os.fsencode(re.sub(r"[\[\\]", r"\\\g<0>", pattern))


def not_a_prefix(prefix: str) -> str | None:
    """Says what is wrong with a URL prefix: why no request's path, unescaped and without empty names, can begin so, or
    none that should be served. None: nothing.
    """
    if re.search(r"[?#]|%[0-9A-Fa-f]{2}", prefix):
        return "has a query, fragment or escape in it: it is a path, written unescaped"
    if re.search(r"[\0\ud800-\udfff]", prefix):
        return "has a character in it that no URL has"
    if "//" in f"{prefix}/":
        return "has an empty name in it, between two slashes"
    if re.search(r"(?!^/\.well-known(/|$))/\.", prefix):
        return "has a name in it that begins with a dot: only /.well-known is served"
    return None


def check_field_name(name: str, key: Any) -> None:
    if not isinstance(key, str):
        raise TypeError(f"{name}: {key!r} is not a str")
    if not TOKEN.fullmatch(key):
        mend = ": write NAME=VALUE, without a colon" if ":" in key else ""
        raise ValueError(f"{name}: {key!r} is not a field name{mend}")


def check_field_value(name: str, what: str, value: Any) -> None:
    """Raises ValueError for what is no field value by RFC 9110 section 5.5, or is one that few would understand."""
    if not isinstance(value, str):
        raise TypeError(f"{name}: {what}, {value!r}, is not a str")
    if wrong := re.search(r"[^\t\x20-\x7e]", value):
        why = "control characters and what is not ASCII can't be sent"
        raise ValueError(f"{name}: {what} has {wrong[0]!r} in it: {why}")
    if not value:
        raise ValueError(f"{name}: {what} is empty")


def check_total(name: str, fields: Mapping[str, str | None]) -> None:
    if sum(len(field) + len(each) + 4 for field, each in fields.items() if each) > MAX_FIELD_BYTES:
        raise ValueError(f"{name}: more than {MAX_FIELD_BYTES} bytes in all")


def quoted(value: Any) -> str:
    """repr(), with the double quotes of our documentation."""
    return repr(value).replace("'", '"')

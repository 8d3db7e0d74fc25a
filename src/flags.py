"""Flags of commands, made from the declarations of options, and their help in groups."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from typing import Any, TypeVar

import click

from c1m.kinds import Amount, Kind, Mapped, Seconds, Several, Switch
from c1m.options import GROUPS, Option, Options

NOT_GIVEN: Any = object()
_F = TypeVar("_F", bound=Callable[..., Any])

INDENT, TERM = 2, 28             # columns of the help: before a flag, and what is left to it before its text


class GroupedOption(click.Option):
    """A flag, with its group in the help, and notes, such as its default, that stand in brackets behind the text."""

    def __init__(self, *arguments: Any, group: str, notes: str = "", **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.group, self.notes = group, notes

    @property
    def term(self) -> str:
        """The flag as the help shows it."""
        if self.secondary_opts:
            no = self.secondary_opts[0].startswith("--no-")
            return f"--[no-]{self.opts[0][2:]}" if no else "/".join(self.opts + self.secondary_opts)
        return self.opts[0] if self.is_flag else f"{self.opts[0]} {self.metavar}"


class GroupedCommand(click.Command):
    """A command whose help lists the flags by group, all in the same columns."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        options = [each for each in self.params if isinstance(each, GroupedOption)]
        for group in sorted({*(each.group for each in options), "Command"}, key=GROUPS.index):
            with formatter.section(group):
                for each in options:
                    if each.group == group:
                        formatter.write(entry(each.term, each.help or "", each.notes, formatter.width))
                if group == "Command":
                    formatter.write(entry("--help", "Show this message and exit.", "", formatter.width))


def entry(term: str, text: str, notes: str, width: int) -> str:
    """A flag in the help: notes that don't fit on the last line of the text have lines of their own."""
    width -= INDENT + TERM
    lines = textwrap.wrap(text, width, break_on_hyphens=False)
    if notes and len(f"{lines[-1]} [{notes}]") <= width:
        lines[-1] += f" [{notes}]"
    elif notes:
        lines += textwrap.wrap(f"[{notes}]", width, break_on_hyphens=False)
    first = [f"{term:{TERM}}{lines[0]}"] if len(term) < TERM - 1 else [term, f"{'':{TERM}}{lines[0]}"]
    return "".join(f"{'':{INDENT}}{line}\n" for line in [*first, *(f"{'':{TERM}}{line}" for line in lines[1:])])


def flags(*declarations: type[Options]) -> Callable[[_F], _F]:
    """A decorator that gives a command the flags of all options that are declared there."""

    def decorated(command: _F) -> _F:
        for declaration in reversed(declarations):
            for name, option in reversed(declaration.options.items()):
                if option.flag is not None:
                    command = flag(name, option)(command)
        return command

    return decorated


def flag_of(name: str, option: Option) -> str:
    return (option.flag and option.flag.name) or f"--{name.replace('_', '-')}"


def flag(name: str, option: Option) -> Callable[[_F], _F]:
    """The flag of an option. It gives the checked value of the option, or NOT_GIVEN; that of an option of
    several values or of a mapping may be repeated.
    """
    kind, said = option.kind, flag_of(name, option)
    settings: dict[str, Any] = {
        "help": option.help, "notes": stated(option), "group": option.group, "default": None, "cls": GroupedOption,
    }
    if isinstance(kind, Switch):
        return click.option(said if "/" in said else f"{said}/--no-{said[2:]}", name, callback=told, **settings)

    def parsed(ctx: click.Context, parameter: click.Parameter, given: Any) -> Any:
        given = told(ctx, parameter, given)
        return given if given is NOT_GIVEN else value_of(kind, said, given)

    metavar = (option.flag and option.flag.metavar) or kind.metavar
    return click.option(
        said, name, metavar=metavar, multiple=isinstance(kind, (Several, Mapped)), callback=parsed, **settings
    )


def told(ctx: click.Context, parameter: click.Parameter, given: Any) -> Any:
    """What was given, which may come to None, or NOT_GIVEN."""
    return NOT_GIVEN if given is None or given == () else given


def value_of(kind: Kind, said: str, given: Any) -> Any:
    """What the text of a flag, or its texts, stand for."""
    try:
        if isinstance(kind, Several):
            value: Any = [each for text in given for each in kind.parse(text)]
        elif isinstance(kind, Mapped):
            value = kind.joined(map(kind.parse, given))
        else:
            value = kind.parse(given)
    except ValueError as error:
        raise Mistake(f"{said}: {error}") from None
    try:
        kind.check(said, value)
    except (ValueError, TypeError) as error:
        raise Mistake(str(error)) from None
    except OSError as error:
        raise Mistake(f"{said}: {sentence(error)}") from None
    return value


def stated(option: Option) -> str:
    """An option's default and range, and whether its flag may be repeated, for the help."""
    kind, default = option.kind, option.default
    if option.shown is not None and not option.shown.startswith(" None"):
        shown = option.shown.removeprefix(":").strip()
    elif isinstance(kind, Switch):
        shown = "on" if default else "off"
    elif default is None:
        shown = "none"
    elif isinstance(kind, Seconds):
        shown = f"{default:g} s"
    elif isinstance(default, tuple):
        shown = ", ".join(map(str, default)) or "none"
    else:
        shown = kind.shown(default).replace("``", "").strip('"') if default else "none"
    notes = [f"default: {shown}"]
    if isinstance(kind, Amount):
        notes.insert(0, kind.range)
    if isinstance(kind, (Several, Mapped)):
        notes.append("repeatable")
    return "; ".join(notes)


class Mistake(click.ClickException):
    """What was given can't be right."""

    exit_code = 2


def sentence(error: OSError) -> str:
    """The error without its number: the reader needs none."""
    text = error.strerror or str(error)
    return f"{text}: {error.filename}" if error.filename else text

"""The tables of docs/config.md, from the declarations of the options: `python tests/config_docs.py` writes them."""

import re
from pathlib import Path

from c1m.kinds import Amount, Seconds, Switch
from c1m.options import REQUIRED, RootOptions, RouteOptions, ServerOptions

DOCUMENT = Path(__file__).parent.parent / "docs" / "config.md"
TABLES = {"server": ServerOptions, "root": RootOptions, "route": RouteOptions}


def default(option):
    kind, value = option.kind, option.default
    if value is REQUIRED:
        return "required"
    if option.shown is not None and not option.shown.startswith(" None"):
        return option.shown.removeprefix(":").strip().replace("idle_timeout", "`idle_timeout`")
    if isinstance(kind, Switch):
        return f"`{str(value).lower()}`"
    if value is None:
        return "none"
    if isinstance(kind, Seconds):
        return f"`{value:g}`"
    if isinstance(kind, Amount):
        return f"`{value}`" if value < 1 << 20 else f"`\"{value >> 20}MiB\"`"
    if isinstance(value, tuple) and value:
        return f"`{list(value)}`".replace("'", '"')
    if isinstance(value, int):
        return f"`{value}`"
    return f'`"{value}"`' if value else "none"


def table(declaration):
    rows = ["| key | takes | default | |", "|---|---|---|---|"]
    for name, option in declaration.options.items():
        if name == "root":
            continue
        text = option.text.replace("{range}", option.kind.range).replace("``", "`")
        takes = f"{option.kind.toml}, {option.kind.range}" if isinstance(option.kind, Amount) else option.kind.toml
        cells = [f"`{name}`", takes, default(option), f"{text}."]
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows)


def document(text):
    """The document with its tables made anew: each stands between `<!-- NAME -->` and `<!-- end -->`."""
    for name, declaration in TABLES.items():
        made = f"<!-- {name} -->\n{table(declaration)}\n<!-- end -->"
        text, n = re.subn(rf"<!-- {name} -->.*?<!-- end -->", lambda _, made=made: made, text, flags=re.DOTALL)
        assert n == 1, name
    return text


if __name__ == "__main__":
    DOCUMENT.write_text(document(DOCUMENT.read_text()))

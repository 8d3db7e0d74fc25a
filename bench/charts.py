"""Results as charts: SVG with a panel for each load and a bar for each server, on a logarithmic scale.

Bars begin at the floor, 1; one to the left of it costs less. The colours follow the reader's choice of light or dark.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from html import escape

from loads import LOADS
from results import Figure, Results, error_of, figures_of, mark, rank, short, size
from servers import OURS

WIDTH, GAP, MARGIN = 470, 40, 16         # pixels: of a panel, between two, around all
NAMES, VALUES = 128, 60                  # for names on the left and values on the right of bars
BAR, STEP, HEAD = 11, 17, 44
GRID = [0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500]
BYTES = [10, 100, 1000, 10_000, 100_000]
STYLE = """
text { font: 12px system-ui, sans-serif; fill: #24292f }
.title { font-weight: 600 }
.small { font-size: 10px; fill: #6e7781 }
.back { fill: #ffffff }
.grid { stroke: #d8dee4 }
.floor { stroke: #6e7781 }
.ours { fill: #0969da }
.other { fill: #afb8c1 }
.spread { stroke: #24292f; stroke-width: 1.5 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .small { fill: #9198a1 }
  .back { fill: #0d1117 }
  .grid { stroke: #2b3138 }
  .floor { stroke: #9198a1 }
  .ours { fill: #4493f8 }
  .other { fill: #565f69 }
  .spread { stroke: #e6edf3 }
}
"""

Bar = tuple[str, Figure | None, str | None]      # a server, what it costs, or what went wrong


def chart(results: Results, websocket: bool) -> str | None:
    """The loads of one protocol as SVG, in two columns; None where there are none."""
    panels = {name: bars_of(name, load["servers"]) for name, load in results["loads"].items()
              if LOADS[name].websocket == websocket}
    panels = {name: bars for name, bars in panels.items() if bars}
    if not panels:
        return None
    bounds = bounds_of(panels)
    columns: list[list[str]] = [[], []]
    heights = [MARGIN, MARGIN]
    for name, bars in panels.items():
        column = heights.index(min(heights))
        at = MARGIN + column * (WIDTH + GAP), heights[column]
        columns[column].extend(panel(name, bars, at, bounds))
        heights[column] += HEAD + STEP * len(bars) + GAP // 2
    width = 2 * MARGIN + WIDTH + (WIDTH + GAP if columns[1] else 0)
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {max(heights)}" width="{width}">',
             f"<style>{STYLE}</style>", f'<rect class="back" width="{width}" height="{max(heights)}"/>',
             *columns[0], *columns[1], "</svg>"]
    return "\n".join(parts) + "\n"


def bars_of(load: str, servers: dict[str, list[dict[str, float]]]) -> list[Bar]:
    """c1m's first, then the others, the cheapest first; the floor is where bars begin."""
    figures = figures_of(servers)
    bars = [(server, figure, error_of(servers[server])) for server, figure in figures.items() if server != "floor"]
    comparable = [bar for bar in bars if bar[2] or (bar[1] and (bar[1].ratio or not LOADS[load].unit))]
    return sorted(comparable, key=lambda bar: (bar[0] not in OURS, rank(bar[1])))


def bounds_of(panels: dict[str, list[Bar]]) -> tuple[float, float]:
    """The least and the greatest ratio on any scale."""
    ratios = [bar[1].ratio for bars in panels.values() for bar in bars if bar[1] and bar[1].ratio]
    return min([0.8, *(each.low for each in ratios)]), max([2.0, *(each.high for each in ratios)])


def panel(load: str, bars: list[Bar], at: tuple[int, int], bounds: tuple[float, float]) -> Iterator[str]:
    x, y = at
    memory = not LOADS[load].unit
    low, high = (BYTES[0], BYTES[-1]) if memory else bounds
    left, room = x + NAMES, WIDTH - NAMES - VALUES

    def place(value: float) -> float:
        share = math.log(max(value, low) / low) / math.log(high / low)
        return round(left + room * min(share, 1), 1)

    begin, bottom = place(low if memory else 1), y + HEAD + STEP * len(bars) - 4
    yield f'<text class="title" x="{x}" y="{y + 13}">{escape(LOADS[load].title)}</text>'
    for value in BYTES if memory else GRID:
        if low <= value <= high:
            line = "floor" if value == 1 else "grid"
            yield f'<line class="{line}" x1="{place(value)}" x2="{place(value)}" y1="{y + 34}" y2="{bottom}"/>'
            label = size(value) if memory else "floor" if value == 1 else f"{value:g}"
            yield f'<text class="small" text-anchor="middle" x="{place(value)}" y="{y + 30}">{label}</text>'
    for i, (server, figure, _) in enumerate(bars):
        top = y + HEAD + STEP * i
        name = escape(server + mark(load, server))
        yield f'<text text-anchor="end" x="{left - 6}" y="{top + BAR - 1}">{name}</text>'
        if figure is None:
            yield f'<text class="small" x="{begin + 4}" y="{top + BAR - 1}">failed</text>'
            continue
        of = figure.cost if memory else figure.ratio
        assert of is not None                    # bars_of has no others
        end = place(of.median)
        kind = "ours" if server in OURS else "other"
        yield (f'<rect class="{kind}" x="{min(begin, end)}" y="{top}" width="{max(abs(end - begin), 1):.1f}"'
               f' height="{BAR}"/>')
        middle = top + BAR / 2
        yield f'<line class="spread" x1="{place(of.low)}" x2="{place(of.high)}" y1="{middle}" y2="{middle}"/>'
        said = size(of.median) if memory else short(of.median)
        yield f'<text x="{max(begin, place(of.high)) + 6}" y="{top + BAR - 1}">{said}</text>'

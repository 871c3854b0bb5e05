"""A directive that draws a sequence diagram as SVG, from a text of arrows.

```text
client | proxy | server
client -> proxy: SELECT 1
proxy -> server: SELECT 1
server --> proxy: one row
proxy: counts it
proxy x: closed
```

The first line names the lifelines. `->` is drawn solid, `-->` (an answer) dashed; `NAME: text` is a note, and `NAME x`
the end of a lifeline, with or without a text. The colours are those of the page. Other builders show the text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from html import escape
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.util.docutils import SphinxDirective

_ARROW = re.compile(r"(?P<start>[^:]+?) (?P<arrow>--?>) (?P<end>[^:]+?): (?P<text>.+)")
_NOTE = re.compile(r"(?P<start>[^:]+?)(?P<cross> x)?(?:: (?P<text>.+))?")

_CHARACTER = 6.6  # pixels, on average, of the font size below
_GAP = 26  # between a label and the lifelines beside it
_ROW = 34
_HEAD = 40
_LEAST = 90  # between two lifelines
_STYLE = 'font-family="inherit" font-size="13" fill="currentColor" stroke="currentColor"'


@dataclass(frozen=True)
class Step:
    """A row: an arrow, or a note where `end` is `start`; `cross` ends the lifeline of `start`."""

    start: int
    end: int
    text: str
    dashed: bool = False
    cross: bool = False


def parse(lines: list[str]) -> tuple[list[str], list[Step]]:
    """Return the names of the lifelines and the steps.

    Raises:
        ValueError: a line cannot be read.
    """
    names = [name.strip() for name in lines[0].split("|")]

    def place(name: str) -> int:
        if name not in names:
            raise ValueError(f"no lifeline is called {name!r}, only {', '.join(names)}")
        return names.index(name)

    steps = []
    for line in lines[1:]:
        if found := _ARROW.fullmatch(line):
            start, end = place(found["start"]), place(found["end"])
            if start == end:
                raise ValueError(f"an arrow that goes nowhere: {line!r}")
            steps.append(Step(start, end, found["text"], dashed=found["arrow"] == "-->"))
        elif (found := _NOTE.fullmatch(line)) and (found["text"] or found["cross"]):
            at = place(found["start"])
            steps.append(Step(at, at, found["text"] or "", cross=bool(found["cross"])))
        else:
            raise ValueError(f"neither an arrow nor a note: {line!r}")
    return names, steps


def draw(names: list[str], steps: list[Step]) -> str:
    """Return the diagram as an SVG element."""
    xs = _columns(names, steps)
    bottom = _HEAD + _ROW * len(steps) + 12
    ends = {step.start: _HEAD + _ROW * row + 24 for row, step in enumerate(steps) if step.cross}
    width = max(
        [xs[-1] + _width(names[-1]) / 2, *(xs[s.start] + 12 + _width(s.text) for s in steps if s.start == s.end)]
    )
    parts = []
    for place, (name, x) in enumerate(zip(names, xs, strict=True)):
        half = _width(name) / 2 + 8
        parts.append(f'<rect x="{x - half:.0f}" y="1" width="{2 * half:.0f}" height="26" rx="4" fill="none"/>')
        parts.append(_text(x, 18, name, "middle"))
        parts.append(_line(x, 27, x, ends.get(place, bottom), ' stroke-opacity="0.4"'))
    for row, step in enumerate(steps):
        parts += _draw_step(step, xs, _HEAD + _ROW * row + 24)
    label = escape("; ".join(_describe(names, step) for step in steps), quote=True)
    size = f'viewBox="0 0 {width + 12:.0f} {bottom}" width="{width + 12:.0f}"'
    return (
        f'<div class="sequence" style="overflow-x: auto; margin: 1em 0"><svg xmlns="http://www.w3.org/2000/svg" {size} '
        f'role="img" aria-label="{label}" {_STYLE}>{"".join(parts)}</svg></div>'
    )


def _columns(names: list[str], steps: list[Step]) -> list[float]:
    """Return where the lifelines stand, so far from each other that all labels fit between."""
    xs = [_width(names[0]) / 2 + 9]
    for place in range(1, len(names)):
        least = xs[-1] + max(_LEAST, (_width(names[place - 1]) + _width(names[place])) / 2 + 30)
        for step in steps:
            first, last = sorted((step.start, step.end))
            if last == place and first < last:
                least = max(least, xs[first] + _width(step.text) + _GAP)
            elif first == last == place - 1:
                least = max(least, xs[first] + _width(step.text) * 0.6 + _GAP)
        xs.append(least)
    return xs


def _draw_step(step: Step, xs: list[float], y: float) -> list[str]:
    start, end = xs[step.start], xs[step.end]
    if step.start == step.end:
        parts = [_text(start + 10, y + 1, step.text, "start", ' font-style="italic"')] if step.text else []
        if step.cross:
            parts += [_line(start - 6, y - 6, start + 6, y + 6), _line(start - 6, y + 6, start + 6, y - 6)]
        return parts
    back = -8 if end > start else 8
    head = f"{end:.0f},{y:.0f} {end + back:.0f},{y - 4:.0f} {end + back:.0f},{y + 4:.0f}"
    dashes = ' stroke-dasharray="5 4"' if step.dashed else ""
    return [
        _line(start, y, end + back, y, dashes),
        f'<polygon points="{head}"/>',
        _text((start + end) / 2, y - 6, step.text, "middle"),
    ]


def _describe(names: list[str], step: Step) -> str:
    if step.start == step.end:
        return f"{names[step.start]}{' ends' if step.cross else ''}{': ' if step.text else ''}{step.text}"
    return f"{names[step.start]} to {names[step.end]}: {step.text}"


def _width(text: str) -> float:
    return len(text) * _CHARACTER


def _text(x: float, y: float, text: str, anchor: str, more: str = "") -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}" stroke="none"{more}>{escape(text)}</text>'


def _line(x: float, y: float, to_x: float, to_y: float, more: str = "") -> str:
    return f'<line x1="{x:.0f}" y1="{y:.0f}" x2="{to_x:.0f}" y2="{to_y:.0f}"{more}/>'


class Sequence(SphinxDirective):
    """The directive."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """Return the picture, and its text for builders that cannot show it."""
        lines = [line.strip() for line in self.content if line.strip()]
        if not lines:
            raise self.error("a diagram without lifelines")
        try:
            picture = draw(*parse(lines))
        except ValueError as fault:
            raise self.error(str(fault)) from None
        words = addnodes.only(expr="not html")
        words += nodes.literal_block("\n".join(lines), "\n".join(lines), language="text")
        return [nodes.raw("", picture, format="html"), words]


def setup(app: Any) -> dict[str, Any]:
    """Be loaded by Sphinx."""
    app.add_directive("sequence", Sequence)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

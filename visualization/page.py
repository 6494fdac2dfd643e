"""One HTML page that needs nothing else: its style, tables, images, and what is missing."""

import base64
import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import files
from training import RunError

# Images of a greater height are sent as JPEG and are not enlarged pixel by pixel.
_PHOTOGRAPH = 96

# Letters of classes' names: longer ones stand upright above a matrix; longer ones still are cut.
_SHORT_NAME, _LONG_NAME = 3, 18

_HEADING = re.compile(r'^<section id="(.*)">\n<h2>(.*)</h2>')

STYLE = """
:root { color-scheme: light dark;
  --ground: #ffffff; --panel: #f5f7f9; --ink: #1b2026; --soft: #56606b; --line: #d5dbe1;
  --right: #2563b0; --wrong: #b3382c; --note: #fff6dd; --note-line: #d9a514;
  --s0: #1f66c1; --s1: #c4500e; --s2: #1c7f45; --s3: #8031b8; --s4: #9a6a00; --s5: #c02a6b;
  --s6: #0d7285; --s7: #56606b; }
@media (prefers-color-scheme: dark) { :root {
  --ground: #11151a; --panel: #1a2027; --ink: #e8ecf0; --soft: #a3aeb9; --line: #333c46;
  --right: #4b8de0; --wrong: #e2695c; --note: #2d2713; --note-line: #b98d14;
  --s0: #6aa9f7; --s1: #f79554; --s2: #5fc98a; --s3: #c191f0; --s4: #dfb44a; --s5: #f07fae;
  --s6: #5cc2d4; --s7: #a3aeb9; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body { margin: 0 auto; max-width: 84rem; padding: 1rem clamp(1rem, 3vw, 2.5rem) 4rem;
  background: var(--ground); color: var(--ink); font: 1rem/1.5 system-ui, sans-serif;
  overflow-wrap: anywhere; }
h1 { font-size: clamp(1.6rem, 4vw, 2.4rem); line-height: 1.2; margin: .6rem 0 .4rem; }
h2 { font-size: 1.4rem; margin: 2.6rem 0 .7rem; padding-top: .5rem;
  border-top: 1px solid var(--line); }
h3 { font-size: 1.1rem; margin: 1.4rem 0 .5rem; }
ul.states { list-style: none; padding: 0; } ul.states li { margin: .4rem 0; }
p { margin: .5rem 0; max-width: 52rem; }
a { color: var(--s0); }
nav { display: flex; flex-wrap: wrap; gap: .2rem 1rem; margin: 1rem 0; }
.soft, .note { color: var(--soft); }
.state { display: inline-block; padding: .25rem .8rem; border-radius: .4rem;
  background: var(--panel); border-left: .35rem solid var(--s7); }
.state.running { border-color: var(--s4); } .state.finished { border-color: var(--s2); }
.gap, .gaps { background: var(--note); border-left: .35rem solid var(--note-line);
  border-radius: .4rem; padding: .5rem .9rem; max-width: 52rem; }
.gaps ul { margin: .2rem 0; padding-left: 1.2rem; }
dl.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr));
  gap: .7rem; margin: 1rem 0; }
dl.facts div { background: var(--panel); border-radius: .5rem; padding: .6rem .9rem; }
dl.facts dt { color: var(--soft); font-size: .9rem; }
dl.facts dd { margin: 0; font-size: 1.5rem; font-weight: 600; line-height: 1.25; }
dl.facts dd small { display: block; font-size: .85rem; font-weight: 400; color: var(--soft); }
.charts { display: grid; gap: 1.2rem 2rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 27rem), 1fr)); }
figure { margin: 0; min-width: 0; }
figcaption { font-weight: 600; margin-bottom: .3rem; }
figure.below figcaption { font-weight: 400; color: var(--soft); margin: .4rem 0 0; }
.legend { display: flex; flex-wrap: wrap; gap: 0 1.1rem; font-weight: 400; font-size: .92rem; }
.key { display: inline-flex; align-items: center; gap: .4rem; }
.key i { width: 1.5rem; height: 0; border-top: 3px solid currentColor; }
.key i.thin { border-top-width: 2px; opacity: .6; } .key i.dashes { border-top-style: dashed; }
.key i.level { border-top: 2px dashed var(--ink); }
svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--soft); font: 14px system-ui, sans-serif; }
svg .middle { text-anchor: middle; } svg .end { text-anchor: end; }
svg .grid { stroke: var(--line); } svg .axis { stroke: var(--soft); }
svg .level { stroke: var(--ink); stroke-dasharray: 6 4; stroke-width: 1.5; }
svg path { fill: none; stroke: currentColor; stroke-width: 2.4; stroke-linejoin: round; }
svg path.thin { stroke-width: 1.4; opacity: .6; } svg path.dashes { stroke-dasharray: 7 4; }
svg circle { fill: currentColor; }
.s0 { color: var(--s0); } .s1 { color: var(--s1); } .s2 { color: var(--s2); }
.s3 { color: var(--s3); } .s4 { color: var(--s4); } .s5 { color: var(--s5); }
.s6 { color: var(--s6); } .s7 { color: var(--s7); }
.scroll { overflow-x: auto; margin: .6rem 0; }
.scroll:focus-visible { outline: 2px solid var(--s0); }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; overflow-wrap: normal; }
caption { text-align: left; color: var(--soft); padding-bottom: .3rem;
  position: sticky; left: 0; max-width: calc(100vw - 2rem); }
th, td { padding: .25rem .8rem .25rem 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line); white-space: nowrap; }
thead th { color: var(--soft); font-weight: 600; }
tbody th { position: sticky; left: 0; background: var(--ground); }
tbody th { font-weight: 400; }
.number { text-align: right; }
.long { white-space: normal; overflow-wrap: anywhere; min-width: 9rem; }
details { margin: .6rem 0; } summary { cursor: pointer; color: var(--s0); }
pre { background: var(--panel); border-radius: .5rem; padding: .7rem .9rem; overflow-x: auto;
  font-size: .9rem; }
img { max-width: 100%; height: auto; display: block; }
img.pixels { image-rendering: pixelated; } figure.below img { width: min(100%, 44rem); }
figure.below img + img { margin-top: .6rem; }
.cards { display: grid; gap: 1.2rem; list-style: none; margin: 1rem 0; padding: 0;
  grid-template-columns: repeat(2, minmax(0, 1fr)); }
@media (min-width: 38rem) { .cards { grid-template-columns: repeat(4, minmax(0, 1fr)); } }
@media (min-width: 76rem) { .cards { grid-template-columns: repeat(8, minmax(0, 1fr)); } }
.cards img { width: 100%; border-radius: .3rem; }
.cards p { margin: .35rem 0; font-weight: 600; line-height: 1.3; overflow: hidden;
  display: -webkit-box; -webkit-box-orient: vertical; -webkit-line-clamp: 4; }
.cards ol { list-style: none; margin: 0; padding: 0; font-size: .88rem; }
.guess { position: relative; display: flex; justify-content: space-between; gap: .4rem;
  padding: .05rem .35rem; margin: 2px 0; border-radius: .2rem; background: var(--panel);
  overflow: hidden; }
.guess::before { content: ""; position: absolute; inset: 0 auto 0 0; width: var(--share);
  background: var(--s7); opacity: .28; }
.guess.true::before { background: var(--right); opacity: .5; }
.guess span { position: relative; white-space: nowrap; }
.guess span:first-child { overflow: hidden; text-overflow: ellipsis; }
table.matrix th, table.matrix td { padding: .2rem .55rem; text-align: right; border: 0; }
table.matrix thead th, table.matrix tbody th { color: var(--soft); }
table.matrix thead th { min-width: 2.6rem; }
table.named thead th { writing-mode: vertical-rl; transform: rotate(180deg); }
table.matrix.named th { text-align: left; white-space: nowrap; }
@media (max-width: 38rem) {
  table.matrix th, table.matrix td { font-size: .85rem; padding: .2rem .25rem; }
  table.matrix thead th { min-width: 1.9rem; } }
table.matrix td { border: 1px solid var(--ground);
  background: color-mix(in srgb, var(--tint) var(--share), var(--panel)); }
table.matrix thead td { background: none; }
table.matrix td.right { --tint: var(--right); } table.matrix td.wrong { --tint: var(--wrong); }
table.matrix td.deep { color: var(--ground); } table.matrix td.none { color: transparent; }
"""


def page(title: str, heading: str, begin: Sequence[str], sections: Sequence[str]) -> str:
    """A whole page.

    Args:
      title: of the window.
      heading: the first line.
      begin: HTML below it.
      sections: from `section`; links to them stand between the two.
    """
    links = [
        f'<a href="#{name}">{words}</a>' for s in sections for name, words in _HEADING.findall(s)
    ]
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<link rel="icon" href="data:,">',
            f"<title>{escape(title)}</title>",
            f"<style>{STYLE}</style>",
            "</head>",
            "<body>",
            "<header>",
            f"<h1>{escape(heading)}</h1>",
            *begin,
            "</header>",
            f'<nav aria-label="Parts of the page">{" ".join(links)}</nav>',
            "<main>",
            *sections,
            "</main>",
            "</body>",
            "</html>",
            "",
        ]
    )


def write(text: str, path: Path) -> Path:
    """Writes a page and returns its path.

    Raises:
      RunError: it cannot be written.
    """
    try:
        with files.replacing(path, shared=True) as temporary:
            temporary.write_text(text, encoding="utf-8", errors="replace")
    except OSError as error:
        raise RunError(f"{path}: cannot be written ({error.strerror or error})") from error
    return path


def section(name: str, title: str, parts: Sequence[str]) -> str:
    """A part of the page with a heading, to which #name leads."""
    inside = "\n".join(part for part in parts if part)
    return f'<section id="{name}">\n<h2>{escape(title)}</h2>\n{inside}\n</section>'


def gap(reason: str) -> str:
    """Says that something is missing, and why."""
    return text(f"Missing: {reason}", "gap")


def text(words: str, style: str = "") -> str:
    """A paragraph."""
    return f"<p{_class(style)}>{escape(words)}</p>"


def details(summary: str, inside: str, *, opened: bool = False) -> str:
    """What is shown when it is asked for."""
    state = " open" if opened else ""
    return f"<details{state}>\n<summary>{escape(summary)}</summary>\n{inside}\n</details>"


def facts(entries: Sequence[tuple[str, str, str]]) -> str:
    """Panels with what matters most: (name, value, remark) each."""
    panels = [
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}"
        + (f"<small>{escape(remark)}</small>" if remark else "")
        + "</dd></div>"
        for name, value, remark in entries
    ]
    return "\n".join(['<dl class="facts">', *panels, "</dl>"])


def table(
    caption: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    numbers: Sequence[int] = (),
    long: Sequence[int] = (),
) -> str:
    """A table in a box that scrolls by itself.

    Args:
      caption: what it shows.
      columns: their names.
      rows: a text for each column; the first names the row.
      numbers: columns that are aligned at the right.
      long: columns of long words, which may be broken into several lines.
    """
    styles = {n: "number" for n in numbers} | {n: "long" for n in long}

    def cell(n: int, words: str, tag: str, attributes: str = "") -> str:
        inside = _breakable(words) if n in long else escape(words)
        return f"<{tag}{attributes}{_class(styles.get(n, ''))}>{inside}</{tag}>"

    head = "".join(cell(n, name, "th", ' scope="col"') for n, name in enumerate(columns))
    lines = [
        "<tr>"
        + cell(0, first, "th", ' scope="row"')
        + "".join(cell(n, words, "td") for n, words in enumerate(others, 1))
        + "</tr>"
        for first, *others in rows
    ]
    return scrolling(
        caption,
        "\n".join(
            [
                f"<table><caption>{escape(caption)}</caption>",
                f"<thead><tr>{head}</tr></thead>",
                "<tbody>",
                *lines,
                "</tbody></table>",
            ]
        ),
    )


def scrolling(name: str, inside: str) -> str:
    """A box that scrolls when its content is wider than the page."""
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(name)}">\n'
        f"{inside}\n</div>"
    )


def image(pixels: np.ndarray, alt: str) -> str:
    """An image, uint8 [h, w, 3], inside the page."""
    height, width, _ = pixels.shape
    small, buffer = height <= _PHOTOGRAPH, io.BytesIO()
    drawn = small or len(np.unique(pixels[..., 0])) < _PHOTOGRAPH
    kind = "png" if drawn else "jpeg"
    Image.fromarray(pixels).save(buffer, format=kind.upper(), optimize=True)
    coded = base64.b64encode(buffer.getvalue()).decode("ascii")
    return (
        f'<img{_class("pixels" if drawn else "")} src="data:image/{kind};base64,{coded}" '
        f'width="{width}" height="{height}" alt="{escape(alt)}">'
    )


def matrix(caption: str, names: Sequence[str], counts: np.ndarray) -> str:
    """A confusion matrix as a table.

    Args:
      caption: what it shows.
      names: of the classes.
      counts: int [true classes, guessed classes].
    """
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    strongest = max(float((shares * (1 - np.eye(len(names)))).max()), 1e-12)
    style = "matrix named" if max(map(len, names)) > _SHORT_NAME else "matrix"
    head = "".join(f'<th scope="col"{_cut(name)}</th>' for name in names)
    rows = []
    for true, name in enumerate(names):
        cells = []
        for guessed, count in enumerate(counts[true].tolist()):
            right = true == guessed
            depth = shares[true, guessed] if right else 0.8 * shares[true, guessed] / strongest
            kind = ("right" if right else "wrong") + (
                " none" if not count else " deep" if depth > 0.55 else ""
            )
            share = f"{100 * math.sqrt(depth):.0f}%"
            cells.append(f'<td class="{kind}" style="--share:{share}">{count}</td>')
        rows.append(f'<tr><th scope="row"{_cut(name)}</th>{"".join(cells)}</tr>')
    return scrolling(
        caption,
        "\n".join(
            [
                f'<table class="{style}"><caption>{escape(caption)}</caption>',
                f"<thead><tr><td></td>{head}</tr></thead>",
                "<tbody>",
                *rows,
                "</tbody></table>",
            ]
        ),
    )


def card(picture: str, heading: str, guesses: Sequence[Mapping[str, object]], truth: str) -> str:
    """An image with its guesses as bars; the true class's stands out.

    Args:
      picture: from `image`.
      heading: above the guesses.
      guesses: from `evaluation.guesses`; their words are shown as they are.
      truth: the name of the true class; "" where it is not known.
    """
    bars = []
    for guess in guesses:
        probability = float(str(guess["probability"]))
        right = guess["class"] == truth
        words = str(guess["words"])
        bars.append(
            f'<li class="guess{" true" * right}" style="--share:{100 * probability:.1f}%">'
            f'<span title="{escape(words)}">{escape(words)}</span>'
            f"<span>{probability:.1%}</span></li>"
        )
    said = escape(heading)
    return f'<li>{picture}\n<p title="{said}">{said}</p>\n<ol>{"".join(bars)}</ol></li>'


def cards(items: Sequence[str]) -> str:
    """Cards side by side, as many as there is room for."""
    return "\n".join(['<ul class="cards">', *items, "</ul>"])


def percent(error: Any) -> str:
    """An error, a fraction of 1, in percent; a dash for what is no number."""
    return f"{error:.2%}" if isinstance(error, int | float) else "-"


def loss(value: Any) -> str:
    """A loss; a dash for what is no number."""
    return f"{value:.4f}" if isinstance(value, int | float) else "-"


def count(value: Any) -> str:
    """A whole number; a dash for what is none."""
    return f"{value:,.0f}" if isinstance(value, int | float) else "-"


def json_text(value: Any) -> str:
    """A config's value as JSON, a text without its quotation marks."""
    return value if isinstance(value, str) else json.dumps(value)


def _breakable(text: str) -> str:
    """A text whose lines may end after the signs that part the words of fields and paths."""
    return re.sub(r"(?<=\w[._=/-])(?=[^\W\d])", "<wbr>", escape(text))


def _cut(name: str) -> str:
    """The end of a heading's tag and a class's name, cut where it is long; the title is whole."""
    if len(name) <= _LONG_NAME:
        return f">{escape(name)}"
    return (
        f' title="{escape(name)}">{escape(name[: _LONG_NAME - 1].rstrip())}\N{HORIZONTAL ELLIPSIS}'
    )


def _class(style: str) -> str:
    return f' class="{style}"' if style else ""

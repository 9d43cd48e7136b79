"""Hooks of the site, which turn formulas into MathML and plots into SVG when pages are built.

This module imports neither torch nor the package. The built pages need neither scripts nor network
access for formulas and plots.
"""

import html
import re
import sys
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

sys.path.insert(0, str(Path(__file__).parent))  # MkDocs loads this file by its path

from plots import PLOTS, svg_of

__all__ = ["on_files", "on_page_content"]

FORMULA = re.compile(
    r'<(?P<tag>span|div) class="arithmatex">\\[(\[](?P<tex>.*?)\\[)\]]</(?P=tag)>', re.DOTALL
)
PLOT = re.compile(r'<img\b[^>]*\bsrc="plots/(?P<name>\w+)\.svg"[^>]*>')
CELL = re.compile(r"<td[^>]*>.*?</td>", re.DOTALL)
CODE = re.compile(r"<code>[^<]*</code>")
SEPARATOR = re.compile(r"(?<=\w)([._/])(?=\w)")
ALT = re.compile(r'\balt="([^"]*)"')


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the plots as files, because pages refer to them as images."""
    for name in PLOTS:
        files.append(File.generated(config, f"plots/{name}.svg", content=svg_of(name)))
    return files


def on_page_content(content: str, **_: Any) -> str:
    """Replace TeX with MathML and images of plots with inline SVG, and let long names wrap."""
    content = PLOT.sub(_inline_plot, FORMULA.sub(_math, content))
    return CELL.sub(_breakable, content)


def _math(match: re.Match[str]) -> str:
    block = match["tag"] == "div"
    tex = html.unescape(match["tex"]).strip()
    math = convert(tex, display="block" if block else "inline")
    return f'<div class="formula">{math}</div>' if block else math


def _breakable(cell: re.Match[str]) -> str:
    """Allow line breaks at the separators of long names in a cell of a table."""
    return CODE.sub(lambda name: SEPARATOR.sub(r"\1<wbr>", name.group()), cell.group())


def _inline_plot(match: re.Match[str]) -> str:
    """Return a plot as inline SVG, so that it has the colors of the page."""
    svg = svg_of(match["name"])
    alt = ALT.search(match.group())
    label = alt[1] if alt else ""
    return svg.replace("<svg ", f'<svg role="img" aria-label="{label}" class="plot" ', 1)

"""A comparison as one HTML page that works from the file system: table, and every sample."""

import base64
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unidpo_mm.errors import DataError, Problem

from ..benchmarks import load_benchmark
from ..data.images import picture_folder, picture_reference
from ..data.samples import Picture
from ..results.comparison import Comparison
from ..results.summary import Summary
from .summary_tables import details, headings, summary_rows
from .tables import COLUMNS, comparison_rows, notes

__all__ = ["comparison_page", "summary_page"]

HERE = Path(__file__).parent
SIDE = 360
"""Pixels of the longer side of a picture on the page."""
PICTURES = 500
"""Pictures on the page; samples on which the results differ come first."""


def comparison_page(
    found: Comparison, metrics: Sequence[str], *, data: Path | None, pictures: int = PICTURES
) -> str:
    """Returns the page.

    Args:
        found: The comparison.
        metrics: Those of the table.
        data: The benchmark's data, for the pictures; None for a page without.
        pictures: Most pictures on it.
    """
    samples = _samples(found)
    shown = _pictures(found, samples, data, pictures)
    for sample in samples:
        sample["pictures"] = shown.get(sample["id"], [])
    return _rendered(
        "compare.html.jinja",
        title=f"{found.first.title}: {' and '.join(found.names)}",
        protocol=f"{found.first.protocol.title} ({found.first.protocol.label})",
        columns=COLUMNS,
        rows=comparison_rows(found, metrics),
        notes=notes(found),
        names=found.names,
        samples=_for_script({"names": found.names, "samples": samples}),
    )


def summary_page(found: Summary) -> str:
    """Returns a summary as one page."""
    return _rendered(
        "summary.html.jinja",
        title=found.title,
        headings=headings(found),
        rows=summary_rows(found),
        details=details(found),
        warnings=found.warnings,
    )


def _rendered(template: str, **values: Any) -> str:
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    style = Markup((HERE / "style.css").read_text(encoding="utf-8"))  # ours, nothing to escape
    text = (HERE / template).read_text(encoding="utf-8")
    return environment.from_string(text).render(style=style, **values)


def _samples(found: Comparison) -> list[dict[str, Any]]:
    """Returns each sample with what every result has of it."""
    rows = []
    for same in zip(*(one.result.per_sample for one in found.results), strict=True):
        first = same[0]
        rows.append(
            {
                "id": first.id,
                "question": first.question,
                "options": [f"{letter}. {text}" for letter, text in first.options.items()],
                "answers": list(first.answers),
                "labels": dict(first.labels),
                "said": [
                    {
                        "response": one.response,
                        "scored": one.scored,
                        "answer": one.answer,
                        "score": one.score,
                        "state": _state(one),
                    }
                    for one in same
                ],
            }
        )
    return rows


def _state(one: Any) -> str:
    states = {
        "missing": one.missing,
        "error": one.error is not None,
        "empty": one.empty,
        "truncated": bool(one.truncated),
        "unparsed": one.unparsed,
        "unclosed reasoning": one.unclosed,
    }
    return ", ".join(name for name, holds in states.items() if holds)


def _pictures(
    found: Comparison, samples: Sequence[Mapping[str, Any]], data: Path | None, most: int
) -> dict[str, list[str]]:
    """Returns id -> small pictures, of samples on which the results differ first."""
    if data is None or most <= 0:
        return {}
    read = load_benchmark(found.first.benchmark).read(data, True)
    if read.sha256 != found.first.data.sha256.partition("-")[0]:
        text = "it is not the file that the results were scored on"
        raise DataError(Problem(str(data), text, "Name that file, or leave --data out"))
    by_id = {sample.id: sample.pictures for sample in read.samples}
    differing = sorted(samples, key=lambda one: len({said["score"] for said in one["said"]}) == 1)
    shown: dict[str, list[str]] = {}
    small: dict[str, str] = {}
    for sample in differing:
        for picture in by_id.get(sample["id"], ()):
            if picture.key not in small:
                if len(small) >= most:
                    return shown
                small[picture.key] = _small(picture, data)
            if small[picture.key]:
                shown.setdefault(sample["id"], []).append(small[picture.key])
    return shown


def _small(picture: Picture, data: Path) -> str:
    """Returns a small copy as a data address; nothing where the picture cannot be read."""
    try:
        opened = picture_reference(picture, picture_folder(data), str(data)).open()
    except DataError:
        return ""
    opened.thumbnail((SIDE, SIDE))
    stream = io.BytesIO()
    opened.save(stream, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def _for_script(value: Any) -> str:
    """Returns JSON that may stand in a script element: nothing in it ends the element."""
    from markupsafe import Markup

    text = json.dumps(value, ensure_ascii=False)
    for mark, escaped in (("<", "\\u003c"), (">", "\\u003e"), ("&", "\\u0026")):
        text = text.replace(mark, escaped)
    return Markup(text)  # escaped right above

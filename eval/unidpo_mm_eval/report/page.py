"""A comparison as one self-contained HTML page: the table and every sample."""

import base64
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unidpo_mm.errors import DataError, Problem

from ..benchmarks import load_benchmark
from ..data.images import image_folder, image_reference
from ..data.samples import GradedSample, Image
from ..results.comparison import Comparison
from ..results.summary import Summary
from . import tables

HERE = Path(__file__).parent
SIDE = 360
"""Maximum width and height of an image on the page, in pixels."""
MAX_IMAGES = 500


def comparison_page(
    comparison: Comparison,
    metrics: Sequence[str],
    *,
    data: Path | None,
    max_images: int = MAX_IMAGES,
) -> str:
    """Render a comparison as a page.

    With `data` the page has images; samples on which the results differ come first.
    """
    samples = _samples(comparison)
    images = _images(comparison, samples, data, max_images)
    for sample in samples:
        sample["images"] = images.get(sample["id"], [])
    return render(
        HERE / "compare.html.jinja",
        title=f"{comparison.first.title}: {' and '.join(comparison.names)}",
        protocol=f"{comparison.first.protocol.title} ({comparison.first.protocol.label})",
        columns=tables.COLUMNS,
        rows=tables.comparison_rows(comparison, metrics),
        notes=tables.comparison_notes(comparison),
        names=comparison.names,
        samples=_for_script({"names": comparison.names, "samples": samples}),
    )


def summary_page(summary: Summary) -> str:
    """Render a summary as a page."""
    return render(
        HERE / "summary.html.jinja",
        title=summary.title,
        headings=tables.summary_header(summary),
        rows=tables.summary_rows(summary),
        details=tables.summary_notes(summary),
        warnings=summary.warnings,
    )


def render(template: Path, **values: Any) -> str:
    """Render a Jinja template with the style of all pages as `style`."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    style = Markup((HERE / "style.css").read_text(encoding="utf-8"))  # trusted, not escaped
    text = template.read_text(encoding="utf-8")
    return environment.from_string(text).render(style=style, **values)


def _samples(comparison: Comparison) -> list[dict[str, Any]]:
    """Return each sample with the response of every result."""
    columns = (measured.result.per_sample for measured in comparison.results)
    return [
        {
            "id": same[0].id,
            "question": same[0].question,
            "options": [f"{letter}. {text}" for letter, text in same[0].options.items()],
            "answers": list(same[0].answers),
            "labels": dict(same[0].labels),
            "responses": [
                {
                    "response": sample.response,
                    "scored": sample.scored,
                    "answer": sample.answer,
                    "score": sample.score,
                    "state": _state(sample),
                }
                for sample in same
            ],
        }
        for same in zip(*columns, strict=True)
    ]


def _state(sample: GradedSample) -> str:
    states = {
        "missing": sample.missing,
        "error": sample.error is not None,
        "empty": sample.empty,
        "truncated": bool(sample.truncated),
        "unparsed": sample.unparsed,
        "unclosed reasoning": sample.unclosed,
    }
    return ", ".join(name for name, holds in states.items() if holds)


def _images(
    comparison: Comparison, samples: Sequence[Mapping[str, Any]], data: Path | None, maximum: int
) -> dict[str, list[str]]:
    """Return id -> thumbnails, first of the samples on which the results differ."""
    if data is None or maximum <= 0:
        return {}
    first = comparison.first
    dataset = load_benchmark(first.benchmark_file or first.benchmark).read(data, True)
    if dataset.sha256 != comparison.first.data.sha256.partition("-")[0]:
        text = "not the file on which the results were scored"
        raise DataError(Problem(str(data), text, "Use that file, or remove --data"))
    by_id = {sample.id: sample.images for sample in dataset.samples}
    different_first = sorted(samples, key=lambda s: len({r["score"] for r in s["responses"]}) == 1)
    images: dict[str, list[str]] = {}
    thumbnails: dict[str, str] = {}
    for sample in different_first:
        for image in by_id.get(sample["id"], ()):
            if image.key not in thumbnails:
                if len(thumbnails) >= maximum:
                    return images
                thumbnails[image.key] = _thumbnail(image, data)
            if thumbnails[image.key]:
                images.setdefault(sample["id"], []).append(thumbnails[image.key])
    return images


def _thumbnail(image: Image, data: Path) -> str:
    """Return a small copy as a data URL; an empty string if the image cannot be read."""
    try:
        opened = image_reference(image, image_folder(data), str(data)).open()
    except DataError:
        return ""
    opened.thumbnail((SIDE, SIDE))
    stream = io.BytesIO()
    opened.save(stream, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def _for_script(value: Any) -> str:
    """Return JSON that is safe in a script element: nothing in it ends the element."""
    from markupsafe import Markup

    text = json.dumps(value, ensure_ascii=False)
    for mark, escaped in (("<", "\\u003c"), (">", "\\u003e"), ("&", "\\u0026")):
        text = text.replace(mark, escaped)
    return Markup(text)  # escaped above

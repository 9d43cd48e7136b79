"""MMHal-Bench: open questions about images; a judge rates responses from 0 to 6."""

from collections.abc import Sequence
from pathlib import Path

from ..data.dataset import Dataset
from ..data.json_files import JsonRow, read_json_files
from ..data.samples import Grade, GradedSample, Image, Sample
from ..judge.verdicts import rating
from ..protocols import judge_prompt
from ..stats.metrics import Metrics, mean_score, share
from . import Benchmark
from ._judged import judge_scorer

BEST, HALLUCINATED = 6, 3
"""The best rating, and the one below which a response counts as hallucinated."""


def sample(row: JsonRow) -> Sample:
    """Build the question of a record."""
    objects, image_id = row.record.get("image_content"), row.text("image_id", optional=True)
    source = row.text("image_path", optional=True) or row.text("image_src", optional=True)
    name = f"{image_id}.jpg" if image_id else source.rpartition("/")[2]
    if not image_id and not source:
        row.note("image_id", "no field contains the image", "Add image_id or image_src")
    content = ", ".join(map(str, objects)) if isinstance(objects, list) else str(objects or "")
    return Sample(
        id=row.text("id", optional=True) or f"{image_id or name}/{row.text('question')}",
        where=row.where,
        question=row.text("question"),
        answers=(row.text("gt_answer"),),
        labels={"type": row.text("question_type")},
        cluster=image_id or name,
        images=(Image(name, Path(name)),) if name else (),
        extras={"content": content},
    )


def read(path: Path, with_images: bool) -> Dataset:
    """Read the questions of the official file."""
    return read_json_files(path, sample, pattern="response_template.json")


def prompt(question: Sample, response: str, number: int) -> str:
    """Return the prompt for the judge."""
    return judge_prompt("mmhal").format(
        content=question.extras["content"],
        question=question.question,
        gold=question.answers[0],
        response=response,
    )


def grade(question: Sample, verdicts: Sequence[float]) -> Grade:
    """Return the rating as a grade."""
    (value,) = verdicts
    details = {"rating": value, "hallucinated": float(value < HALLUCINATED)}
    return Grade(value / BEST, f"{value:g}", details=details)


def metrics(samples: Sequence[GradedSample]) -> Metrics:
    """Return the mean rating, also by type, and the share of hallucinated responses.

    A sample without response or verdict has rating 0 and counts as hallucinated.
    """
    result = mean_score("score", samples)
    result.formulas["rating"] = share("rating", "n", scale=1.0)
    for item in samples:
        for part in ("", f"/type/{item.labels['type']}"):
            result.sums.add(item.cluster, f"n{part}")
            result.sums.add(item.cluster, f"rating{part}", item.details.get("rating", 0.0))
            result.sums.add(item.cluster, f"bad{part}", item.details.get("hallucinated", 1.0))
            result.formulas[f"rating{part}"] = share(f"rating{part}", f"n{part}", scale=1.0)
            result.formulas[f"hallucination_rate{part}"] = share(f"bad{part}", f"n{part}")
    return result


BENCHMARK = Benchmark(
    name="mmhal",
    title="MMHal-Bench",
    read=read,
    scorers={
        "judge": judge_scorer(
            prompt=prompt,
            read=lambda question, reply: rating(reply, "rating", 0, BEST, integer=True),
            grade=grade,
            metrics=metrics,
            headline="rating",
        )
    },
    expected={"rows": 96},
    files=("response_template.json",),
    layouts=("the official response_template.json, images next to it or in --images",),
)

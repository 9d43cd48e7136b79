"""The leak guard of the first stage: remove prompts that are questions of benchmarks."""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..data.leaks import Leak, LeakReport, keep_out
from ..data.questions import prompt_questions
from ..errors import DataError, Problem
from ..plugins import QUESTIONS, load
from .prompt_set import MadePrompt, Prompts
from .recipe import KeepOutSection

__all__ = ["leave_out_leaks"]

READER = "evaluation"
"""Name of the reader of questions, which the evaluation package provides."""


def leave_out_leaks(prompts: Prompts, section: KeepOutSection) -> Prompts:
    """Return the prompts without leaks.

    Raises:
        DataError: If there are leaks and the recipe refuses them, with all of them.
        UniDPOError: If benchmarks or files cannot be read.
    """
    read = load(QUESTIONS, READER)
    index = read(
        section.sources,
        data=None if section.data is None else Path(section.data),
        images=None if section.images is None else Path(section.images),
        text=section.text,
        where="prompts.keep_out.sources",
    )
    report = keep_out(
        prompts.items,
        index,
        lambda item: prompt_questions(item.question),
        same_image=section.same_image,
    )
    if report.leaks and section.leaks == "refuse":
        remedy = "Remove the prompt, or set prompts.keep_out.leaks to drop"
        raise DataError(Problem(leak.where, leak.message, remedy) for leak in report.leaks)
    prompts.funnel.count("prompts", "kept out", len(report.leaks))
    return dataclasses.replace(
        prompts,
        items=[prompts.items[number] for number in report.kept],
        leaks=[*_records(report, prompts.items)],
        notes=report.sentences(),
    )


def _records(report: LeakReport, items: Any) -> Iterator[Mapping[str, Any]]:
    for leak, dropped in (
        *((leak, True) for leak in report.leaks),
        *((leak, False) for leak in report.reported),
    ):
        yield _record(leak, items[leak.prompt], dropped=dropped)


def _record(leak: Leak, item: MadePrompt, *, dropped: bool) -> Mapping[str, Any]:
    return {
        "id": item.id,
        "where": leak.where,
        "kind": leak.kind,
        "of": leak.of,
        "message": leak.message,
        "dropped": dropped,
    }

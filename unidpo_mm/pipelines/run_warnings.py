"""Warnings about responses and scores, for the user to read before training on them."""

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy

from ..errors import counted
from .load import Making, right_score, scorer_name
from .pairs import MadeRow
from .response_table import Numbers, ResponseTable
from .scoring import Group

__all__ = ["MAX_CORRELATION", "blind_scorers", "correlation", "run_warnings"]

MAX_TRUNCATED = 0.2
"""Share of truncated responses above which there is a warning."""
MAX_EQUAL = 0.5
"""Share of prompts with equal responses above which there is a warning."""
MAX_UNIFORM = 0.8
"""Share of prompts with right or wrong answers only above which there is a warning."""
MAX_CORRELATION = 0.3
"""Absolute rank correlation of score and length above which there is a warning."""


def run_warnings(
    making: Making,
    table: ResponseTable,
    groups: Sequence[Group],
    rows: Sequence[MadeRow] = (),
) -> list[str]:
    """Return the warnings about a finished run.

    Args:
        making: The recipe.
        table: The responses and their scores.
        groups: The prompts with the ids of their responses.
        rows: The rows with pairs.
    """
    return [
        *_wrong(making, rows),
        *_truncated(making, table),
        *_equal(making, table),
        *_uniform(making, table),
        *_long(table),
        *blind_scorers(making, groups),
    ]


def blind_scorers(making: Making, groups: Sequence[Group]) -> Iterator[str]:
    """Yield the scorers that score responses about images or videos without seeing them.

    Those that combine other scores, or compare with the right answer, need not see them.
    """
    number = sum(len(group.ids) for group in groups if group.question.media)
    for name, scorer in making.scorers.items():
        combines = scorer.upstream() is not None or "gold" in scorer.needs
        if number and not scorer.sees_images and not combines:
            text = f"{scorer_name(making, name)}) judges {counted(number, 'response')}"
            yield f"{name} ({text} about images without seeing them."


def correlation(first: Numbers, second: Numbers) -> float | None:
    """Return the rank correlation of the numbers that are in both; `None` if it is undefined."""
    import torch

    from ..check.numbers import spearman

    both = ~(numpy.isnan(first) | numpy.isnan(second))
    if both.sum() < 2:
        return None
    return spearman(torch.from_numpy(first[both]), torch.from_numpy(second[both]))


def length_correlations(table: ResponseTable) -> Mapping[str, float | None]:
    """Return the rank correlation of each score with the length of responses."""
    return {name: correlation(scores, table.lengths) for name, scores in table.scores.items()}


def _wrong(making: Making, rows: Sequence[MadeRow]) -> Iterator[str]:
    chosen = [row.rated[pair[0]].right for row in rows for pair in row.pairs]
    wrong = sum(right is False for right in chosen)
    name = right_score(making.recipe, making.scorers)
    if wrong and name is not None:
        scale = making.scorers[name].scale
        gate = f"{name} >= {1 if scale is None else scale[1]:g}"
        yield (
            f"{wrong:,} of {counted(len(chosen), 'chosen response')} have a wrong answer by "
            f"{name}. To exclude such pairs: pair.gates={{chosen: [{gate}]}}"
        )


def _truncated(making: Making, table: ResponseTable) -> Iterator[str]:
    share = float(table.truncated.mean()) if len(table) else 0.0
    if share <= MAX_TRUNCATED:
        return
    limit = making.recipe.sample.max_new_tokens
    complete = table.lengths[~table.truncated]
    finished = (
        f"95 % of the complete ones have at most {_percentile(complete, 95):,} {table.unit}"
        if complete.size
        else "none is complete"
    )
    yield (
        f"{share:.0%} of the responses are truncated at sample.max_new_tokens = {limit:,}, and "
        f"{finished}. Increase max_new_tokens, or ask for shorter responses."
    )


def _equal(making: Making, table: ResponseTable) -> Iterator[str]:
    several = table.counts > 1
    equal = several & (table.distinct == 1)
    if not several.any() or equal.sum() / several.sum() <= MAX_EQUAL:
        return
    text = (
        f"{equal.sum() / several.sum():.0%} of the prompts have equal responses only, and thus no "
        "pair. "
    )
    sample = making.recipe.sample
    if sample.responses == "given":
        yield text + "Check the responses of the sources, or sample others."
        return
    text += f"Check sample.temperature, which is {sample.temperature:g}, and sample.top_k"
    text += f", which is {sample.top_k}" if sample.top_k else ""
    if sample.server is not None:
        text += "; a server may also replace them with its defaults (vLLM: start it with "
        text += "--generation-config vllm)"
    yield f"{text}. If they are correct, the prompts are too easy or too narrow."


def _uniform(making: Making, table: ResponseTable) -> Iterator[str]:
    if table.right is None:
        return
    shares = right_shares(table)
    if not shares.size:
        return
    right, wrong = float((shares == 1).mean()), float((shares == 0).mean())
    if right + wrong > MAX_UNIFORM:
        sampled = making.recipe.sample.responses != "given"
        remedy = "Increase sample.n, or use" if sampled else "Use"
        yield (
            f"{right:.0%} of the prompts have right answers only, and {wrong:.0%} wrong ones only: "
            "they give no pair of a right and a wrong one. "
            f"{remedy} {'harder' if right > wrong else 'easier'} prompts."
        )


def right_shares(table: ResponseTable) -> Numbers:
    """Return the share of right answers of each prompt that has answers known to be so or not."""
    assert table.right is not None
    valid = ~numpy.isnan(table.right)
    numbers = numpy.bincount(table.prompts[valid], minlength=len(table.counts))
    right = numpy.bincount(
        table.prompts[valid], weights=table.right[valid], minlength=len(table.counts)
    )
    shares: Numbers = right[numbers > 0] / numbers[numbers > 0]
    return shares


def _long(table: ResponseTable) -> Iterator[str]:
    for name, value in length_correlations(table).items():
        if value is not None and abs(value) > MAX_CORRELATION:
            longer = "longer" if value > 0 else "shorter"
            yield (
                f"The score {name} prefers {longer} responses: its rank correlation with length is "
                f"{value:+.2f}. Set pair.balance_length or pair.length_ratio if that is not wanted."
            )


def _percentile(values: Numbers, percent: float) -> int:
    return math.ceil(float(numpy.percentile(values, percent)))

"""Several scored answers a row: prompt and responses, each with its text and score.

Every two answers with different scores make a pair, the better one chosen. A row with a single
answer has no pair and serves losses whose unit is the response.
"""

from collections.abc import Mapping
from itertools import combinations
from typing import Any

from ...errors import DataError
from ...records import Pair, PreferenceRow, Response
from . import Context, Format
from ._fields import Attempts, domain_of, problem, prompt_messages, read_images, read_score, row_id

__all__ = ["FORMAT"]


def parse(record: Mapping[str, Any], context: Context) -> PreferenceRow:
    """Returns the row of a record; raises DataError with all its problems."""
    fields = Attempts()
    images = fields.read(read_images, record, context, default=())
    prompt, raw = fields.read(
        prompt_messages, record.get("prompt"), len(images), context, default=((), True)
    )
    responses = fields.read(_responses, record.get("responses"), context, default=())
    domain = fields.read(domain_of, record, context, images, default="text")
    fields.finish()
    return PreferenceRow(
        id=row_id(record, context),
        domain=domain,
        source=context.source,
        where=context.where,
        messages=prompt,
        images=images,
        responses=responses,
        pairs=_pairs(responses),
        raw=raw,
    )


def _responses(value: Any, context: Context) -> tuple[Response, ...]:
    if not (isinstance(value, list | tuple) and value):
        remedy = "Give a list of {'text': ..., 'score': ...}"
        raise DataError(problem(context, "responses", "found no list of answers", remedy))
    responses, problems = [], []
    for number, item in enumerate(value):
        name = f"responses[{number}]"
        text = item.get("text") if isinstance(item, Mapping) else None
        if not isinstance(text, str):
            remedy = "Write each answer as {'text': ..., 'score': ...}"
            problems.append(problem(context, f"{name}.text", f"found {item!r}"[:120], remedy))
            continue
        try:
            score = read_score({f"{name}.score": item.get("score")}, f"{name}.score", context)
        except DataError as error:
            problems.extend(error.problems)
            continue
        responses.append(Response(text, score))
    unscored = [r.score is None for r in responses]
    if len(responses) > 1 and any(unscored) and not problems:
        remedy = "Give every answer a score: pairs are made of answers with different scores"
        found = f"{sum(unscored)} of {len(responses)} answers have no score"
        problems.append(problem(context, "responses", found, remedy))
    if problems:
        raise DataError(problems)
    return tuple(responses)


def _pairs(responses: tuple[Response, ...]) -> tuple[Pair, ...]:
    pairs = []
    for (i, one), (j, other) in combinations(enumerate(responses), 2):
        if one.score is None or other.score is None or one.score == other.score:
            continue
        pairs.append(Pair(i, j) if one.score > other.score else Pair(j, i))
    return tuple(pairs)


FORMAT = Format(
    name="ranked",
    required=frozenset({"prompt", "responses"}),
    known=frozenset(["id", "domain", "prompt", "images", "image", "responses"]),
    parse=parse,
)

"""Several scored answers a row: prompt and responses, each with its text and score.

Every two answers with different scores make a pair, the better one chosen. A row with a single
answer has no pair and serves losses whose unit is the response.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from ...errors import DataError
from ...records import Pair, PreferenceRow, Response
from . import Context, Format
from ._fields import Attempts, domain_of, problem, prompt_messages, read_images, read_score, row_id

__all__ = ["FORMAT"]


def parse(record: Mapping[str, Any], context: Context) -> PreferenceRow:
    """Returns the row of a record; raises DataError with all its problems."""
    fields = Attempts(context)
    images = fields.read("images", read_images, record, context, default=())
    prompt, raw = fields.read(
        "prompt", prompt_messages, record.get("prompt"), len(images), context, default=((), True)
    )
    items = fields.read("responses", _items, record.get("responses"), context, default=())
    responses = tuple(
        _response(fields, f"responses[{number}]", item, context)
        for number, item in enumerate(items)
    )
    domain = fields.read("domain", domain_of, record, context, images, default="text")
    fields.read("responses", _all_scored, items, context)
    return fields.finish(
        id=row_id(record, context),
        domain=domain,
        messages=prompt,
        images=images,
        responses=responses,
        pairs=_pairs(responses),
        raw=raw,
    )


def _items(value: Any, context: Context) -> Sequence[Any]:
    if isinstance(value, list | tuple) and value:
        return value
    remedy = "Give a list of {'text': ..., 'score': ...}"
    raise DataError(problem(context, "responses", "found no list of answers", remedy))


def _response(fields: Attempts, name: str, item: Any, context: Context) -> Response:
    text = fields.read(name, _text, item, name, context, default=f"(no {name})")
    given = item.get("score") if isinstance(item, Mapping) else None
    score_name = f"{name}.score"
    score = fields.read(score_name, read_score, {score_name: given}, score_name, context)
    return Response(text, score, name)


def _text(item: Any, name: str, context: Context) -> str:
    text = item.get("text") if isinstance(item, Mapping) else None
    if isinstance(text, str):
        return text
    remedy = "Write each answer as {'text': ..., 'score': ...}"
    raise DataError(problem(context, f"{name}.text", f"found {item!r}"[:120], remedy))


def _all_scored(items: Sequence[Any], context: Context) -> None:
    unscored = sum(isinstance(item, Mapping) and item.get("score") is None for item in items)
    if len(items) > 1 and unscored:
        remedy = "Give every answer a score: pairs are made of answers with different scores"
        found = f"{unscored} of {len(items)} answers have no score"
        raise DataError(problem(context, "responses", found, remedy))


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

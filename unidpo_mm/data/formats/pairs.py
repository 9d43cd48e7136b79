"""One pair a row: prompt, chosen, rejected, and optionally pictures, scores and a weight."""

from collections.abc import Mapping
from typing import Any

from ...errors import DataError
from ...records import Pair, PreferenceRow, Response
from . import Context, Format
from ._fields import (
    Attempts,
    answer_text,
    domain_of,
    problem,
    prompt_messages,
    read_images,
    read_number,
    read_score,
    row_id,
)

__all__ = ["FORMAT"]

KNOWN = frozenset(
    [
        "id",
        "domain",
        "prompt",
        "images",
        "image",
        "chosen",
        "rejected",
        "score_chosen",
        "score_rejected",
        "weight",
    ]
)


def parse(record: Mapping[str, Any], context: Context) -> PreferenceRow:
    """Returns the row of a record; raises DataError with all its problems."""
    fields = Attempts(context)
    images = fields.read("images", read_images, record, context, default=())
    prompt, raw = fields.read(
        "prompt", prompt_messages, record.get("prompt"), len(images), context, default=((), True)
    )
    responses = tuple(
        Response(
            fields.read(
                name, answer_text, record.get(name), name, prompt, context, default=f"(no {name})"
            ),
            fields.read(f"score_{name}", read_score, record, f"score_{name}", context),
            name,
        )
        for name in ("chosen", "rejected")
    )
    weight = fields.read("weight", read_number, record, "weight", context)
    domain = fields.read("domain", domain_of, record, context, images, default="text")
    fields.read("rejected_images", _no_rejected_images, record, context)
    return fields.finish(
        id=row_id(record, context),
        domain=domain,
        messages=prompt,
        images=images,
        responses=responses,
        pairs=(Pair(0, 1, 1.0 if weight is None else weight),),
        raw=raw,
    )


def _no_rejected_images(record: Mapping[str, Any], context: Context) -> None:
    if record.get("rejected_images") is not None:
        found = "other pictures for the rejected answer are not understood yet"
        remedy = "Remove the column: both answers see the pictures of the prompt"
        raise DataError(problem(context, "rejected_images", found, remedy))


FORMAT = Format(
    name="pairs",
    required=frozenset({"prompt", "chosen", "rejected"}),
    known=KNOWN,
    parse=parse,
)

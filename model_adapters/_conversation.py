"""Renders conversations and finds where the prompt ends and the response begins.

Nothing here knows a family. A prompt with its answer is rendered and tokenised as one text, as the
family's own processor does it, and is then cut where all answers of the group still agree with
the prompt alone. So the ids of a plain row are exactly the processor's.
"""

import dataclasses
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from unidpo_mm.adapter import AdapterOptions
from unidpo_mm.errors import DataError, Problem, RowTooLong
from unidpo_mm.records import ImageSlot, Message, PreferenceRow, Response

__all__ = [
    "Rendered",
    "Span",
    "fit_responses",
    "longest_row",
    "render",
    "split_ids",
    "uses_template",
]

logger = logging.getLogger(__name__)

MERGED_TOKENS = 2
"""Prompt tokens that may change when an answer follows (a merge at the seam) without a warning."""


@dataclass(frozen=True)
class Rendered:
    """A group as text: the prompt, and prompt plus answer for each of the K answers."""

    prompt: str
    full: tuple[str, ...]
    add_special_tokens: bool


@dataclass(frozen=True)
class Span:
    """A group as ids: the shared prompt, the K answers, and how much of the prompt they changed."""

    prompt_ids: list[int]
    response_ids: tuple[list[int], ...]
    merged: int


def uses_template(row: PreferenceRow, template: str | None, options: AdapterOptions) -> bool:
    """Says whether a row is rendered by the chat template.

    Raises:
        DataError: If the row is a conversation and there is no template.
    """
    if row.raw and (options.prompt_style == "raw" or template is None):
        if options.prompt_style == "chat":
            raise DataError(_no_template(row, "model.prompt_style is 'chat'"))
        return False
    if template is None:
        raise DataError(_no_template(row, "the prompt is a conversation"))
    return True


def render(
    row: PreferenceRow,
    renderer: Any,
    tokenizer: Any,
    options: AdapterOptions,
    *,
    placeholder: str | None,
    responses: Sequence[Response],
) -> Rendered:
    """Returns the texts of a group.

    Args:
        row: The row.
        renderer: What has `apply_chat_template`: a processor or a tokenizer.
        tokenizer: The tokenizer behind it.
        options: How to render.
        placeholder: What stands for a picture where no template is used; None for families
            without pictures, whose templates take messages as strings.
        responses: The answers to render; none for the prompt alone.
    """
    template = getattr(renderer, "chat_template", None) or getattr(tokenizer, "chat_template", None)
    if not uses_template(row, template, options):
        if row.tools or any(message.extras for message in row.messages):
            raise DataError(_no_template(row, "the row has tools"))
        prompt = "".join(_raw_text(message, placeholder) for message in row.messages)
        full = tuple(prompt + response.text for response in responses)
        return Rendered(prompt, full, add_special_tokens=True)

    turns = [_turn(message, as_parts=placeholder is not None) for message in row.messages]
    tools = {"tools": json.loads(row.tools)} if row.tools else {}

    def text(answer: Response | None) -> str:
        answered = [] if answer is None else [Message("assistant", (answer.text,))]
        added = [_turn(message, as_parts=placeholder is not None) for message in answered]
        rendered: str = renderer.apply_chat_template(
            turns + added,
            chat_template=template,
            tokenize=False,
            add_generation_prompt=answer is None,
            **tools,
        )
        return rendered

    prompt = text(None)
    bos = tokenizer.bos_token
    # As the libraries do it: a tokenizer's template writes every special token itself, a
    # processor's may leave the first one to the tokenizer.
    add_special = placeholder is not None and not (bos and prompt.startswith(bos))
    return Rendered(prompt, tuple(text(answer) for answer in responses), add_special)


def split_ids(rendered: Rendered, tokenizer: Any) -> Span:
    """Tokenises a group and cuts it into the shared prompt and K answers that end their turn."""
    texts = [rendered.prompt, *rendered.full]
    encoded = tokenizer(texts, add_special_tokens=rendered.add_special_tokens)["input_ids"]
    prompt, full = list(encoded[0]), [list(ids) for ids in encoded[1:]]
    shared = min([len(prompt), *(_common_prefix(prompt, ids) for ids in full)])
    if len(prompt) - shared > MERGED_TOKENS:
        logger.warning(
            "the chat template renders the last %d tokens of a prompt otherwise when an answer "
            "follows; they count as part of the answer",
            len(prompt) - shared,
        )
    answers = tuple(_ended(ids[shared:], tokenizer) for ids in full)
    return Span(prompt[:shared], answers, len(prompt) - shared)


def fit_responses(
    row: PreferenceRow,
    span: Span,
    options: AdapterOptions,
    *,
    image_tokens: int = 0,
    resizable: bool = True,
) -> tuple[Span, int]:
    """Cuts answers so that every plain row fits `max_length`; the prompt is never cut.

    Args:
        row: The row, for messages.
        span: The group's ids, picture placeholders expanded.
        options: Carries `max_length` and what happens to longer rows.
        image_tokens: How many of the prompt's tokens stand for pictures, for messages.
        resizable: Smaller pictures are fewer tokens, likewise.

    Returns:
        The span, and how many answers were cut.

    Raises:
        RowTooLong: If the row may not be cut, or its prompt leaves no room for an answer.
    """
    if options.max_length is None:
        return span, 0
    prompt_length, longest = len(span.prompt_ids), longest_row(span)
    room = options.max_length - prompt_length
    may_cut = options.length_policy == "truncate_response"
    if span.response_ids and (room < 1 or (longest > options.max_length and not may_cut)):
        pictures = f", {image_tokens} of them of pictures" if image_tokens else ""
        found = (
            f"the prompt has {prompt_length} tokens{pictures} and max_length is "
            f"{options.max_length}: no token of an answer is left"
        )
        if room >= 1:
            found = (
                f"the row has {longest} tokens with its longest answer{pictures}, and max_length "
                f"is {options.max_length}"
            )
        smaller = ", make the pictures smaller" if image_tokens and resizable else ""
        remedy = (
            f"Set data.max_length to {longest} or more, or null for no limit{smaller}, set "
            "data.length_policy to drop to leave such rows out, or remove the row"
        )
        raise RowTooLong(Problem(f"{row.where}, field 'prompt'", found, remedy))
    cut = sum(len(ids) > room for ids in span.response_ids)
    kept = tuple(ids[:room] for ids in span.response_ids)
    return dataclasses.replace(span, response_ids=kept), cut


def longest_row(span: Span) -> int:
    """Returns the tokens of the prompt with its longest answer."""
    return len(span.prompt_ids) + max(map(len, span.response_ids), default=0)


def _turn(message: Message, *, as_parts: bool) -> dict[str, Any]:
    extras = json.loads(message.extras) if message.extras else {}
    if not as_parts:
        return {"role": message.role, "content": message.text, **extras}
    parts = [
        {"type": "image"} if isinstance(part, ImageSlot) else {"type": "text", "text": part}
        for part in message.parts
    ]
    return {"role": message.role, "content": parts, **extras}


def _raw_text(message: Message, placeholder: str | None) -> str:
    return "".join(
        (placeholder or "") if isinstance(part, ImageSlot) else part for part in message.parts
    )


def _common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    for index, (one, other) in enumerate(zip(left, right, strict=False)):
        if one != other:
            return index
    return min(len(left), len(right))


def _ended(ids: list[int], tokenizer: Any) -> list[int]:
    """Ends an answer with the end-of-sequence token, unless its template ends the turn itself."""
    if tokenizer.eos_token_id is None:
        return ids
    kept = len(ids)
    while kept > 1 and not tokenizer.decode(ids[kept - 1 : kept]).strip():
        kept -= 1  # a blank that a template puts between turns is no part of the answer
    if ids[kept - 1 : kept] and ids[kept - 1] in _special_ids(tokenizer):
        return ids
    return [*ids[:kept], tokenizer.eos_token_id]


def _special_ids(tokenizer: Any) -> set[int]:
    """Returns the ids of all special tokens, also of those that have no name such as eos."""
    added = tokenizer.added_tokens_decoder
    return {
        *tokenizer.all_special_ids,
        *(number for number, token in added.items() if token.special),
    }


def _no_template(row: PreferenceRow, why: str) -> Problem:
    return Problem(
        f"{row.where}, field 'prompt'",
        f"{why} and this model has no chat template",
        "Give the prompt as a plain string, or save a chat template with the tokenizer",
    )

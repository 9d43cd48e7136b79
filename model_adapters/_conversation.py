"""Conversations as text: the generation prompt, and the continuation for each response.

The prompt is exactly the text that generation starts from. A continuation is what the chat template
renders for a response, and it must contain the response unchanged. A template may add text before
and after a response. But some templates also remove reasoning from it, and the model would silently
be trained on text that differs from the data.
"""

import dataclasses
from itertools import takewhile
from typing import Any

from unidpo_mm.adapter import AdapterOptions
from unidpo_mm.errors import DataError, Problem, RowTooLong
from unidpo_mm.reasoning import opens_reasoning, strip_reasoning
from unidpo_mm.records import PreferenceRow

from ._chat_template import Dialogue
from ._tokens import Span, first_tokens

__all__ = ["Conversation", "fit_responses", "longest_row", "no_template", "with_start_first"]

PROBE = "unidpo0stands0in0for0a0response"
"""A response that no template changes, to find the text before and after every response."""
EXCERPT = 60
"""Maximum number of characters of a rendered text in messages."""
LONGEST_TAG = 80
"""Maximum number of characters in the opening tag of a reasoning block."""


class Conversation(Dialogue):
    """A dialogue with its responses, as continuations of its generation prompt."""

    def continuation(self, response: str, field: str) -> str:
        """Return the text that follows the prompt: a response and the end of its turn.

        The template may trim whitespace around a response. An opening reasoning tag at the end of
        the generation prompt is not repeated at the start of the response.

        Raises:
            DataError: If the template changes the response and the data source does not allow it.
        """
        conversation = self.with_response(response, field)
        text = response.strip()
        body = _without_open_tag(self.prompt, text)
        if conversation.startswith(self.prompt):
            rest = conversation[len(self.prompt) :]
            if rest.lstrip().startswith((text, body.strip() or text)):
                return rest
        before, mark, after = self.with_response(PROBE, field).rpartition(PROBE)
        if not mark:
            raise DataError(self._changed(conversation, text, field))
        # if only the generation prompt has, for example, an empty reasoning block, `before` does
        # not start with the prompt, and the response follows the prompt directly
        preamble = before[len(self.prompt) :] if before.startswith(self.prompt) else ""
        for kept in (text, response, response.lstrip(), response.rstrip()):
            if conversation == before + kept + after:
                self._warn_about_preamble(preamble, text)
                return preamble + kept + after
        if self.row.reasoning != "keep":
            raise DataError(self._changed(conversation, text, field))
        if preamble.strip() and _has_reasoning(text):
            preamble = ""  # an empty reasoning block of the template
        return preamble + body + after

    def _warn_about_preamble(self, preamble: str, text: str) -> None:
        """Warn if a response would not start where the generation prompt ends."""
        if preamble.strip():
            self.notices.warn(
                "preamble",
                self.row,
                "the chat template adds %r between the generation prompt and a response, and it "
                "is trained as part of the response. If it belongs to the prompt, set variables of "
                "the template in model.chat_template_kwargs, such as enable_thinking: false",
                preamble,
            )
        elif _ends_in_reasoning(self.prompt) and not _has_reasoning(text):
            self.notices.warn(
                "open reasoning",
                self.row,
                "the generation prompt opens a reasoning block and the responses contain no "
                "reasoning, so the model learns to put its final answer inside that block. If the "
                "chat template has a variable to disable reasoning, set it in "
                "model.chat_template_kwargs, such as enable_thinking: false",
            )

    def _changed(self, conversation: str, text: str, field: str) -> Problem:
        """Return the problem of a response that the template would change."""
        pairs = zip(conversation, self.prompt, strict=False)
        common = len(list(takewhile(lambda pair: pair[0] == pair[1], pairs)))
        rendered = _excerpt(conversation[common:].strip())
        problem_text = f"the chat template changes the response {_excerpt(text)}"
        remedy = "Use a chat template that keeps responses unchanged"
        if self.row.reasoning == "keep":
            problem_text += ", and would change even a single word in its place"
        elif _has_reasoning(text):
            problem_text = f"the chat template changes the reasoning in {_excerpt(text)}"
            remedy = (
                "Set reasoning for the data source (data.sources, or UniDPOConfig): keep trains on "
                "the response as it is in the data, strip removes its reasoning"
            )
        else:
            remedy += (
                ", or set reasoning to keep for the data source to train on the response as it is "
                "in the data"
            )
        where = f"{self.row.where}, field '{field}'"
        return Problem(where, f"{problem_text}: it renders {rendered}", remedy)


def fit_responses(
    row: PreferenceRow,
    span: Span,
    options: AdapterOptions,
    *,
    image_tokens: int = 0,
    video_tokens: int = 0,
    resizable: bool = True,
) -> tuple[Span, int]:
    """Truncate responses so that prompt and response fit `max_length`; the prompt is kept.

    Args:
        row: The row, for messages.
        span: The ids of the group, with expanded image placeholders.
        options: The options of the run, with `max_length` and `length_policy`.
        image_tokens: Number of image tokens in the prompt, for messages.
        video_tokens: Number of tokens of videos, for messages.
        resizable: Whether smaller images have fewer tokens, for messages.

    Returns:
        The span, and the number of responses that were truncated. Mismatched responses (see
        `PreferenceRow.for_labels`) are always truncated, and do not count.

    Raises:
        RowTooLong: If responses must not be truncated, or the prompt leaves no room for them.
    """
    if options.max_length is None:
        return span, 0
    prompt_length, longest = len(span.prompt_ids), longest_row(row, span)
    room = options.max_length - prompt_length
    may_cut = options.length_policy == "truncate_response"
    if span.response_ids and (room < 1 or (longest > options.max_length and not may_cut)):
        counts = {"image": image_tokens, "video": video_tokens}
        texts = [f", {count} of them {kind} tokens" for kind, count in counts.items() if count]
        media = "".join(texts)
        problem = (
            f"the prompt has {prompt_length} tokens{media} and max_length is "
            f"{options.max_length}: no room remains for a response"
        )
        if room >= 1:
            problem = (
                f"the row has {longest} tokens with its longest response{media}, and max_length "
                f"is {options.max_length}"
            )
        smaller = ", make the images smaller" if image_tokens and resizable else ""
        smaller += ", lower data.video_max_frames" if video_tokens else ""
        remedy = (
            f"Set data.max_length to {longest} or more, or null for no limit{smaller}, set "
            "data.length_policy to drop to skip such rows, or remove the row"
        )
        raise RowTooLong(Problem(f"{row.where}, field 'prompt'", problem, remedy))
    cut = sum(len(ids) > room for ids in _own_responses(row, span))
    kept = tuple(ids[:room] for ids in span.response_ids)
    return dataclasses.replace(span, response_ids=kept), cut


def longest_row(row: PreferenceRow, span: Span) -> int:
    """Return the number of tokens of the prompt with its longest response."""
    return len(span.prompt_ids) + max(map(len, _own_responses(row, span)), default=0)


def _own_responses(row: PreferenceRow, span: Span) -> list[list[int]]:
    """Return the responses without mismatched ones."""
    mismatched = {pair.rejected for pair in row.pairs if pair.good is not None}
    mismatched -= {pair.chosen for pair in row.pairs}
    return [ids for number, ids in enumerate(span.response_ids) if number not in mismatched]


def _without_open_tag(prompt: str, text: str) -> str:
    """Return a response without its opening reasoning tag if the prompt ends with that tag."""
    if not _ends_in_reasoning(prompt):
        return text
    trimmed = prompt.rstrip()
    for length in range(min(len(text), LONGEST_TAG), 0, -1):
        tag = text[:length]
        if trimmed[-length:].lower() == tag.lower() and opens_reasoning(tag):
            return text[length:].removeprefix(prompt[len(trimmed) :])
    return text


def _ends_in_reasoning(prompt: str) -> bool:
    """Return whether a prompt ends with the opening tag of a reasoning block."""
    return opens_reasoning(prompt[-2 * LONGEST_TAG :])


def _has_reasoning(text: str) -> bool:
    return bool(strip_reasoning(text).blocks)


def with_start_first(prompt: str, tokenizer: Any, placeholders: tuple[str, ...]) -> str:
    """Return a raw prompt with its BOS token moved before its leading images and videos."""
    text = prompt
    while mark := next((mark for mark in placeholders if text.startswith(mark)), None):
        text = text.removeprefix(mark)
    media = prompt[: len(prompt) - len(text)]
    first = tokenizer.convert_ids_to_tokens(list(first_tokens(tokenizer)))
    for start in ("".join(first), tokenizer.bos_token):
        if start and text.startswith(start):
            return start + media + text.removeprefix(start)
    return prompt


def _excerpt(text: str) -> str:
    """Return the start of a text in single quotes, as for every value in a message."""
    short = text if len(text) <= EXCERPT else text[: EXCERPT - 3] + "..."
    return repr(short.replace("'", '"'))


def no_template(row: PreferenceRow, why: str) -> Problem:
    """Return the problem of a row that needs a chat template, which the model lacks."""
    return Problem(
        f"{row.where}, field 'prompt'",
        f"{why} and this model has no chat template",
        "Use a plain string as the prompt, or save a chat template with the tokenizer",
    )

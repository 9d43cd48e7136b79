"""Tokenization of rendered text: the ids of the shared prompt, and those of each response.

The prompt ids in training are those that generation starts from. No token spans prompt and
response, because a model cannot generate such a token either.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Rendered", "Span", "first_tokens", "split_ids"]

ANCHORS = ("", "\n", ".")
"""Texts before a response that is tokenized separately; see `_response_ids`."""


@dataclass(frozen=True)
class Rendered:
    """A group as text.

    Attributes:
        prompt: The generation prompt.
        continuations: What follows the prompt for each of the K responses: its text and the end of
            its turn.
        adds_first_tokens: Whether to add the tokenizer's first tokens, such as BOS, before the
            prompt; a tokenizer's chat template writes them itself.
    """

    prompt: str
    continuations: tuple[str, ...]
    adds_first_tokens: bool


@dataclass(frozen=True)
class Span:
    """A group as ids.

    Attributes:
        prompt_ids: The ids of the generation prompt.
        response_ids: The ids of each of the K responses with the end of its turn.
        first_ids: The first prompt ids, which the tokenizer adds before the text.
    """

    prompt_ids: list[int]
    response_ids: tuple[list[int], ...]
    first_ids: tuple[int, ...] = ()


def split_ids(rendered: Rendered, tokenizer: Any) -> Span:
    """Tokenize a group into the ids of its prompt and of its responses."""
    texts = [rendered.prompt, *(rendered.prompt + text for text in rendered.continuations)]
    prompt, *joint = _ids(texts, tokenizer)
    responses = tuple(
        _ended(_response_ids(prompt, text, joint_ids, tokenizer), tokenizer)
        for text, joint_ids in zip(rendered.continuations, joint, strict=True)
    )
    first = first_tokens(tokenizer) if rendered.adds_first_tokens else ()
    if tuple(prompt[: len(first)]) == first:  # the text of the prompt contains BOS already
        first = ()
    return Span([*first, *prompt], responses, first)


def _ids(texts: Sequence[str], tokenizer: Any) -> list[list[int]]:
    """Return the ids of texts, without the special tokens that the tokenizer adds."""
    return [list(ids) for ids in tokenizer(list(texts), add_special_tokens=False)["input_ids"]]


def first_tokens(tokenizer: Any) -> tuple[int, ...]:
    """Return the ids that the tokenizer adds before a text.

    They do not include ids that it adds at the end, as with ``add_eos_token``: nothing would be
    generated after a prompt that ends with EOS.
    """
    probe = "a"
    (bare,) = _ids([probe], tokenizer)
    complete = list(tokenizer(probe)["input_ids"])
    for start in range(len(complete) - len(bare) + 1):
        if complete[start : start + len(bare)] == bare:
            return tuple(complete[:start])
    return ()


def _response_ids(prompt: list[int], text: str, joint_ids: list[int], tokenizer: Any) -> list[int]:
    """Return the ids of a response that follows a prompt.

    If the ids of both as one text start with those of the prompt, the rest is the response.
    Otherwise a token spans both, and the response is tokenized separately. Some tokenizers mark the
    start of a text with a space, but not after an anchor.
    """
    if joint_ids[: len(prompt)] == prompt:
        return joint_ids[len(prompt) :]
    written = _decode(joint_ids, tokenizer)
    alone: list[int] = []
    for anchor in ANCHORS:
        anchor_ids, ids = _ids([anchor, anchor + text], tokenizer)
        if ids[: len(anchor_ids)] != anchor_ids:
            continue
        ids = ids[len(anchor_ids) :]
        if _decode([*prompt, *ids], tokenizer) == written:
            return ids
        alone = alone or ids
    return alone


def _decode(ids: list[int], tokenizer: Any) -> str:
    return str(tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))


def _ended(ids: list[int], tokenizer: Any) -> list[int]:
    """End a response with the end-of-sequence token, unless its template ends the turn itself."""
    if tokenizer.eos_token_id is None:
        return ids
    kept = len(ids)
    while kept > 1 and not tokenizer.decode(ids[kept - 1 : kept]).strip():
        kept -= 1  # whitespace that a template puts between turns is not part of the response
    added = tokenizer.added_tokens_decoder  # also special tokens without a role such as EOS
    special = {*tokenizer.all_special_ids, *(n for n, token in added.items() if token.special)}
    if not special.isdisjoint(ids[kept - 1 : kept]):
        return ids
    return [*ids[:kept], tokenizer.eos_token_id]

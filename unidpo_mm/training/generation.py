"""Greedy answers of a model to encoded prompts, several at a time."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from ..adapter import Adapter
from ..data.collate import collate_prompts
from ..records import EncodedGroup

__all__ = ["Answer", "greedy_answers"]


@dataclass(frozen=True)
class Answer:
    """What a model said.

    Attributes:
        text: The answer, without special tokens.
        finish_reason: ``length`` where the limit of new tokens ended it.
        new_tokens: How many it has, the one that ends it included.
    """

    text: str
    finish_reason: Literal["stop", "length"]
    new_tokens: int


@torch.no_grad()
def greedy_answers(
    model: Any,
    adapter: Adapter,
    prompts: Sequence[EncodedGroup],
    *,
    max_new_tokens: int,
    stop: Sequence[str] = (),
    repetition_penalty: float = 1.0,
    device: torch.device | str,
) -> list[Answer]:
    """Return the answers to some prompts in one pass.

    Prompts are filled on the left: filled on the right, a model would go on after the filling, and
    answers would depend on what else is in the batch.

    Args:
        model: What has `generate`, in evaluation mode.
        adapter: Of the model's family.
        prompts: Prompts alone, as `Adapter.encode_prompt` gives them.
        max_new_tokens: Most tokens of an answer.
        stop: Texts that end an answer beside the model's own end.
        repetition_penalty: As transformers takes it; 1 for none.
        device: Where the model is.
    """
    tokenizer = getattr(adapter.processor, "tokenizer", adapter.processor)
    ends, texts = _ends(model, tokenizer, stop)
    inputs = {
        name: tensor.to(device)
        for name, tensor in collate_prompts(prompts, pad_token_id=adapter.pad_token_id).items()
    }
    generated = model.generate(
        **inputs,
        max_new_tokens=max_new_tokens,
        do_sample=False,
        num_beams=1,
        repetition_penalty=repetition_penalty,
        temperature=None,
        top_p=None,
        top_k=None,
        use_cache=True,
        eos_token_id=sorted(ends) or None,
        pad_token_id=adapter.pad_token_id,
        **({"stop_strings": texts, "tokenizer": tokenizer} if texts else {}),
    )
    width = inputs["input_ids"].shape[1]
    return [
        _answer(ids, adapter, ends, texts, max_new_tokens) for ids in generated[:, width:].tolist()
    ]


def _ends(model: Any, tokenizer: Any, stop: Sequence[str]) -> tuple[set[int], list[str]]:
    """Return the tokens that end an answer, and the texts that are no single token."""
    own = getattr(model.generation_config, "eos_token_id", None)
    ends = set(own if isinstance(own, list) else [own]) | {tokenizer.eos_token_id}
    texts = []
    known = tokenizer.get_vocab()
    for text in stop:
        if text in known:
            ends.add(known[text])
        elif not (text.startswith("<") and text.endswith(">")):  # another model's end
            texts.append(text)
    return {end for end in ends if end is not None}, texts


def _answer(
    ids: list[int], adapter: Adapter, ends: set[int], texts: Sequence[str], limit: int
) -> Answer:
    at = next((number for number, one in enumerate(ids) if one in ends), None)
    kept = ids if at is None else ids[:at]  # a row that ended early is filled up behind its end
    text = adapter.decode(kept)
    places = [text.index(one) for one in texts if one in text]
    if places:
        return Answer(text[: min(places)].rstrip(), "stop", len(kept))
    if at is not None:
        return Answer(text, "stop", at + 1)
    return Answer(text, "length", min(len(ids), limit))

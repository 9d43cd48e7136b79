"""Generate responses to batches of encoded prompts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from ..adapter import Adapter, generation_inputs
from ..data.collate import collate_prompts
from ..records import EncodedGroup
from .decoding import Decoding, Sampling

__all__ = ["GeneratedResponse", "end_tokens", "generate_responses", "response_of"]


@dataclass(frozen=True)
class GeneratedResponse:
    """A generated response.

    Attributes:
        text: The response, without special tokens.
        finish_reason: ``length`` if the maximum number of new tokens ended it, else ``stop``.
        new_tokens: The number of its tokens, including the one that ends it.
    """

    text: str
    finish_reason: Literal["stop", "length"]
    new_tokens: int


@torch.no_grad()
def generate_responses(
    model: Any,
    adapter: Adapter,
    prompts: Sequence[EncodedGroup],
    decoding: Decoding,
    *,
    device: torch.device | str,
    sampling: Sampling | None = None,
    streamer: Any = None,
) -> list[GeneratedResponse]:
    """Generate the responses to a batch of prompts.

    Prompts are padded on the left. With padding on the right, the model would continue after the
    padding, and responses would depend on the other prompts of the batch.

    Args:
        model: A model with a `generate` method, in evaluation mode.
        adapter: The adapter of the model's family.
        prompts: Prompts without responses, from `Adapter.encode_prompt`.
        decoding: How the responses are generated.
        device: The device of the model.
        sampling: How tokens are drawn; `None` for greedy decoding.
        streamer: A streamer of transformers, which gets the tokens of a single prompt as they are
            generated; `None` for no streaming.
    """
    tokenizer = getattr(adapter.processor, "tokenizer", adapter.processor)
    ends, texts = end_tokens(model, tokenizer, decoding.stop)
    inputs = generation_inputs(
        adapter, collate_prompts(prompts, pad_token_id=adapter.pad_token_id).to(device)
    )
    generated = model.generate(
        **inputs,
        max_new_tokens=decoding.max_new_tokens,
        num_beams=1,
        repetition_penalty=decoding.repetition_penalty,
        **_sampling_arguments(sampling),
        use_cache=True,
        eos_token_id=sorted(ends) or None,
        pad_token_id=adapter.pad_token_id,
        **({"stop_strings": texts, "tokenizer": tokenizer} if texts else {}),
        **({} if streamer is None else {"streamer": streamer}),
    )
    width = inputs["input_ids"].shape[1]
    return [
        response_of(ids, adapter, ends, texts, decoding.max_new_tokens)
        for ids in generated[:, width:].tolist()
    ]


def _sampling_arguments(sampling: Sampling | None) -> dict[str, Any]:
    """Return the arguments of `generate`: all of them, or the model's own defaults would apply."""
    if sampling is None:
        return {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
    values = {"temperature": sampling.temperature, "top_p": sampling.top_p}
    values |= {"top_k": sampling.top_k, "min_p": sampling.min_p}
    return {"do_sample": True, **values, "typical_p": 1.0}


def end_tokens(model: Any, tokenizer: Any, stop: Sequence[str]) -> tuple[set[int], list[str]]:
    """Return the tokens that end a response, and the stop strings that are not a single token."""
    eos_ids = getattr(model.generation_config, "eos_token_id", None)
    ends = set(eos_ids if isinstance(eos_ids, list) else [eos_ids]) | {tokenizer.eos_token_id}
    texts = []
    vocabulary = tokenizer.get_vocab()
    for text in stop:
        if text in vocabulary:
            ends.add(vocabulary[text])
        elif not (text.startswith("<") and text.endswith(">")):  # a special token of other models
            texts.append(text)
    return {end for end in ends if end is not None}, texts


def response_of(
    ids: list[int], adapter: Adapter, ends: set[int], texts: Sequence[str], limit: int
) -> GeneratedResponse:
    """Return the response that generated tokens are.

    Args:
        ids: The tokens after the prompt, with padding after the end.
        adapter: Decodes them.
        ends: Tokens that end a response.
        texts: Strings that end it.
        limit: Maximum number of new tokens.
    """
    end = next((position for position, token in enumerate(ids) if token in ends), None)
    kept = ids if end is None else ids[:end]  # padding follows the end of a short response
    text = adapter.decode(kept)
    stops = [text.index(stop) for stop in texts if stop in text]
    if stops:
        return GeneratedResponse(text[: min(stops)].rstrip(), "stop", len(kept))
    if end is not None:
        return GeneratedResponse(text, "stop", end + 1)
    return GeneratedResponse(text, "length", min(len(ids), limit))

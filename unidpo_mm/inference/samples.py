"""Several sampled responses to each prompt, whose prompt and images run once.

The prompt is run for one sequence per prompt, the cache is repeated, and `generate` continues from
it. Models whose cache or positions cannot be repeated run the prompt once per response; a check on
the prompts of the first batch decides.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig

from ..adapter import Adapter, generation_inputs
from ..data.collate import collate_prompts
from ..records import EncodedGroup
from .decoding import Decoding, Sampling
from .generation import GeneratedResponse, end_tokens, response_of
from .noise import sampling_processors

__all__ = ["Sampler"]

TOLERANCE = 1e-3
"""Largest relative difference between the logits after a shared and after a repeated prompt."""


class Sampler:
    """Generates several responses to each prompt of a batch.

    Args:
        model: A model with a `generate` method, in evaluation mode.
        adapter: The adapter of the model's family.
        decoding: Length and end of responses.
        sampling: How tokens are drawn; `None` for greedy decoding.
        device: The device of the model.

    Attributes:
        shares: Whether responses share the run of their prompt; `None` before the first batch.
    """

    def __init__(
        self,
        model: Any,
        adapter: Adapter,
        decoding: Decoding,
        *,
        sampling: Sampling | None,
        device: torch.device | str,
    ) -> None:
        self.model, self.adapter, self.device = model, adapter, device
        self.decoding, self.sampling = decoding, sampling
        self.shares: bool | None = None

    @torch.no_grad()
    def generate(
        self, prompts: Sequence[EncodedGroup], keys: Sequence[Sequence[int]]
    ) -> list[list[GeneratedResponse]]:
        """Return responses to a batch of prompts.

        Args:
            prompts: Prompts without responses.
            keys: For each prompt, the keys of the noise of its responses, of which all prompts
                have as many.
        """
        inputs = self._inputs(prompts)
        count = len(keys[0])
        if self.shares is None:
            self.shares = count > 1 and self._can_share(inputs)
        flat = [key for row in keys for key in row]
        if self.shares and count > 1:
            start = self._shared_start(inputs, count)
        else:
            start = self._inputs([prompt for prompt in prompts for _ in range(count)])
        generated = self._generate(start, flat)
        tokenizer = getattr(self.adapter.processor, "tokenizer", self.adapter.processor)
        ends, texts = end_tokens(self.model, tokenizer, self.decoding.stop)
        width, limit = start["input_ids"].shape[1], self.decoding.max_new_tokens
        responses = [
            response_of(ids, self.adapter, ends, texts, limit)
            for ids in generated[:, width:].tolist()
        ]
        return [responses[n : n + count] for n in range(0, len(responses), count)]

    def _inputs(self, prompts: Sequence[EncodedGroup]) -> dict[str, Any]:
        pad = self.adapter.pad_token_id
        inputs = collate_prompts(prompts, pad_token_id=pad).to(self.device)
        return dict(generation_inputs(self.adapter, inputs))

    def _generate(self, start: Mapping[str, Any], keys: Sequence[int], **options: Any) -> Any:
        """Run `generate` with every parameter, so that none comes from the model's own file."""
        tokenizer = getattr(self.adapter.processor, "tokenizer", self.adapter.processor)
        ends, texts = end_tokens(self.model, tokenizer, self.decoding.stop)
        width = start["input_ids"].shape[1]
        if self.sampling is not None and keys:
            options["logits_processor"] = sampling_processors(self.sampling, keys, width)
        if texts:
            options |= {"stop_strings": texts, "tokenizer": tokenizer}
        settings = {
            "max_new_tokens": self.decoding.max_new_tokens,
            "repetition_penalty": self.decoding.repetition_penalty,
            **GREEDY,
            "eos_token_id": sorted(ends) or None,
            "pad_token_id": self.adapter.pad_token_id,
        }
        with plain_generation(self.model):
            return self.model.generate(**start, **{**settings, **options})

    def _shared_start(self, inputs: Mapping[str, Any], count: int) -> dict[str, Any]:
        """Run all tokens of the prompts but the last one, and repeat their cache."""
        tokens = {name: value for name, value in inputs.items() if _is_per_token(value, inputs)}
        first = {
            **inputs,
            **{name: value[:, :-1].contiguous() for name, value in tokens.items()},
        }
        output = self._generate(first, (), max_new_tokens=1, return_dict_in_generate=True)
        cache = output.past_key_values
        cache.batch_repeat_interleave(count)
        repeat_positions(self.model, len(inputs["input_ids"]), count)
        repeated = {name: value.repeat_interleave(count, 0) for name, value in tokens.items()}
        return {**repeated, "past_key_values": cache}

    def _can_share(self, inputs: Mapping[str, Any]) -> bool:
        """Return whether the first token is equally likely after a shared and a repeated prompt."""
        if inputs["input_ids"].shape[1] < 2:
            return False

        def first_logits(start: Mapping[str, Any]) -> Tensor:
            output = self._generate(
                start, (), max_new_tokens=1, return_dict_in_generate=True, output_logits=True
            )
            return torch.as_tensor(output.logits[0]).float()

        expected = first_logits(inputs).repeat_interleave(2, 0)
        try:
            logits = first_logits(self._shared_start(inputs, 2))
        except (RuntimeError, ValueError, TypeError, AttributeError, NotImplementedError):
            return False  # the cache or the positions cannot be repeated
        if logits.shape != expected.shape:
            return False
        spread = (expected.max(1).values - expected.mean(1)).clamp(min=1e-6)
        difference = (logits - expected).abs().max(1).values / spread
        return bool((difference <= TOLERANCE * _coarseness(self.model)).all())


GREEDY: Mapping[str, Any] = {
    "do_sample": False,
    "num_beams": 1,
    "temperature": None,
    "top_p": None,
    "top_k": None,
    "use_cache": True,
}


@contextlib.contextmanager
def plain_generation(model: Any) -> Iterator[None]:
    """Hide the generation settings of a model's own file, except its special tokens.

    `generate` takes every setting from there that a call omits, such as `top_k: 1`.
    """
    models: tuple[Any, ...] = (model, getattr(model, "base_model", None))
    owners = [owner for owner in models if hasattr(owner, "generation_config")]
    saved = [owner.generation_config for owner in owners]
    names = ("bos_token_id", "eos_token_id", "pad_token_id")
    for owner, settings in zip(owners, saved, strict=True):
        tokens = {name: getattr(settings, name, None) for name in names}
        owner.generation_config = GenerationConfig(**tokens)
    try:
        yield
    finally:
        for owner, settings in zip(owners, saved, strict=True):
            owner.generation_config = settings


def _is_per_token(value: Any, inputs: Mapping[str, Any]) -> bool:
    """Return whether an input has one entry per token of the padded prompts."""
    return isinstance(value, Tensor) and value.shape[:2] == inputs["input_ids"].shape


def _coarseness(model: Any) -> float:
    """Return by how much the weights' number format is coarser than float32, at most 100."""
    dtype = next(model.parameters()).dtype
    return 1.0 if dtype in (torch.float32, torch.float64) else 100.0


def repeat_positions(model: Any, batch: int, count: int) -> None:
    """Repeat what models with multimodal positions keep of a batch outside of its cache."""
    for module in model.modules():
        deltas = getattr(module, "rope_deltas", None)
        if isinstance(deltas, Tensor) and deltas.shape[0] == batch:
            module.rope_deltas = deltas.repeat_interleave(count, 0)

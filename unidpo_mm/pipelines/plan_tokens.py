"""Lengths of prompts and responses for `--plan`, from tokenizer and processor alone."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from ..adapter import AdapterOptions
from ..config.recipe import ModelSection
from ..errors import DataError
from ..inference.checkpoint import find_checkpoint
from ..modeling.families import family_for
from ..modeling.load import ModelSource, load_adapter, load_config
from ..records import NO_RESPONSE
from .load import Making
from .pilot import Pilot
from .prompt_set import MadePrompt

__all__ = ["Estimate", "PromptLengths", "measure_prompts", "response_tokens"]

MEASURED = 200
"""Number of prompts that are encoded, unless all are."""
Z = 1.96
"""Standard errors on each side of a mean that make a 95 % interval."""


@dataclass(frozen=True)
class Estimate:
    """A mean with a 95 % interval, from a sample of all items.

    Attributes:
        mean: The mean.
        error: Half of the width of the interval; 0 if all items were measured.
        measured: Number of measured items.
    """

    mean: float
    error: float
    measured: int

    @classmethod
    def of(cls, values: Sequence[float], population: int) -> "Estimate":
        """Return the estimate from at least one value.

        Args:
            values: The measured values.
            population: Number of all items, of which these are a random sample.
        """
        rest = max(1 - len(values) / population, 0.0)  # of a finite population
        if len(values) < 2:
            return cls(fmean(values), math.inf if rest else 0.0, len(values))
        error = Z * stdev(values) / math.sqrt(len(values)) * math.sqrt(rest)
        return cls(fmean(values), error, len(values))

    def total(self, items: int) -> str:
        """Return the total of a number of items as text, with its interval."""
        low, high = (max(self.mean + sign * self.error, 0) * items for sign in (-1, 1))
        text = f"{self.mean * items:,.0f}"
        if not self.error:
            return text
        if not math.isfinite(high):
            return f"about {text}"
        return f"{text} (95 % interval {low:,.0f} to {high:,.0f})"


@dataclass(frozen=True, kw_only=True)
class PromptLengths:
    """Lengths of measured prompts.

    Attributes:
        tokens: Tokens per prompt, with those of images; `None` if no prompt can be encoded.
        longest: Tokens of the longest measured prompt.
        too_long: Share of the measured prompts that leave no room for the new tokens.
        limit: Maximum number of tokens of a prompt; `None` if the model has no limit.
        invalid: Number of measured prompts that cannot be encoded.
        message: Why the first of them cannot.
        responses: Tokens per response of the sources; `None` without such responses.
    """

    tokens: Estimate | None
    longest: int
    too_long: float
    limit: int | None
    invalid: int
    message: str
    responses: Estimate | None


def measure_prompts(
    making: Making, prompts: Sequence[MadePrompt], *, exact: bool = False
) -> PromptLengths | None:
    """Encode some or all prompts; return `None` if the recipe has no model.

    The prompts to measure are drawn by their content, so that their order does not matter.

    Args:
        making: The recipe.
        prompts: All prompts.
        exact: Whether to encode all of them.
    """
    model = making.recipe.model
    if model is None:
        return None
    config, adapter = _load(model)
    drawn = sorted(prompts, key=lambda prompt: prompt.digest)
    sample = drawn if exact else drawn[:MEASURED]
    lengths, messages = [], []
    for prompt in sample:
        try:
            lengths.append(adapter.encode_prompt(prompt.question).prompt_ids.numel())
        except DataError as error:
            messages.append(str(error))
    limit = getattr(config.get_text_config(), "max_position_embeddings", None)
    room = None if limit is None else limit - making.recipe.sample.max_new_tokens
    too_long = 0 if room is None else sum(length > room for length in lengths)
    return PromptLengths(
        tokens=Estimate.of(lengths, len(prompts)) if lengths else None,
        longest=max(lengths, default=0),
        too_long=too_long / max(len(sample), 1),
        limit=room,
        invalid=len(messages),
        message=messages[0] if messages else "",
        responses=_source_responses(adapter.tokenizer, sample, prompts),
    )


def response_tokens(
    making: Making, lengths: PromptLengths | None, pilot: Pilot | None
) -> tuple[Estimate | None, str]:
    """Return the expected tokens per response, and what they are known from.

    Args:
        making: The recipe.
        lengths: The measured lengths.
        pilot: A pilot with the same settings; `None` without one.
    """
    sampled = making.recipe.sample.responses != "given"
    if sampled and pilot is not None and pilot.new_tokens:
        values = pilot.new_tokens
        return Estimate.of(values, max(10**9, len(values))), f"{len(values):,} prompts of the pilot"
    if lengths is not None and lengths.responses is not None:
        return lengths.responses, "responses of the sources"
    return None, ""


def _load(model: ModelSection) -> tuple[Any, Any]:
    """Return the configuration of a model and its adapter, without weights."""
    checkpoint = find_checkpoint(model.name_or_path, with_hash=False)
    config = load_config(ModelSource(name_or_path=checkpoint.base))
    source = ModelSource(name_or_path=checkpoint.processor)
    options = AdapterOptions(
        prompt_style=model.prompt_style,
        image_min_size=model.image_min_size,
        image_max_size=model.image_max_size,
        video_max_pixels=model.video_max_pixels,
        chat_template_kwargs=model.chat_template_kwargs or {},
    )
    return config, load_adapter(source, options, config=config, family=family_for(config))


def _source_responses(
    tokenizer: Any, sample: Iterable[MadePrompt], prompts: Sequence[MadePrompt]
) -> Estimate | None:
    texts = [response.text for prompt in sample for response in prompt.row.responses]
    texts = [text for text in texts if text != NO_RESPONSE]
    if not texts:
        return None
    ids = tokenizer(texts, add_special_tokens=False)["input_ids"]
    population = sum(len(prompt.row.responses) for prompt in prompts)
    return Estimate.of([float(len(item)) for item in ids], population)

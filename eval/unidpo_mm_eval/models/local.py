"""A model in this process that generates responses, halving a batch when memory runs out."""

import gc
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch

from unidpo_mm.adapter import Adapter, AdapterOptions
from unidpo_mm.errors import DataError, Problem, RecipeError
from unidpo_mm.plugins import suggestion
from unidpo_mm.reasoning import is_reasoning_token, strip_reasoning
from unidpo_mm.records import EncodedGroup, PreferenceRow
from unidpo_mm.training.generation import Answer, greedy_answers

from ..protocols import Decoding, Pixels

STYLES = ("auto", "chat", "raw")
Style = Literal["chat", "raw"]


@dataclass(frozen=True)
class LocalModel:
    """A model in this process."""

    model: Any
    adapter: Adapter
    decoding: Decoding
    device: Any

    def encode(self, row: PreferenceRow) -> EncodedGroup | str:
        """Encode a prompt, or return why it cannot be encoded."""
        try:
            return self.adapter.encode_prompt(row)
        except DataError as error:
            return str(error)

    def generate(self, prompts: Sequence[EncodedGroup]) -> list[Answer | str]:
        """Generate responses; if memory runs out, from halves; for one prompt, return the error."""
        try:
            return list(
                greedy_answers(
                    self.model,
                    ReasoningAdapter(self.adapter),
                    prompts,
                    device=self.device,
                    **asdict(self.decoding),
                )
            )
        except (torch.OutOfMemoryError, MemoryError):
            pass  # the halves run outside of the handler, which keeps the tensors alive
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if len(prompts) == 1:
            return ["out of memory for a single prompt"]
        half = len(prompts) // 2
        return [*self.generate(prompts[:half]), *self.generate(prompts[half:])]

    def describe_prompt(self, row_id: str, prompt: EncodedGroup) -> dict[str, Any]:
        """Return a prompt as text with special tokens, and as token ids."""
        tokenizer = getattr(self.adapter.processor, "tokenizer", self.adapter.processor)
        ids = prompt.prompt_ids.tolist()
        text = tokenizer.decode(ids)
        if prompt.images.token_id is not None:  # one number in place of the repeated token
            token = re.escape(str(tokenizer.decode([prompt.images.token_id])))
            text = re.sub(rf"(?:{token}\s?)+", f"[{prompt.images.tokens} image tokens]", text)
        return {"id": row_id, "text": text, "ids": ids}


class ReasoningAdapter:
    """An adapter that keeps reasoning tags which are special tokens of the tokenizer.

    Decoding skips special tokens. If the reasoning tags are special, reasoning and answer become
    one text that no protocol can separate.
    """

    def __init__(self, adapter: Adapter) -> None:
        self.adapter = adapter
        tokenizer: Any = getattr(adapter.processor, "tokenizer", adapter.processor)
        added = getattr(tokenizer, "added_tokens_decoder", {})
        special = {
            int(n): str(token) for n, token in added.items() if getattr(token, "special", False)
        }
        self.tokenizer = tokenizer
        self.tags = {n for n, text in special.items() if is_reasoning_token(text)}
        self.others = [text for n, text in special.items() if n not in self.tags]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.adapter, name)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of generated ids with its reasoning tags."""
        if self.tags.isdisjoint(ids):
            return self.adapter.decode(ids)
        text = str(self.tokenizer.decode(ids, skip_special_tokens=False))
        for token in self.others:
            text = text.replace(token, "")
        if not strip_reasoning(text).blocks:  # not used as a tag here, for example an end of turn
            return self.adapter.decode(ids)
        return text.strip()


def prompt_style(processor: Any, style: str) -> Style:
    """Return ``chat`` or ``raw``; ``auto`` means chat if there is a chat template."""
    if style not in STYLES:
        text = f"unknown style '{style}'{suggestion(style, STYLES)}"
        raise RecipeError(Problem("--style", text, f"Choose one of {', '.join(STYLES)}"))
    if style == "auto":
        tokenizer = getattr(processor, "tokenizer", processor)
        template = getattr(processor, "chat_template", None) or tokenizer.chat_template
        return "chat" if template else "raw"
    return "chat" if style == "chat" else "raw"


def adapter_options(style: Style, pixels: Pixels, variables: Any) -> AdapterOptions:
    """Return the options with which prompts of an evaluation are encoded."""
    return AdapterOptions(
        prompt_style=style,
        image_min_pixels=pixels.min_pixels,
        image_max_pixels=pixels.max_pixels,
        chat_template_kwargs=variables,
    )

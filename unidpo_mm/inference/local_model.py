"""A model in this process that generates responses, halving a batch when memory runs out."""

import dataclasses
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from ..adapter import Adapter
from ..encoding_choices import PromptStyle
from ..errors import DataError, Problem, RecipeError
from ..plugins import suggestion
from ..reasoning import is_reasoning_token, strip_reasoning
from ..records import EncodedGroup, PreferenceRow
from .decoding import Decoding, Sampling
from .generation import GeneratedResponse, end_tokens, generate_responses
from .memory import run_in_parts
from .streaming import ResponseStreamer

__all__ = ["LocalModel", "ReasoningAdapter", "Style", "prompt_style"]

STYLES = get_args(PromptStyle)
Style = Literal["chat", "raw"]


@dataclass(frozen=True)
class LocalModel:
    """A model in this process.

    Attributes:
        model: The model, in evaluation mode.
        adapter: The adapter of its family, which encodes the prompts.
        decoding: How responses are generated.
        device: The device of the model.
    """

    model: Any
    adapter: Adapter
    decoding: Decoding
    device: Any

    @property
    def reasoning_adapter(self) -> Any:
        """The adapter, which keeps reasoning tags when it decodes."""
        return ReasoningAdapter(self.adapter)

    def encode(self, row: PreferenceRow) -> EncodedGroup | str:
        """Encode a prompt, or return why it cannot be encoded."""
        try:
            return self.adapter.encode_prompt(row)
        except DataError as error:
            return str(error)

    def generate(self, prompts: Sequence[EncodedGroup]) -> list[GeneratedResponse | str]:
        """Generate responses, from halves if memory runs out; for a single prompt, an error."""
        adapter = self.reasoning_adapter

        def generate(batch: Sequence[EncodedGroup]) -> list[GeneratedResponse | str]:
            model, decoding, device = self.model, self.decoding, self.device
            return [*generate_responses(model, adapter, batch, decoding, device=device)]

        return run_in_parts(generate, prompts, lambda _: "out of memory for a single prompt")

    def stream(
        self,
        prompt: EncodedGroup,
        write: Callable[[str], None],
        *,
        sampling: Sampling | None = None,
        max_new_tokens: int | None = None,
    ) -> GeneratedResponse:
        """Generate one response, and pass its text on while it is generated.

        Args:
            prompt: The encoded prompt.
            write: Called with each new piece of the text.
            sampling: How tokens are drawn; `None` for greedy decoding.
            max_new_tokens: Maximum number of tokens; `None` for that of `decoding`.

        Raises:
            DataError: If memory runs out.
        """
        adapter = self.reasoning_adapter
        decoding = self.decoding
        if max_new_tokens is not None:
            decoding = dataclasses.replace(decoding, max_new_tokens=max_new_tokens)
        ends, _ = end_tokens(self.model, adapter.tokenizer, decoding.stop)

        def run(prompts: Sequence[EncodedGroup]) -> list[GeneratedResponse | str]:
            return [
                *generate_responses(
                    self.model,
                    adapter,
                    prompts,
                    decoding,
                    device=self.device,
                    sampling=sampling,
                    streamer=ResponseStreamer(adapter.decode_part, ends, write),
                )
            ]

        (response,) = run_in_parts(run, [prompt], lambda _: "memory ran out")
        if isinstance(response, str):
            remedy = "Shorten the conversation, use smaller images or fewer new tokens"
            raise DataError(Problem("prompt", response, remedy))
        return response

    def describe_prompt(self, row_id: str, prompt: EncodedGroup) -> dict[str, Any]:
        """Return a prompt as text with special tokens, and as token ids."""
        tokenizer = getattr(self.adapter.processor, "tokenizer", self.adapter.processor)
        ids = prompt.prompt_ids.tolist()
        text = tokenizer.decode(ids)
        for kind, media in prompt.media.items():
            if media.token_id is not None:  # one number in place of the repeated token
                token = re.escape(str(tokenizer.decode([media.token_id])))
                text = re.sub(rf"(?:{token}\s?)+", f"[{media.tokens} {kind} tokens]", text)
        return {"id": row_id, "text": text, "ids": ids}


class ReasoningAdapter:
    """An adapter that keeps reasoning tags which are special tokens of the tokenizer.

    Decoding skips special tokens. If the reasoning tags are special, reasoning and answer become
    one text that nothing can separate later.
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
        text = self._with_tags(ids)
        if not strip_reasoning(text).blocks:  # not used as a tag here, for example an end of turn
            return self.adapter.decode(ids)
        return text.strip()

    def decode_part(self, ids: Sequence[int]) -> str:
        """Return the text of the first tokens of a response, with reasoning tags and whitespace."""
        if self.tags.isdisjoint(ids):
            return str(self.tokenizer.decode(ids, skip_special_tokens=True))
        return self._with_tags(ids)

    def _with_tags(self, ids: Sequence[int]) -> str:
        """Return the text with all special tokens removed except reasoning tags."""
        text = str(self.tokenizer.decode(ids, skip_special_tokens=False))
        for token in self.others:
            text = text.replace(token, "")
        return text


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

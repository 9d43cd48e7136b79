"""Decoding of generated ids for scoring: reasoning tags stay, other special tokens do not."""

from collections.abc import Sequence
from typing import Any

from unidpo_mm.adapter import Adapter
from unidpo_mm.reasoning import is_reasoning_token, strip_reasoning

__all__ = ["KeepsReasoning"]


class KeepsReasoning:
    """An adapter that keeps reasoning tags which the tokenizer counts among its special tokens.

    A tokenizer leaves special tokens out. If its reasoning tags are special, thoughts and answer
    become one text that no protocol can take apart.

    Args:
        adapter: The adapter; everything but `decode` is its own.
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
        """Return the text of generated ids, with its reasoning tags."""
        if self.tags.isdisjoint(ids):
            return self.adapter.decode(ids)
        text = str(self.tokenizer.decode(ids, skip_special_tokens=False))
        for token in self.others:
            text = text.replace(token, "")
        if not strip_reasoning(text).blocks:  # the token is no tag here, as an end of turn is
            return self.adapter.decode(ids)
        return text.strip()

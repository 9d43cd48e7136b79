"""Stream the text of a response while it is generated."""

from collections.abc import Callable, Sequence, Set
from typing import Any

from transformers import TextStreamer

__all__ = ["ResponseStreamer"]


class ResponseStreamer(TextStreamer):
    """A streamer that passes complete words to a function and strips leading whitespace.

    Args:
        decode: Converts token ids to text.
        ends: Ids of tokens that end a response and are not part of its text.
        write: Called with each new piece of text.
    """

    def __init__(
        self,
        decode: Callable[[Sequence[int]], str],
        ends: Set[int],
        write: Callable[[str], None],
    ) -> None:
        super().__init__(_Decoder(decode, ends), skip_prompt=True)  # type: ignore[arg-type]
        self._write = write
        self._started = False

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """Write a piece of text; called by transformers."""
        if not self._started:
            text = text.lstrip()
        if text:
            self._started = True
            self._write(text)


class _Decoder:
    """A minimal tokenizer: `TextStreamer` only calls `decode`."""

    def __init__(self, decode: Callable[[Sequence[int]], str], ends: Set[int]) -> None:
        self._decode, self._ends = decode, ends

    def decode(self, ids: Sequence[int], **_: Any) -> str:
        return self._decode([token for token in ids if token not in self._ends])

"""A conversation with a model, whose history is rendered and encoded as in training."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import DataError, Problem, RowTooLong
from ..records import (
    NO_RESPONSE,
    EncodedGroup,
    ImageRef,
    MediaSlot,
    Message,
    PreferenceRow,
    Response,
    VideoRef,
)
from .decoding import Sampling
from .local_model import LocalModel, Style

__all__ = ["Conversation", "Reply"]

RESERVED_SHARE = 0.25
"""Maximum share of the maximum length that is reserved for the response."""


@dataclass(frozen=True)
class Reply:
    """A response in a conversation.

    Attributes:
        text: The response.
        finish_reason: ``stop`` if the response is complete; ``length`` if it reached the maximum
            number of new tokens; ``interrupted`` if the user interrupted it.
        dropped: Number of messages that were dropped from the history to make room.
        max_new_tokens: Maximum number of tokens of this response.
    """

    text: str
    finish_reason: str
    dropped: int
    max_new_tokens: int


@dataclass(frozen=True)
class _Turn:
    message: Message
    images: tuple[ImageRef, ...] = ()
    videos: tuple[VideoRef, ...] = ()


@dataclass
class Conversation:
    """A conversation with one model.

    Attributes:
        name: Name of the model.
        model: The model, whose adapter renders and encodes prompts.
        style: ``chat`` renders the history with the chat template; ``raw`` continues each message
            as plain text, without a history.
        max_length: Maximum number of tokens of prompt and response; `None` if there is no limit.
        system: The system message; empty if there is none.
    """

    name: str
    model: LocalModel
    style: Style
    max_length: int | None = None
    system: str = ""
    _turns: list[_Turn] = field(default_factory=list)

    def reset(self) -> None:
        """Remove all messages except the system message."""
        self._turns = []

    def respond(
        self,
        text: str,
        images: Sequence[ImageRef] = (),
        videos: Sequence[VideoRef] = (),
        *,
        write: Callable[[str], None],
        sampling: Sampling | None = None,
    ) -> Reply:
        """Generate the response to a message and add both to the history.

        If the response is interrupted (`KeyboardInterrupt`), the generated part stays in the
        history. An error leaves the history unchanged.

        Args:
            text: The message.
            images: Its images, which precede the text.
            videos: Its videos, which follow the images.
            write: Called with each new piece of the response.
            sampling: How tokens are drawn; `None` for greedy decoding.

        Raises:
            DataError: If the message cannot be encoded, is too long, or memory runs out.
        """
        slots = (MediaSlot("image"),) * len(images) + (MediaSlot("video"),) * len(videos)
        turn = _Turn(Message("user", (*slots, text)), tuple(images), tuple(videos))
        turns = [turn] if self.style == "raw" else [*self._turns, turn]
        turns, prompt, dropped = self._fit(turns)
        limit = self._max_new_tokens(prompt)
        pieces: list[str] = []

        def write_and_keep(piece: str) -> None:
            pieces.append(piece)
            write(piece)

        try:
            response = self.model.stream(
                prompt, write_and_keep, sampling=sampling, max_new_tokens=limit
            )
            reply = Reply(response.text, response.finish_reason, dropped, limit)
        except KeyboardInterrupt:
            reply = Reply("".join(pieces).rstrip(), "interrupted", dropped, limit)
        if reply.text or reply.finish_reason != "interrupted":
            self._turns = [*turns, _Turn(Message("assistant", (reply.text,)))]
        else:
            self._turns = turns[:-1]
        return reply

    def _fit(self, turns: list[_Turn]) -> tuple[list[_Turn], EncodedGroup, int]:
        """Drop the oldest turns until there is room for a response.

        A message is dropped together with its response.

        Returns:
            The remaining turns, their encoded prompt, and the number of dropped messages.

        Raises:
            DataError: If the last message alone leaves no room.
        """
        total = len(turns)
        while True:
            try:
                prompt = self._encode(turns)
                fits = self._fits(prompt, alone=len(turns) == 1)
            except RowTooLong:
                fits = False
            if fits:
                return turns, prompt, total - len(turns)
            if len(turns) == 1:
                raise DataError(self._too_long())
            turns = turns[2:]

    def _encode(self, turns: Sequence[_Turn]) -> EncodedGroup:
        raw = self.style == "raw"
        system = [Message("system", (self.system,))] if self.system and not raw else []
        images = tuple(image for turn in turns for image in turn.images)
        videos = tuple(video for turn in turns for video in turn.videos)
        row = PreferenceRow(
            id="chat",
            domain="multimodal" if images or videos else "text",
            source="chat",
            where="conversation",
            messages=(*system, *(turn.message for turn in turns)),
            images=images,
            videos=videos,
            responses=(Response(NO_RESPONSE),),
            raw=raw,
        )
        adapter: Any = self.model.adapter
        prompt: EncodedGroup = adapter.encode_prompt(row)
        check = getattr(adapter, "check_fit", None)  # adapters of other packages may lack it
        if check is not None:
            check(row, prompt)
        return prompt

    def _fits(self, prompt: EncodedGroup, *, alone: bool) -> bool:
        """Return whether a prompt leaves room for a response.

        Args:
            prompt: The prompt.
            alone: Whether it has a single message, so that room for one token is enough.
        """
        if self.max_length is None:
            return True
        reserved = min(self.model.decoding.max_new_tokens, int(self.max_length * RESERVED_SHARE))
        room = self.max_length - prompt.prompt_ids.numel()
        return room >= (1 if alone else max(reserved, 1))

    def _max_new_tokens(self, prompt: EncodedGroup) -> int:
        limit = self.model.decoding.max_new_tokens
        if self.max_length is None:
            return limit
        return min(limit, self.max_length - prompt.prompt_ids.numel())

    def _too_long(self) -> Problem:
        return Problem(
            "message",
            f"the message exceeds the maximum length of '{self.name}', {self.max_length} tokens",
            "Shorten it, or use fewer or smaller images or shorter videos",
        )

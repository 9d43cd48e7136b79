"""A model behind a server that generates responses, many at once."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

from ..errors import DataError
from ..records import MediaSlot, PreferenceRow
from .endpoint import ChatClient, ChatFailure, ChatMessage
from .messages import data_url, image_part, video_part
from .prompts import Prompt
from .store import ResponseStore

__all__ = ["ServedModel", "messages_of", "request_all"]


class ServedModel:
    """A model behind a URL, with the sampling parameters of every request."""

    def __init__(self, client: ChatClient, sampling: Mapping[str, Any]) -> None:
        self.client, self.sampling = client, sampling

    def record(self, prompt: Prompt) -> dict[str, Any]:
        """Return the record of the response to a prompt.

        Raises:
            ChatFailure: If there is no response, except that a refusal is recorded.
        """
        assert prompt.row is not None
        record: dict[str, Any] = {"id": prompt.id, "response": ""}
        try:
            reply = self.client.chat(messages_of(prompt.row), **self.sampling)
        except DataError as error:  # an image or a video cannot be read
            return {**record, "error": str(error)}
        except ChatFailure as failure:
            if failure.kind != "refused":
                raise
            return {**record, "error": str(failure)}
        record |= {"response": reply.text, "finish_reason": reply.finish_reason}
        return record | {"new_tokens": reply.new_tokens, **prompt.record()}


def request_all(
    model: ServedModel,
    prompts: Sequence[Prompt],
    store: ResponseStore,
    *,
    concurrency: int,
    on_reply: Callable[[], None] = lambda: None,
) -> list[ChatFailure]:
    """Request responses, store them as they arrive, and return the failures.

    A server that fails during a run therefore loses no response.
    """
    failures: list[ChatFailure] = []
    with ThreadPoolExecutor(concurrency) as threads:
        futures = [threads.submit(model.record, prompt) for prompt in prompts]
        try:
            for future in as_completed(futures):
                try:
                    store.add([future.result()])
                except ChatFailure as failure:
                    failures.append(failure)
                on_reply()
        except BaseException:  # a signal, or a wrong key: send no further requests
            running = [future for future in futures if not future.cancel()]
            for future in as_completed(running):
                if not future.exception() and future.result()["id"] not in store.done:
                    store.add([future.result()])
            raise
    return failures


def messages_of(row: PreferenceRow) -> list[ChatMessage]:
    """Return the prompt of a row in OpenAI's format: the same text and media in the same order."""
    media = {
        "image": (image_part(data_url(image)) for image in row.images),
        "video": (video_part(video, row.where) for video in row.videos),
    }
    turns: list[ChatMessage] = []
    for message in row.messages:
        parts = [
            next(media[part.kind])
            if isinstance(part, MediaSlot)
            else {"type": "text", "text": part}
            for part in message.parts
        ]
        plain = len(parts) == 1 and isinstance(message.parts[0], str)
        turns.append({"role": message.role, "content": message.parts[0] if plain else parts})
    return turns

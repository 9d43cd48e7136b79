"""A model behind a server that generates responses, many at once."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar

from ..errors import DataError
from ..records import MediaSlot, PreferenceRow
from .endpoint import ChatClient, ChatFailure, ChatMessage
from .messages import data_url, image_part, video_part
from .prompts import Prompt
from .store import ResponseStore

__all__ = ["ServedModel", "messages_of", "request_all", "request_each"]

Item = TypeVar("Item")
Records = Sequence[Mapping[str, Any]]


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
    """Request a response to every prompt, store them as they arrive, and return the failures.

    Args:
        model: The model.
        prompts: The prompts.
        store: Where the responses are stored.
        concurrency: Maximum number of simultaneous requests.
        on_reply: Called after each response and each failure.
    """
    return request_each(
        lambda prompt: [model.record(prompt)],
        deque(prompts),
        store,
        concurrency=concurrency,
        on_reply=lambda count: on_reply(),
    )


def request_each(
    request: Callable[[Item], Records],
    queue: "deque[Item]",
    store: ResponseStore,
    *,
    concurrency: int,
    on_reply: Callable[[int], None] = lambda count: None,
) -> list[ChatFailure]:
    """Send a request for every item, store the records as they arrive, and return the failures.

    A server that fails during a run therefore loses no response.

    Args:
        request: Sends the request for an item and returns the records of its responses. It may
            append further items to the queue.
        queue: The items, which are removed.
        store: Where the records are stored.
        concurrency: Maximum number of simultaneous requests.
        on_reply: Called with the number of stored records after each reply and each failure.
    """
    failures: list[ChatFailure] = []
    pending: set[Future[Records]] = set()
    with ThreadPoolExecutor(concurrency) as threads:
        try:
            while queue or pending:
                while queue and len(pending) < 2 * concurrency:  # so that no thread waits
                    pending.add(threads.submit(request, queue.popleft()))
                for future in wait(pending, return_when=FIRST_COMPLETED).done:
                    records: Records = ()
                    try:
                        records = future.result()
                    except ChatFailure as failure:
                        failures.append(failure)
                    else:
                        store.add(records)
                    pending.discard(future)
                    on_reply(len(records))
        except BaseException:  # a signal, or a wrong key: send no further requests
            for future in [future for future in pending if not future.cancel()]:
                if not future.exception():
                    store.add([item for item in future.result() if item["id"] not in store.done])
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

"""Check servers with a few prompts before a run, so that no useless responses are paid for.

A server may take greedy decoding from the model's settings, so that all responses to a prompt are
equal; it may return one choice where several are requested; ignore images; or serve another model.
The requests are those of the run, so that usable responses are kept.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

from PIL import Image

from ..data.images import MemoryImage
from ..errors import DataError, Problem, RecipeError
from ..inference.endpoint import ChatFailure, ChatReplies
from .served_requests import Block, Record, SampleRequests, with_images, without_images
from .servers import Server, Servers, no_reply

__all__ = ["probe"]

PROMPTS = 8
"""Maximum number of prompts per server."""
MIN_PROMPTS = 3
"""Minimum number of prompts from which equal responses are the server's fault."""
PAIR = 2
"""Number of responses to a prompt that are compared."""
HOT = 2.0
"""Temperature at which even a confident model gives different responses; OpenAI's maximum."""
OTHER_SIZE = (252, 140)
"""Width and height of the image that replaces those of a prompt, in pixels."""

Replies = list[tuple[Block, ChatReplies]]


def probe(servers: Servers, requests: SampleRequests, blocks: Sequence[Block]) -> list[Record]:
    """Check all servers and return the records of usable responses.

    Args:
        servers: The servers; those that do not reply get no further requests, and `single` is set
            if one of them needs it.
        requests: The requests of the run.
        blocks: The missing responses.

    Raises:
        UniDPOError: If responses would be useless, or no server replies.
    """
    usable: Replies = []
    failure: ChatFailure | None = None
    for server in servers.alive:
        chosen = islice(_blocks_of(server, servers, blocks), PROMPTS)
        check = _ServerCheck(server, servers, requests)
        try:
            usable += check.run([*chosen])
        except ChatFailure as error:
            server.alive, failure = False, error
    if failure is not None and not servers.alive:
        raise no_reply(servers.items, failure)
    return [record for block, replies in usable for record in requests.records(block, replies)]


def _blocks_of(server: Server, servers: Servers, blocks: Sequence[Block]) -> Iterator[Block]:
    """Yield the first missing responses to each prompt of a server, at most two."""
    prompts: set[str] = set()
    several = [block for block in blocks if block.count >= PAIR]
    for block in several or blocks:  # of a single one, the second response is not used
        prompt = block.prompt
        if prompt.id not in prompts and servers.server_of(prompt) is server:
            prompts.add(prompt.id)
            yield block.part(0, min(block.count, PAIR))


class _ServerCheck:
    """The check of one server."""

    def __init__(self, server: Server, servers: Servers, requests: SampleRequests) -> None:
        self.server, self.servers, self.requests = server, servers, requests

    def run(self, blocks: Sequence[Block]) -> Replies:
        """Return the usable replies.

        Raises:
            ChatFailure: If the server does not reply.
            RecipeError: If its responses would be useless.
        """
        if self.requests.fields["temperature"] == 0:
            replies = self._ask(blocks)
            self._check_images(replies)
            return replies
        counts = {block.prompt.id: block.count for block in blocks}
        replies = self._pairs([Block(block.prompt, block.first, PAIR) for block in blocks])
        self._check_images(replies)
        if any(len(pair.choices) < PAIR for _, pair in replies):
            self.servers.single = True
            replies = self._joined(replies)
        if len(replies) >= MIN_PROMPTS and _all_equal(replies):
            replies = self._check_equal(replies)
        return [(block.part(0, counts[block.prompt.id]), reply) for block, reply in replies]

    def _check_equal(self, replies: Replies) -> Replies:
        """Return usable ones of replies that are equal for every prompt.

        Raises:
            RecipeError: If they are equal at a high temperature, too.
        """
        blocks = [block for block, _ in replies]
        if not _all_equal(self._pairs(blocks, temperature=HOT)):
            return replies  # the model is certain of its responses
        if not self.servers.single:
            self.servers.single = True  # it may give every choice the same seed
            if not _all_equal(self._pairs(blocks, temperature=HOT)):
                return [(block, _first(reply)) for block, reply in replies]
        text = f"{self.server.client.address} gives equal responses to a prompt at any temperature"
        remedy = (
            "Start vLLM with --generation-config vllm, because the model's own settings may "
            "contain top_k 1; for transformers serve, set do_sample to true in these settings; and "
            "check sample.top_k and sample.top_p"
        )
        raise RecipeError(Problem("sample.server", text, remedy))

    def _check_images(self, replies: Replies) -> None:
        """Raise an error if responses depend on no image."""
        with_image = [(block, reply) for block, reply in replies if block.prompt.row.images]
        for block, reply in with_image:
            expected = _first(reply) if self.servers.single else reply
            images = [_other_image()] * len(block.prompt.row.images)
            prompt = with_images(block.prompt, images)
            other, _ = self._send([(Block(prompt, block.first, len(expected.choices)), {})])
            if not other or _content(other[0][1]) != _content(expected):
                return
        if not with_image or self._counts_images(*with_image[-1]):
            return
        text = f"{self.server.client.address} gives the same responses to different images"
        remedy = "Serve a model that takes images, with a program that passes them to it"
        raise RecipeError(Problem("sample.server", text, remedy))

    def _counts_images(self, block: Block, reply: ChatReplies) -> bool:
        """Return whether a prompt has more tokens than its text."""
        messages = without_images(self.requests.body(block)["messages"])
        answered, _ = self._send([(block.part(0, 1), {"messages": messages, "max_tokens": 1})])
        tokens = answered[0][1].prompt_tokens if answered else None
        return tokens is not None and tokens < (reply.prompt_tokens or 0)

    # ---- requests ----

    def _pairs(self, blocks: Sequence[Block], **changes: Any) -> Replies:
        """Return two responses to every prompt, from one request or, if need be, from two."""
        if not self.servers.single:
            return self._ask(blocks, **changes)
        return self._joined(self._ask([block.part(0, 1) for block in blocks], **changes), **changes)

    def _joined(self, replies: Replies, **changes: Any) -> Replies:
        """Return the first of some responses and a second one, from a request of its own."""
        blocks = [Block(block.prompt, block.first + 1, 1) for block, _ in replies]
        second = {block.prompt.id: reply for block, reply in self._ask(blocks, **changes)}
        return [
            (
                Block(block.prompt, block.first, PAIR),
                ChatReplies(
                    (first.choices[0], second[block.prompt.id].choices[0]), first.prompt_tokens
                ),
            )
            for block, first in replies
            if block.prompt.id in second
        ]

    def _ask(self, blocks: Sequence[Block], **changes: Any) -> Replies:
        """Return the replies to requests; those that concern a prompt alone are omitted.

        Raises:
            ChatFailure: If no request is answered.
            RecipeError: If the server refuses all of them.
        """
        replies, failures = self._send([(block, changes) for block in blocks])
        if not replies and failures and all(item.kind == "refused" for item in failures):
            single = [(block.part(0, 1), changes) for block in blocks]
            replies, failures = self._send(single)  # some servers refuse several choices
        if replies or not failures:
            return replies
        temporary = [failure for failure in failures if failure.kind != "refused"]
        raise temporary[0] if temporary else self._refused(failures[0])

    def _send(
        self, items: Sequence[tuple[Block, dict[str, Any]]]
    ) -> tuple[Replies, list[ChatFailure]]:
        """Return the replies to requests with changed fields, and the failures of others."""

        def send(item: tuple[Block, dict[str, Any]]) -> ChatReplies | ChatFailure | None:
            block, changes = item
            try:
                return self.server.request(self.requests.body(block, **changes))
            except ChatFailure as failure:
                return failure
            except DataError:
                return None  # the run records it

        with ThreadPoolExecutor(min(PROMPTS, self.servers.concurrency)) as threads:
            results = [*threads.map(send, items)]
        replies = [
            (block, result)
            for (block, _), result in zip(items, results, strict=True)
            if isinstance(result, ChatReplies)
        ]
        return replies, [result for result in results if isinstance(result, ChatFailure)]

    def _refused(self, failure: ChatFailure) -> RecipeError:
        client = self.server.client
        text = f"{client.address} refuses every request ({failure.message})"
        try:
            names = client.models()
        except ChatFailure:
            names = []
        if client.model in names or not names:
            return RecipeError(Problem("sample.server", text, "Check the model and the prompts"))
        remedy = f"The server lists {', '.join(names[:PROMPTS])}: use the name of one of them"
        return RecipeError(Problem("sample.server.model", text, remedy))


def _all_equal(replies: Replies) -> bool:
    return all(len({choice.text for choice in reply.choices}) == 1 for _, reply in replies)


def _first(replies: ChatReplies) -> ChatReplies:
    return ChatReplies(replies.choices[:1], replies.prompt_tokens)


def _content(replies: ChatReplies) -> tuple[list[str], int | None]:
    return [choice.text for choice in replies.choices], replies.prompt_tokens


def _other_image() -> MemoryImage:
    """Return an image that no prompt is about."""
    horizontal = Image.linear_gradient("L").resize(OTHER_SIZE)
    radial = Image.radial_gradient("L").resize(OTHER_SIZE)
    image = Image.merge(
        "RGB", (horizontal, radial, horizontal.transpose(Image.Transpose.ROTATE_180))
    )
    return MemoryImage(image, "probe")

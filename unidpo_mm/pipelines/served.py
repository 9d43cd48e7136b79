"""Sample responses from servers with OpenAI's protocol.

A server promises no equal response under another load. What is promised here is that a response is
stored as soon as it arrives, and that none is requested twice.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any

from ..distributed.processes import processes
from ..errors import DataError, Problem, RecipeError, UniDPOError, counted
from ..inference.endpoint import EXTENDED, ChatFailure
from ..inference.served_model import request_each
from ..secrets import mask_url
from .files import ResponseFile, Share
from .probe import probe
from .prompt_set import MadePrompt
from .recipe import MakeRecipe, ServerSection
from .served_requests import Block, Record, SampleRequests, faults, missing_blocks
from .servers import KIND_REMEDY, Servers, no_reply

__all__ = ["ServedSampling"]

Progress = Callable[[str, int, int], None]


class ServedSampling:
    """The sampling of a recipe from its servers.

    They are not contacted if all responses exist, as when another machine scores them.

    Args:
        recipe: The recipe.
        section: Its servers.
        store: The responses; its final file records the kind of the servers.

    Raises:
        UniDPOError: If the kind is unknown and no server replies, or if the servers do not support
            what the recipe needs.
    """

    def __init__(self, recipe: MakeRecipe, section: ServerSection, store: ResponseFile) -> None:
        self.section, self.n = section, recipe.sample.n
        self.addresses = [mask_url(url) for url in section.urls]
        self.kind: str = section.kind
        if section.kind == "auto":
            recorded = store.final_manifest() or store.part_manifest()
            self.kind = recorded.get("server", {}).get("kind") or self.servers.kind()
        self.requests = SampleRequests.of(
            recipe,
            section.model,
            where=", ".join(self.addresses),
            extended=self.kind in EXTENDED,
            remedy=KIND_REMEDY,
        )

    @cached_property
    def servers(self) -> Servers:
        """The servers.

        Raises:
            RecipeError: If a URL is invalid or the API key is missing.
        """
        return Servers.of(self.section)

    def manifest(self) -> dict[str, Any]:
        """Return what the manifest records: the fields of requests, and the servers."""
        server = {"kind": self.kind, "urls": self.addresses}
        return {"request": dict(self.requests.fields), "server": server}

    def request_missing(
        self,
        prompts: Sequence[MadePrompt],
        store: ResponseFile,
        share: Share,
        on_progress: Progress,
    ) -> None:
        """Request the responses that are not stored yet.

        Raises:
            UniDPOError: If there are several processes, if the probe shows that responses would be
                useless, or if requests fail; the other responses are stored.
        """
        if not share.works:  # the shares of others are merged
            return
        if processes().num_processes > 1:
            text = "a single process sends all requests to servers, many at once"
            remedy = "Sample without `accelerate launch` (--until sample)"
            raise RecipeError(Problem("sample.server", text, remedy))
        self._check_kind(store)
        prompts = share.of(prompts)
        total = len(prompts) * self.n

        def on_reply(count: int) -> None:
            on_progress("sample", count, total)

        blocks = [*missing_blocks(prompts, self.n, store.done)]
        on_reply(total - sum(block.count for block in blocks))
        records = probe(self.servers, self.requests, blocks)
        store.add(records)
        on_reply(len(records))
        queue = deque(self._blocks(missing_blocks(prompts, self.n, store.done)))
        count = len(queue)
        failures = request_each(
            lambda block: self._answer(block, queue),
            queue,
            store,
            concurrency=self.section.concurrency,
            on_reply=on_reply,
        )
        if failures:
            raise self._failed(failures, count)

    def _check_kind(self, store: ResponseFile) -> None:
        """Raise an error if the servers support other fields than those of earlier responses."""
        kind = self.servers.kind()
        if (kind in EXTENDED) != self.requests.extended:
            text = f"responses were made by a server of the kind '{self.kind}', now it is '{kind}'"
            before = self.kind if self.requests.extended else "openai"
            remedy = f"Use the former server, or set sample.server.kind to {before} if it is one"
            raise DataError(Problem(str(store.path), text, remedy))

    def _blocks(self, blocks: Iterable[Block]) -> Iterator[Block]:
        for block in blocks:
            yield from block.singles() if self.servers.single else [block]

    def _answer(self, block: Block, queue: "deque[Block]") -> list[Record]:
        """Return the records of a request, and queue the responses that the server omits.

        Raises:
            ChatFailure: If there is no reply, or a refusal does not concern the prompt.
        """
        prompt = block.prompt
        try:
            body = self.requests.body(block)
        except DataError as error:
            return faults(block, "prompt", str(error))
        try:
            replies = self.servers.request(prompt, body)
        except ChatFailure as failure:
            if not failure.about_prompt:
                text = f"prompt '{prompt.id}': {failure.message}"
                raise ChatFailure(failure.kind, text, status=failure.status) from failure
            if block.count == 1:
                return faults(block, "refused", failure.message)
            queue.extend(block.singles())  # it may be the number of choices that is refused
            return []
        records = self.requests.records(block, replies)
        queue.extend(block.part(len(records), block.count).singles())
        return records

    def _failed(self, failures: Sequence[ChatFailure], count: int) -> UniDPOError:
        if not self.servers.alive and len(failures) == count:
            return no_reply(self.servers.items, failures[0])
        kinds = sorted(Counter(failure.kind for failure in failures).items())
        listed = ", ".join(f"{number:,} {kind}" for kind, number in kinds)
        text = f"{counted(len(failures), 'request')} failed ({listed}), for example: {failures[0]}"
        remedy = "All other responses are stored: run the same command again to resume"
        return UniDPOError(Problem("sample.server", text, remedy))

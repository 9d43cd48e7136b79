"""The servers of a recipe: prompts are spread over them, and the others replace one that fails."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import Problem, RecipeError, UniDPOError
from ..inference.endpoint import EXTENDED, ChatClient, ChatFailure, ChatReplies
from .prompt_set import MadePrompt
from .recipe import ServerSection

__all__ = ["KIND_REMEDY", "Server", "Servers", "no_reply"]

MAX_FAILURES = 3
"""Number of consecutive failed requests after which it is checked whether a server replies."""
KIND_REMEDY = "Set sample.server.kind to vllm or sglang if it is one"
KEYS = {"URL": "sample.server.urls", "API key": "sample.server.key"}
"""Places in messages of a client -> keys of the recipe."""
DIGITS = slice(16, 28)
"""Digits of the hash of a prompt that select a server; `prompts.part` uses others."""


@dataclass
class Server:
    """A server.

    Attributes:
        client: Its client.
        failures: Number of failed requests since the last reply.
        alive: Whether it gets requests.
    """

    client: ChatClient
    failures: int = 0
    alive: bool = True

    def request(self, body: dict[str, Any]) -> ChatReplies:
        """Return the replies to a request.

        Raises:
            ChatFailure: If there is none.
            RecipeError: If the server requires another API key.
        """
        fields = {name: value for name, value in body.items() if name not in ("model", "messages")}
        try:
            replies = self.client.choices(body["messages"], **fields)
        except ChatFailure as failure:
            self._note(failure)
            raise
        except RecipeError as error:
            raise RecipeError(map(_of_recipe, error.problems)) from error
        self.failures = 0
        return replies

    def _note(self, failure: ChatFailure) -> None:
        """Find out whether a failure means that the server is dead."""
        if failure.kind == "refused":
            return
        self.failures += 1
        if failure.kind == "unreachable":
            self.alive = False
        elif self.failures % MAX_FAILURES == 0:  # some prompts may be too much for the server
            try:
                self.client.models()
            except ChatFailure:
                self.alive = False


@dataclass
class Servers:
    """All servers of a recipe.

    Attributes:
        items: The servers.
        single: Whether every request is for one response, because a server gives no further
            choices or equal ones.
        concurrency: Maximum number of simultaneous requests.
    """

    items: Sequence[Server]
    single: bool = False
    concurrency: int = 16
    _last: ChatFailure | None = None

    @classmethod
    def of(cls, section: ServerSection) -> "Servers":
        """Return the servers of a recipe.

        Raises:
            RecipeError: If a URL is invalid or the API key is missing.
        """
        servers: list[Server] = []
        problems: list[Problem] = []
        for url in section.urls:
            try:
                client = ChatClient(
                    url, section.model, section.key, server=section.kind, timeout=section.timeout
                )
                servers.append(Server(client))
            except RecipeError as error:
                problems += map(_of_recipe, error.problems)
        if problems:
            raise RecipeError(dict.fromkeys(problems))
        return cls(servers, concurrency=section.concurrency)

    @property
    def alive(self) -> list[Server]:
        """The servers that get requests."""
        return [server for server in self.items if server.alive]

    def kind(self) -> str:
        """Return the kind of the servers.

        Raises:
            UniDPOError: If none replies, or if only some support fields beyond OpenAI's.
        """
        kinds: dict[str, str] = {}
        failure: ChatFailure | None = None
        for server in self.alive:
            try:
                kinds[server.client.address] = server.client.kind()
            except ChatFailure as error:
                server.alive, failure = False, error
        if not kinds:
            assert failure is not None
            raise no_reply(self.items, failure)
        if len({kind in EXTENDED for kind in kinds.values()}) > 1:
            listed = ", ".join(f"{address} is {kind}" for address, kind in kinds.items())
            text = f"the servers support different fields of requests: {listed}"
            raise RecipeError(Problem("sample.server.urls", text, KIND_REMEDY))
        return next(iter(kinds.values()))

    def request(self, prompt: MadePrompt, body: dict[str, Any]) -> ChatReplies:
        """Return the replies of the prompt's server, or of another one if that fails.

        Raises:
            ChatFailure: If no server replies, or one refuses the request.
        """
        last = self._last or ChatFailure("unreachable", "no server is left")
        for server in self._order(prompt):
            if not server.alive:
                continue
            try:
                return server.request(body)
            except ChatFailure as failure:
                if failure.kind == "refused":
                    raise
                last = self._last = failure
        raise last

    def server_of(self, prompt: MadePrompt) -> Server | None:
        """Return the server to which a prompt is sent first; `None` if none is left."""
        return next((server for server in self._order(prompt) if server.alive), None)

    def _order(self, prompt: MadePrompt) -> Iterator[Server]:
        start = int(prompt.digest[DIGITS], 16) % len(self.items)
        yield from (*self.items[start:], *self.items[:start])


def no_reply(servers: Sequence[Server], failure: ChatFailure) -> UniDPOError:
    """Return the error for servers of which none replies."""
    addresses = ", ".join(server.client.address for server in servers)
    text = f"no reply from {addresses} ({failure})"
    remedy = "Check the URLs, and whether the servers are running"
    return UniDPOError(Problem("sample.server.urls", text, remedy))


def _of_recipe(problem: Problem) -> Problem:
    """Return a problem of a client with the key of the recipe that it concerns."""
    return Problem(KEYS.get(problem.where, problem.where), problem.message, problem.remedy)

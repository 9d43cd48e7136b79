"""Judges: a model behind a URL or in this process, which gets many requests at once."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from unidpo_mm.errors import DataError, Problem, RecipeError, UniDPOError
from unidpo_mm.inference.endpoint import ChatClient, ChatFailure, ChatMessage
from unidpo_mm.inference.sampling import greedy_sampling
from unidpo_mm.reasoning import strip_reasoning

from .cache import ReplyCache

LOCAL = "local:"
CONCURRENCY = 8
MAX_TOKENS = 1024
"""Maximum length of a reply with its reasons."""
Verdict = TypeVar("Verdict")
Request = tuple[Callable[[str], Verdict], Callable[[], Sequence[ChatMessage]]]
"""(reads a reply, builds the messages); the latter run late because images are large."""


class Judge(Protocol):
    """The interface of a judge, which replies to prompts with verdicts."""

    concurrency: int  # Maximum number of simultaneous requests

    @property
    def name(self) -> str:
        """Part of the name of every metric that results from its verdicts."""
        ...

    def ask(self, messages: Sequence[ChatMessage]) -> str:
        """Return the reply to some messages; raises `ChatFailure`."""
        ...


@dataclass
class EndpointJudge:
    """A model behind a URL; cached replies are not requested again."""

    client: ChatClient
    cache: ReplyCache | None = None
    concurrency: int = CONCURRENCY
    sampling: dict[str, Any] | None = field(default=None, repr=False)
    failure: ChatFailure | None = field(default=None, repr=False)
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def name(self) -> str:
        """The server's name of the model."""
        return self.client.model

    def ask(self, messages: Sequence[ChatMessage]) -> str:
        """Return the reply to some messages; raises `ChatFailure`."""
        parameters = self._sampling()
        request = {"address": self.client.address, "model": self.client.model, **parameters}
        request["messages"] = list(messages)
        if self.cache is not None and (cached := self.cache.get(request)) is not None:
            return cached
        reply = self.client.chat(messages, **parameters).text
        if self.cache is not None:
            self.cache.put(request, reply)
        return reply

    def _sampling(self) -> dict[str, Any]:
        """Return the sampling parameters, which are part of the cache key.

        They depend on the kind of server, so the cache also stores the kind: replies of a server
        that is no longer running are still usable.
        """
        with self.lock:
            if self.failure is not None:  # the server is asked once, not again per request
                raise self.failure
            if self.sampling is None:
                self._find_kind()
                self.sampling = greedy_sampling(self.client, max_tokens=MAX_TOKENS)
            return self.sampling

    def _find_kind(self) -> None:
        server = {"kind of server": self.client.address}
        try:
            kind = self.client.kind()
        except ChatFailure as failure:
            stored = None if self.cache is None else self.cache.get(server)
            if stored is None:
                self.failure = failure
                raise
            self.client.server = stored
            return
        if self.cache is not None:
            self.cache.put(server, kind)


@dataclass
class LocalJudge:
    """A model that is loaded in this process."""

    name: str
    model: Any
    concurrency: int = 1

    def ask(self, messages: Sequence[ChatMessage]) -> str:
        """Return the reply to some messages; raises `ChatFailure`."""
        encoded = self.model.encode(_row(messages))
        if isinstance(encoded, str):
            raise ChatFailure("refused", encoded)
        (reply,) = self.model.generate([encoded])
        if isinstance(reply, str):
            raise ChatFailure("server_error", reply)
        return str(reply.text)


def load_judge(
    place: str,
    *,
    model: str | None = None,
    key_name: str | None = None,
    cache: Path | None = None,
    dtype: str = "auto",
    server: str = "auto",
) -> Judge:
    """Build a judge.

    `place` is a URL, or ``local:CHECKPOINT``, whose replies are not cached.
    """
    if place.startswith(LOCAL):
        if cache is not None or key_name is not None:
            text = "a judge in this process has no key and no cache"
            raise RecipeError(Problem("--judge", text, "Remove --judge-key and --judge-cache"))

        from unidpo_mm.adapter import AdapterOptions
        from unidpo_mm.distributed.processes import processes
        from unidpo_mm.inference.checkpoint import find_checkpoint, load_checkpoint
        from unidpo_mm.inference.decoding import Decoding
        from unidpo_mm.inference.local_model import LocalModel

        checkpoint = find_checkpoint(place.removeprefix(LOCAL), model)
        loaded = load_checkpoint(checkpoint, dtype=dtype, device=processes().device)
        decoding = Decoding(max_new_tokens=MAX_TOKENS)
        adapter = loaded.adapter(AdapterOptions())
        local = LocalModel(loaded.model, adapter, decoding, loaded.device)
        return LocalJudge(checkpoint.name, local)
    if model is None:
        text = "a server may offer several models"
        raise RecipeError(Problem("--judge-model", text, "Set it to the name of the judge's model"))
    client = ChatClient(place, model, key_name=key_name, server=server)
    return EndpointJudge(client, None if cache is None else ReplyCache(cache))


def ask_all(judge: Judge, requests: Sequence[Request[Verdict]]) -> list[Verdict | ChatFailure]:
    """Return the verdict on each request in order, or the failure if there is none.

    Raises:
        UniDPOError: If no request gets a verdict.
    """

    def ask(request: Request[Verdict]) -> Verdict | ChatFailure:
        read, messages = request
        try:
            return read(_without_reasoning(judge.ask(messages())))
        except ChatFailure as failure:
            return failure
        except DataError as error:  # an image cannot be read
            return ChatFailure("refused", str(error))

    with ThreadPoolExecutor(judge.concurrency) as threads:
        verdicts = list(threads.map(ask, requests))
    failures = [verdict for verdict in verdicts if isinstance(verdict, ChatFailure)]
    if verdicts and len(failures) == len(verdicts):
        kinds = ", ".join(sorted({failure.kind for failure in failures}))
        text = (
            f"the judge {judge.name} gave no verdict on any of {len(verdicts)} requests ({kinds})"
        )
        raise UniDPOError(f"{text}. The first: {failures[0].message}")
    return verdicts


def _without_reasoning(reply: str) -> str:
    """Return a reply without its reasoning; raises `ChatFailure` if the reasoning has no end."""
    stripped = strip_reasoning(reply)
    if stripped.unclosed and not stripped.text:
        raise ChatFailure("malformed", f"the judge's reasoning was truncated: {reply[-120:]!r}")
    return stripped.text


def _row(messages: Sequence[ChatMessage]) -> Any:
    """Return messages in OpenAI's format as a row of the core."""
    from unidpo_mm.data.images import ImageRules, image_refs
    from unidpo_mm.inference.prompts import NO_RESPONSE
    from unidpo_mm.records import MediaSlot, Message, PreferenceRow, Response

    turns: list[Message] = []
    images: list[Any] = []
    for message in messages:
        content: Any = message["content"]
        parts: list[str | MediaSlot] = []
        listed: Any = [{"text": content}] if isinstance(content, str) else content
        for part in listed:
            if "text" in part:
                parts.append(part["text"])
            else:
                url = part["image_url"]["url"]
                images += image_refs(url, ImageRules(), "the judge's image")
                parts.append(MediaSlot("image"))
        turns.append(Message(message["role"], tuple(parts)))
    return PreferenceRow(
        id="judged",
        domain="multimodal" if images else "text",
        source="judge",
        where="prompt for the judge",
        messages=tuple(turns),
        images=tuple(images),
        responses=(Response(NO_RESPONSE),),
    )

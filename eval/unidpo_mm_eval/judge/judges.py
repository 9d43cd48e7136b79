"""Judges: a model at an address, or one of our own in this process; many requests at once."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from unidpo_mm.errors import DataError, Problem, RecipeError, UniDPOError
from unidpo_mm.reasoning import strip_reasoning

from ..models.chat import ChatClient, Failure, Message
from ..models.sampling import greedy_sampling
from .cache import AnswerCache

if TYPE_CHECKING:
    from ..run.generate import Local

__all__ = ["EndpointJudge", "Judge", "LocalJudge", "ask_all", "find_judge", "question_to"]

LOCAL = "local:"
CONCURRENT = 8
MOST_TOKENS = 1024
"""Of a verdict with its reasons."""
Answer = TypeVar("Answer")


class Judge(Protocol):
    """Who judges.

    Attributes:
        concurrent: Requests at once.
    """

    concurrent: int

    @property
    def name(self) -> str:
        """Part of the name of every metric that comes of its verdicts."""
        ...

    def ask(self, messages: Sequence[Message]) -> str:
        """Returns what the judge says; raises `Failure`."""
        ...


@dataclass
class EndpointJudge:
    """A model at an address; what was asked before is not asked again."""

    client: ChatClient
    cache: AnswerCache | None = None
    concurrent: int = CONCURRENT
    sampling: dict[str, Any] | None = field(default=None, repr=False)
    failure: Failure | None = field(default=None, repr=False)
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def name(self) -> str:
        """What the server calls it."""
        return self.client.model

    def ask(self, messages: Sequence[Message]) -> str:
        """Returns what the judge says; raises `Failure`."""
        settings = self._sampling()
        request = {"address": self.client.address, "model": self.client.model, **settings}
        request["messages"] = list(messages)
        if self.cache is not None and (known := self.cache.get(request)) is not None:
            return known
        said = self.client.chat(messages, **settings).text
        if self.cache is not None:
            self.cache.put(request, said)
        return said

    def _sampling(self) -> dict[str, Any]:
        """Return the sampling parameters, which are a part of an answer's key in the cache.

        The kind of the server decides which there are, so it is kept beside the answers: those of a
        server that no longer runs are still found.
        """
        with self.lock:
            if self.failure is not None:  # asked once, not again for every request
                raise self.failure
            if self.sampling is None:
                self._settle_kind()
                self.sampling = greedy_sampling(self.client, max_tokens=MOST_TOKENS)
            return self.sampling

    def _settle_kind(self) -> None:
        server = {"kind of server": self.client.address}
        try:
            kind = self.client.kind()
        except Failure as failure:
            stored = None if self.cache is None else self.cache.get(server)
            if stored is None:
                self.failure = failure
                raise
            self.client.remember_kind(stored)
            return
        if self.cache is not None:
            self.cache.put(server, kind)


@dataclass
class LocalJudge:
    """One of our own models, in this process."""

    name: str
    local: "Local"
    concurrent: int = 1

    def ask(self, messages: Sequence[Message]) -> str:
        """Returns what the judge says; raises `Failure`."""
        from unidpo_mm.records import EncodedGroup

        from ..run.prompts import Question

        row = _row(messages)
        encoded = self.local.encode(Question(id="judged", row=row))
        if not isinstance(encoded, EncodedGroup):
            raise Failure("refused", encoded)
        (answer,) = self.local.answers([encoded])
        if isinstance(answer, str):
            raise Failure("server_error", answer)
        return answer.text


def find_judge(
    place: str,
    *,
    model: str | None = None,
    key_name: str | None = None,
    cache: Path | None = None,
    dtype: str = "auto",
    server: str = "auto",
) -> Judge:
    """Returns a judge.

    Args:
        place: An address of an OpenAI-compatible server, or ``local:CHECKPOINT``.
        model: What the server calls the model.
        key_name: Variable of the environment that holds the key.
        cache: File of answers; None for none; of a local judge none are kept.
        dtype: Number format of a local one.
        server: Kind of the server, see `client.SERVERS`.

    Raises:
        RecipeError: If the model is not named, or the key is not there.
    """
    if place.startswith(LOCAL):
        if cache is not None or key_name is not None:
            text = "a judge in this process has neither a key nor a file of answers"
            raise RecipeError(Problem("--judge", text, "Leave --judge-key and --judge-cache out"))

        from unidpo_mm.adapter import AdapterOptions

        from ..models.checkpoint import find_checkpoint, load_checkpoint
        from ..models.processes import processes
        from ..protocols import Decoding
        from ..run.generate import Local

        found = find_checkpoint(place.removeprefix(LOCAL), model)
        loaded = load_checkpoint(found, dtype=dtype, device=processes().device)
        decoding = Decoding(max_new_tokens=MOST_TOKENS)
        adapter = loaded.adapter(AdapterOptions())
        return LocalJudge(found.name, Local(loaded.model, adapter, decoding, loaded.device))
    if model is None:
        text = "a server has many models"
        raise RecipeError(Problem("--judge-model", text, "Name the one that judges"))
    client = ChatClient(place, model, key_name=key_name, server=server)
    return EndpointJudge(client, None if cache is None else AnswerCache(cache))


def question_to(text: str, images: Sequence[str] = ()) -> list[Message]:
    """Returns one turn of a user; pictures, as data addresses, stand before the words."""
    if not images:
        return [{"role": "user", "content": text}]
    shown = [{"type": "image_url", "image_url": {"url": address}} for address in images]
    return [{"role": "user", "content": [*shown, {"type": "text", "text": text}]}]


def ask_all(
    judge: Judge,
    requests: Sequence[tuple[Callable[[str], Answer], Callable[[], Sequence[Message]]]],
) -> list[Answer | Failure]:
    """Returns what each answer says, in order, or why there is none.

    Args:
        judge: Who judges.
        requests: What reads a verdict, and raises `Failure` of kind ``malformed`` where there is
            none; and what puts the conversation together when its turn comes, since pictures in
            it are large.

    Raises:
        UniDPOError: If not one was answered.
    """

    def one(
        request: tuple[Callable[[str], Answer], Callable[[], Sequence[Message]]],
    ) -> Answer | Failure:
        read, put = request
        try:
            return read(_verdict(judge.ask(put())))
        except Failure as failure:
            return failure
        except DataError as error:  # of a picture
            return Failure("refused", str(error))

    with ThreadPoolExecutor(judge.concurrent) as threads:
        found = list(threads.map(one, requests))
    failures = [answer for answer in found if isinstance(answer, Failure)]
    if found and len(failures) == len(found):
        kinds = ", ".join(sorted({one.kind for one in failures}))
        text = f"the judge {judge.name} gave no verdict to any of {len(found)} requests ({kinds})"
        raise UniDPOError(f"{text}; the first: {failures[0].found}")
    return found


def _verdict(reply: str) -> str:
    """Return what a judge says behind its reasoning; raises `Failure` if that has no end."""
    stripped = strip_reasoning(reply)
    if stripped.unclosed and not stripped.text:
        raise Failure("malformed", f"the judge's reasoning was cut: {reply[-120:]!r}")
    return stripped.text


def _row(messages: Sequence[Message]) -> Any:
    """Returns a conversation in OpenAI's layout as a row of ours."""
    from unidpo_mm.data.images import PictureRules, image_refs
    from unidpo_mm.records import ImageSlot, PreferenceRow, Response
    from unidpo_mm.records import Message as Turn

    turns: list[Turn] = []
    images: list[Any] = []
    for message in messages:
        content: Any = message["content"]
        parts: list[str | ImageSlot] = []
        listed: list[Any] = [{"type": "text", "text": content}]
        for part in listed if isinstance(content, str) else content:
            if part["type"] == "text":
                parts.append(part["text"])
            else:
                images += image_refs(
                    part["image_url"]["url"], PictureRules(), "the judge's picture"
                )
                parts.append(ImageSlot())
        turns.append(Turn(message["role"], tuple(parts)))
    return PreferenceRow(
        id="judged",
        domain="multimodal" if images else "text",
        source="judge",
        where="what the judge is asked",
        messages=tuple(turns),
        images=tuple(images),
        responses=(Response("(asked)"),),
    )

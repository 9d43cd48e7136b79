"""Judges: a model behind a URL or in this process, which gets many requests at once."""

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

from unidpo_mm.errors import DataError, Problem, RecipeError, UniDPOError
from unidpo_mm.inference.endpoint import ChatClient, ChatFailure, ChatMessage
from unidpo_mm.inference.sampling import greedy_sampling
from unidpo_mm.reasoning import strip_reasoning
from unidpo_mm.records import EncodedGroup

from .cache import ReplyCache

LOCAL = "local:"
CONCURRENCY = 8
MAX_TOKENS = 1024
"""Maximum length of a reply with its reasons."""
COMMAND_OPTIONS: Mapping[str, str] = {
    "judge": "--judge",
    "model": "--judge-model",
    "key": "--judge-key",
}
"""Setting of a judge -> the option of commands that sets it."""
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


@dataclass(frozen=True)
class ReplyRules:
    """How a judge replies.

    Attributes:
        max_tokens: Maximum number of tokens of a reply; `None` for `MAX_TOKENS`.
        temperature: Divides the logits; 0 is greedy decoding.
        seed: Seed of replies with a temperature above 0.
        complete: Whether a reply that was cut at `max_tokens` is refused: its last number may lack
            a digit.
    """

    max_tokens: int | None = None
    temperature: float = 0.0
    seed: int = 0
    complete: bool = False

    @property
    def limit(self) -> int:
        """The maximum number of tokens of a reply."""
        return self.max_tokens or MAX_TOKENS

    def check(self, text: str, finish_reason: str | None) -> str:
        """Return the text of a reply; raises `ChatFailure` if it was cut and must not be."""
        if self.complete and finish_reason == "length":
            problem = f"the reply was cut at {self.limit:,} tokens: {text[-120:]!r}"
            raise ChatFailure("malformed", problem)
        return text


@dataclass
class EndpointJudge:
    """A model behind a URL; cached replies are not requested again."""

    client: ChatClient
    cache: ReplyCache | None = None
    concurrency: int = CONCURRENCY
    rules: ReplyRules = ReplyRules()
    sampling: dict[str, Any] | None = field(default=None, repr=False)
    failure: ChatFailure | None = field(default=None, repr=False)
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def name(self) -> str:
        """The server's name of the model."""
        return self.client.model

    def with_seed(self, seed: int) -> "EndpointJudge":
        """Return the judge with another seed."""
        return replace(self, rules=replace(self.rules, seed=seed), sampling=None)

    def ask(self, messages: Sequence[ChatMessage]) -> str:
        """Return the reply to some messages; raises `ChatFailure`."""
        parameters = self._sampling()
        request = {"address": self.client.address, "model": self.client.model, **parameters}
        request["messages"] = list(messages)

        def chat() -> str:
            reply = self.client.chat(messages, **parameters)
            return self.rules.check(reply.text, reply.finish_reason)

        return chat() if self.cache is None else self.cache.reply(request, chat)

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
                self.sampling = greedy_sampling(self.client, max_tokens=self.rules.limit)
                if self.rules.temperature:
                    drawn = {"temperature": self.rules.temperature, "seed": self.rules.seed}
                    self.sampling |= drawn
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
    """A model that is loaded in this process.

    Attributes:
        name: Name of the checkpoint.
        model: A `LocalModel`.
        weights: Hash of its weights, part of the key of cached replies.
        cache: Cached replies, which are not generated again; `None` to keep none.
        rules: How it replies.
        concurrency: Maximum number of simultaneous requests.
    """

    name: str
    model: Any
    weights: str = ""
    cache: ReplyCache | None = None
    rules: ReplyRules = ReplyRules()
    concurrency: int = 1

    def with_seed(self, seed: int) -> "LocalJudge":
        """Return the judge with another seed."""
        return replace(self, rules=replace(self.rules, seed=seed))

    def ask(self, messages: Sequence[ChatMessage]) -> str:
        """Return the reply to some messages; raises `ChatFailure`."""
        if self.cache is None:
            return self._generate(messages)
        rules = {"max_tokens": self.rules.limit, "temperature": self.rules.temperature}
        request = {"weights": self.weights, **rules, "messages": list(messages)}
        if self.rules.temperature:
            request["seed"] = self.rules.seed
        return self.cache.reply(request, lambda: self._generate(messages))

    def _generate(self, messages: Sequence[ChatMessage]) -> str:
        encoded = self.model.encode(_row(messages))
        if isinstance(encoded, str):
            raise ChatFailure("refused", encoded)
        if self.rules.temperature:
            reply = self._sampled(encoded, messages)
        else:
            (reply,) = self.model.generate([encoded])
        if isinstance(reply, str):
            raise ChatFailure("server_error", reply)
        return self.rules.check(str(reply.text), reply.finish_reason)

    def _sampled(self, prompt: EncodedGroup, messages: Sequence[ChatMessage]) -> Any:
        """Return a random reply, which depends on the seed and the messages alone."""
        from unidpo_mm.inference.decoding import Sampling
        from unidpo_mm.inference.noise import noise_key
        from unidpo_mm.inference.samples import Sampler

        model = self.model
        sampler = Sampler(
            model.model,
            model.reasoning_adapter,
            model.decoding,
            sampling=Sampling(temperature=self.rules.temperature),
            device=model.device,
        )
        question = json.dumps(list(messages), sort_keys=True)
        ((reply,),) = sampler.generate([prompt], [[noise_key(self.rules.seed, question, 0)]])
        return reply


def load_judge(
    place: str,
    *,
    model: str | None = None,
    key_name: str | None = None,
    cache: Path | None = None,
    dtype: str = "auto",
    server: str = "auto",
    rules: ReplyRules = ReplyRules(),
    options: Mapping[str, str] = COMMAND_OPTIONS,
) -> "EndpointJudge | LocalJudge":
    """Build a judge.

    Args:
        place: A URL, or ``local:CHECKPOINT``.
        model: The server's name of the model; the name of a local judge.
        key_name: Environment variable with the API key.
        cache: File of cached replies; `None` to keep none.
        dtype: Number format of the weights of a local judge.
        server: Kind of the server.
        rules: How it replies.
        options: Names of the settings, for messages.

    Raises:
        UniDPOError: If a setting is missing or unusable, or the checkpoint cannot be loaded.
    """
    replies = None if cache is None else ReplyCache(cache)
    if place.startswith(LOCAL):
        if key_name is not None:
            text = "a judge in this process has no key"
            raise RecipeError(Problem(options["judge"], text, f"Remove {options['key']}"))

        from unidpo_mm.adapter import AdapterOptions
        from unidpo_mm.distributed.processes import processes
        from unidpo_mm.inference.checkpoint import find_checkpoint, load_checkpoint
        from unidpo_mm.inference.decoding import Decoding
        from unidpo_mm.inference.local_model import LocalModel

        checkpoint = find_checkpoint(place.removeprefix(LOCAL), model)
        loaded = load_checkpoint(checkpoint, dtype=dtype, device=processes().device)
        decoding = Decoding(max_new_tokens=rules.limit)
        adapter = loaded.adapter(AdapterOptions())
        local = LocalModel(loaded.model, adapter, decoding, loaded.device)
        return LocalJudge(checkpoint.name, local, checkpoint.weights, replies, rules)
    if model is None:
        text = "a server may offer several models"
        remedy = "Set it to the name of the judge's model"
        raise RecipeError(Problem(options["model"], text, remedy))
    client = ChatClient(place, model, key_name=key_name, server=server)
    return EndpointJudge(client, replies, rules=rules)


def ask_all(judge: Judge, requests: Sequence[Request[Verdict]]) -> list[Verdict | ChatFailure]:
    """Return the verdict on each request in order, or the failure if there is none.

    Raises:
        UniDPOError: If no request gets a verdict.
    """
    verdicts = ask_each(judge, requests)
    failures = [verdict for verdict in verdicts if isinstance(verdict, ChatFailure)]
    if verdicts and len(failures) == len(verdicts):
        kinds = ", ".join(sorted({failure.kind for failure in failures}))
        text = (
            f"the judge {judge.name} gave no verdict on any of {len(verdicts)} requests ({kinds})"
        )
        raise UniDPOError(f"{text}. The first: {failures[0].message}")
    return verdicts


def ask_each(judge: Judge, requests: Sequence[Request[Verdict]]) -> list[Verdict | ChatFailure]:
    """Return the verdict on each request in order, or the failure if there is none."""

    def ask(request: Request[Verdict]) -> Verdict | ChatFailure:
        read, messages = request
        try:
            return read(_without_reasoning(judge.ask(messages())))
        except ChatFailure as failure:
            return failure
        except DataError as error:  # an image cannot be read
            return ChatFailure("refused", str(error))

    with ThreadPoolExecutor(judge.concurrency) as threads:
        return list(threads.map(ask, requests))


def _without_reasoning(reply: str) -> str:
    """Return a reply without its reasoning; raises `ChatFailure` if the reasoning has no end."""
    stripped = strip_reasoning(reply)
    if stripped.unclosed and not stripped.text:
        raise ChatFailure("malformed", f"the judge's reasoning was truncated: {reply[-120:]!r}")
    return stripped.text


def _row(messages: Sequence[ChatMessage]) -> Any:
    """Return messages in OpenAI's format as a row of the core."""
    from unidpo_mm.data.images import ImageRules, image_refs
    from unidpo_mm.records import NO_RESPONSE, MediaSlot, Message, PreferenceRow, Response

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

"""Judges of responses: their settings, their questions, and faults instead of missing verdicts."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal, TypeVar

from unidpo_mm.errors import Problem, UniDPOError
from unidpo_mm.inference.checkpoint import find_checkpoint
from unidpo_mm.inference.endpoint import PASSING, ChatFailure, ChatMessage
from unidpo_mm.inference.messages import data_url, user_message
from unidpo_mm.pipelines.scorer import Candidate, Fault, Scorer, ScoringContext
from unidpo_mm.records import MediaSlot, PreferenceRow

from ..judge.judges import (
    LOCAL,
    EndpointJudge,
    LocalJudge,
    ReplyRules,
    Request,
    ask_each,
    load_judge,
)

Verdict = TypeVar("Verdict")
MIN_FAILURES = 8
"""Number of passing failures, without any verdict, from which the judge is out of order."""
CACHE = "replies.sqlite"
"""File of cached replies in the directory of a scorer."""


@dataclass(frozen=True)
class JudgedScorer(Scorer):
    """The settings of a judge.

    Attributes:
        judge: URL of a server with OpenAI's protocol, up to ``/v1``; or ``local:CHECKPOINT`` for a
            model in this process.
        model: The server's name of the model.
        key: Environment variable with the API key; `None` for `OPENAI_API_KEY`, for https only.
        server: Kind of the server, which decides the fields of requests; ``auto`` asks it.
        max_tokens: Maximum number of tokens of a reply with its reasons.
        dtype: Number format of the weights of a local model; ``auto`` keeps the saved one.
    """

    judge: str
    model: str | None = None
    key: str | None = None
    server: Literal["auto", "vllm", "sglang", "openai"] = "auto"
    max_tokens: int = 1024
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"

    paths: ClassVar[frozenset[str]] = frozenset({"judge"})
    sees_images: ClassVar[bool] = True
    templates: ClassVar[Sequence[str]] = ()
    """Texts whose change changes the scores."""

    def __post_init__(self) -> None:
        if not self.judge.startswith((LOCAL, "http://", "https://")):
            raise ValueError(
                f"'{self.judge}' is not a judge: use a URL such as http://host:8000/v1, or "
                f"{LOCAL}CHECKPOINT"
            )
        if self.max_tokens < 1:
            raise ValueError("max_tokens must be at least 1")

    def check(self, scales: Mapping[str, tuple[float, float] | None]) -> Iterator[str]:
        """Yield missing and superfluous settings of the judge."""
        local = self.judge.startswith(LOCAL)
        if self.model is None and not local:
            yield "a server may offer several models, and model is not set to the judge's name"
        if self.key is not None and local:
            yield "key is set, and a judge in this process has no key"

    def load(
        self, context: ScoringContext, *, temperature: float = 0.0
    ) -> EndpointJudge | LocalJudge:
        """Return the judge, whose replies are kept in the directory of the scorer.

        Raises:
            UniDPOError: If its key is not set or its checkpoint cannot be loaded.
        """
        rules = ReplyRules(self.max_tokens, temperature, complete=True)
        return load_judge(
            self.judge,
            model=self.model,
            key_name=self.key,
            cache=context.directory / CACHE,
            dtype=self.dtype,
            server=self.server,
            rules=rules,
            options={name: name for name in ("judge", "model", "key")},
        )

    def fingerprint(self) -> Mapping[str, Any]:
        """Return what identifies the scores: the judge by its name or weights, not by its URL."""
        settings = {"version": self.version, **asdict(self)}
        for name in ("judge", "key", "server"):
            del settings[name]
        if self.judge.startswith(LOCAL):
            settings["model"] = find_checkpoint(self.judge.removeprefix(LOCAL)).weights
        text = "\0".join(self.templates)
        return settings | {"templates": hashlib.sha256(text.encode()).hexdigest()[:16]}


# ---- questions ----


def question_of(prompt: PreferenceRow) -> str:
    """Return the text of a prompt, with marks such as ``[image 2]`` where they are needed."""
    numbers = {"image": 0, "video": 0}
    alone = len(prompt.messages) == 1
    marks = len(prompt.media) > 1 or not _leads(prompt)
    turns = []
    for message in prompt.messages:
        text = ""
        for part in message.parts:
            if isinstance(part, MediaSlot):
                numbers[part.kind] += 1
                text += f"[{part.kind} {numbers[part.kind]}]" if marks else ""
            else:
                text += part
        turns.append(text.strip() if alone else f"{message.role.capitalize()}: {text.strip()}")
    return "\n\n".join(turns)


def _leads(prompt: PreferenceRow) -> bool:
    """Return whether a prompt begins with its image."""
    first = prompt.messages[0].parts
    return bool(first) and isinstance(first[0], MediaSlot)


def message_of(text: str, prompt: PreferenceRow) -> list[ChatMessage]:
    """Return a question for a judge with the images of a prompt."""
    return user_message(text, [data_url(image) for image in prompt.images])


def shown_text(prompt: PreferenceRow) -> str:
    """Return the words of a question that refer to the images of a prompt."""
    if not prompt.images:
        return ""
    count = len(prompt.images)
    return " about this image" if count == 1 else f" about these {count} images"


# ---- verdicts ----


def unfit(candidate: Candidate) -> Fault | None:
    """Return why a response cannot be shown to a judge; `None` if it can."""
    if candidate.prompt.videos:
        return Fault("video", "the prompt has a video, and judges get images only")
    if not candidate.text_without_reasoning:
        return Fault("no answer", "the response has no text after its reasoning")
    return None


def fault_of(failures: Sequence[ChatFailure]) -> Fault:
    """Return the fault of missing verdicts, temporary if one of them is."""
    failure = next((item for item in failures if item.kind in PASSING), failures[0])
    return Fault(failure.kind, failure.message, temporary=failure.kind in PASSING)


def verdicts_of(
    judge: EndpointJudge | LocalJudge, requests: Sequence[Request[Verdict]]
) -> list[Verdict | ChatFailure]:
    """Return the verdict on each request, or the failure.

    Raises:
        UniDPOError: If the judge is out of order, so that waiting for each request is pointless.
    """
    verdicts = ask_each(judge, requests)
    failures = [verdict for verdict in verdicts if isinstance(verdict, ChatFailure)]
    kinds = {failure.kind for failure in failures}
    if len(failures) == len(verdicts) >= MIN_FAILURES and kinds <= PASSING:
        text = (
            f"none of {len(verdicts):,} requests got a reply ({', '.join(sorted(kinds))}). The "
            f"first: {failures[0].message}"
        )
        remedy = "Start or correct the server, and run the command again: finished scores are kept"
        raise UniDPOError(Problem(f"judge {judge.name}", text, remedy))
    return verdicts

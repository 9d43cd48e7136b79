"""Reward models behind a vLLM server, which get the conversation with its images."""

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from ...errors import Problem, UniDPOError
from ..scorer import Candidate, Fault, Scored, Scorer, ScoringContext

if TYPE_CHECKING:
    from ...inference.endpoint import ChatClient

__all__ = ["SCORER", "ServedRewardModel"]

MIN_VALUES = 8
"""Number of scores from which values that all lie between 0 and 1 are suspicious."""


@dataclass(frozen=True)
class ServedRewardModel(Scorer):
    """The reward of a sequence classifier with one label that vLLM serves.

    vLLM applies a sigmoid to such scores unless a request declines it, so that large rewards
    hardly differ. Every request declines it, and scores that are squashed nevertheless end the run.

    Attributes:
        url: URL of the server, without ``/v1``.
        model: The server's name of the model.
        key: Environment variable with the API key; `None` for `OPENAI_API_KEY`, for https only.
        concurrency: Maximum number of simultaneous requests.
        scale: Lowest and highest possible score; `None` for scores without limits, such as logits.
    """

    url: str
    model: str
    key: str | None = None
    concurrency: int = 16
    scale: tuple[float, float] | None = field(default=None, kw_only=True)  # type: ignore[misc] # a parameter

    sees_images: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.url.rstrip("/").endswith("/v1"):
            raise ValueError("url: remove /v1, which the endpoint of reward models does not have")
        if self.scale is not None and not self.scale[0] < self.scale[1]:
            raise ValueError("scale: the first number must be below the second")
        if self.concurrency < 1:
            raise ValueError("concurrency must be at least 1")

    def units(self, candidates: int, prompts: int) -> Mapping[str, int]:
        """Return the number of requests."""
        return {"requests of a reward model": candidates}

    def fingerprint(self) -> Mapping[str, Any]:
        """Return what identifies the scores, which is not the place of the server."""
        return {"version": self.version, "model": self.model, "scale": self.scale}

    def start(self, context: ScoringContext) -> Callable[[Sequence[Candidate]], Sequence[Scored]]:
        """Return the function that requests scores."""
        from ...inference.endpoint import ChatClient

        client = ChatClient(self.url, self.model, key_name=self.key)

        def score(candidates: Sequence[Candidate]) -> Sequence[Scored]:
            with ThreadPoolExecutor(self.concurrency) as threads:
                scored = list(threads.map(lambda item: _score(client, item), candidates))
            self._check_squashed([value for value in scored if isinstance(value, float)])
            return scored

        return score

    def _check_squashed(self, values: Sequence[float]) -> None:
        if self.scale is None and len(values) >= MIN_VALUES and all(0 < v < 1 for v in values):
            text = f"all of {len(values)} scores lie between 0 and 1, although they have no limits"
            remedy = (
                "The server applies a sigmoid: update vLLM or override its pooling configuration; "
                "if the model has such scores, set scale to [0, 1]"
            )
            raise UniDPOError(Problem(self.url, text, remedy))


SCORER = ServedRewardModel


def _score(client: "ChatClient", candidate: Candidate) -> Scored:
    from ...errors import DataError
    from ...inference.endpoint import PASSING, ChatFailure
    from ...inference.served_model import messages_of

    try:
        messages = [
            *messages_of(candidate.prompt),
            {"role": "assistant", "content": candidate.text_without_reasoning},
        ]
        fields = {"messages": messages, "task": "classify", "use_activation": False}
        return _value(client.post("pooling", {**fields, "add_generation_prompt": False}))
    except DataError as error:  # an image cannot be read
        return Fault("refused", str(error))
    except ChatFailure as failure:
        return Fault(failure.kind, failure.message, temporary=failure.kind in PASSING)


def _value(content: Any) -> Scored:
    """Return the only number in a reply."""
    try:
        value = content["data"][0]["data"]
        while isinstance(value, list) and len(value) == 1:
            (value,) = value
        number = float(value)
    except (KeyError, IndexError, TypeError, ValueError):
        return Fault("malformed", f"the reply has no single score: {str(content)[:200]}")
    return number if math.isfinite(number) else Fault("malformed", f"the score is {number}")

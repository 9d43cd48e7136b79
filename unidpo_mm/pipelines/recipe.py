"""Recipes of `unidpo-mm data make`: the sections that state how preference data are made."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, model_validator

from ..config.recipe import ImagesSection, ModelSection
from ..config.sections import Section, SourceOptions
from ..config.values import (
    Count,
    Finite,
    Fraction,
    Name,
    Names,
    NonNegative,
    PositiveShare,
    Seed,
    Share,
    as_tuple,
)
from ..inference.decoding import Sampling

__all__ = [
    "STAGES",
    "BatchFilesSection",
    "KeepOutSection",
    "MakeRecipe",
    "PairSection",
    "PromptsSection",
    "SampleSection",
    "ScorerSection",
    "ServerSection",
    "Stage",
]

Stage = Literal["prompts", "sample", "score", "pair"]
STAGES: tuple[Stage, ...] = ("prompts", "sample", "score", "pair")
"""The stages, in their order."""


def _part(text: str) -> str:
    match = re.fullmatch(r"([0-9]+)/([0-9]+)", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise ValueError("Use two numbers such as 1/3, the first from 1 to the second")
    return text


Part = Annotated[str, AfterValidator(_part)]
"""Number of a part and number of parts, such as ``1/3``."""
MIN_TEMPERATURE = 0.01
"""Smallest temperature above 0: smaller ones are greedy decoding, with logits that overflow."""


def _temperature(value: float) -> float:
    if 0 < value < MIN_TEMPERATURE:
        raise ValueError(f"Use 0 for greedy decoding, or at least {MIN_TEMPERATURE:g}")
    return value


Temperature = Annotated[
    float, Field(ge=0, le=100, allow_inf_nan=False), AfterValidator(_temperature)
]
ScoreName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,39}$")]
"""A name that is also part of a file name and of conditions."""
LengthRatio = Annotated[
    tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]], BeforeValidator(as_tuple)
]


class KeepOutSection(Section):
    """The leak guard: prompts that repeat a question of a benchmark or of held-out rows."""

    sources: Annotated[Names, Field(min_length=1)]
    """Names of benchmarks (`unidpo-mm eval list`), and files of held-out rows or prompts."""
    data: Name | None = None
    """Directory of the data of benchmarks, or the data of the only benchmark."""
    images: Name | None = None
    """Directory of the images of benchmarks; null: that of their data."""
    leaks: Literal["drop", "refuse"] = "drop"
    """What happens to a prompt that is such a question: it is dropped and listed, or the run
    ends."""
    same_image: Literal["drop", "report"] = "drop"
    """What happens to a prompt with the same image as a question, but other text."""
    text: Literal["exact", "13gram"] = "exact"
    """Whether texts have to be equal, apart from case, blanks and options, or whether half of their
    sequences of 13 words suffice."""


class PromptsSection(Section):
    """The prompts."""

    sources: Annotated[tuple[SourceOptions, ...], BeforeValidator(as_tuple), Field(min_length=1)]
    """Data sets with the prompts, in any format of training data, or with prompts only. Their
    responses are used if `sample.responses` says so."""
    gold: Name | Literal[False] | None = None
    """Column with the right answer to the prompt, for scorers; null: `answer`, `solution`, `gold`
    or `ground_truth`, if the format does not read it; false: none. No model sees it."""
    images: ImagesSection = ImagesSection()
    """Limits on images and videos."""
    part: Part | None = None
    """Part of the prompts that is used, such as `1/3`: parts are disjoint and drawn by the content
    of the prompts. Null: all."""
    keep_out: KeepOutSection | None = None
    """Questions that no prompt may repeat; null: none."""


class ServerSection(Section):
    """A server with OpenAI's protocol that generates the responses."""

    urls: Annotated[tuple[Name, ...], BeforeValidator(as_tuple), Field(min_length=1)]
    """URLs up to `/v1`; prompts are spread over them."""
    model: Name
    """The server's name of the model."""
    kind: Literal["auto", "vllm", "sglang", "openai"] = "auto"
    """Kind of the server, which decides the fields of requests; `auto` asks it."""
    key: Name | None = None
    """Environment variable with the API key; null: `OPENAI_API_KEY`, for https only."""
    concurrency: Count = 16
    """Maximum number of simultaneous requests."""
    timeout: Annotated[float, Field(gt=0)] = 300.0
    """Seconds to wait for a response."""


class BatchFilesSection(Section):
    """Files of requests in OpenAI's batch format, which another program answers."""

    directory: Name
    """Directory of the files with requests and results."""
    model: Name | None = None
    """Name of the model in the requests; null: `model.name_or_path`."""
    kind: Literal["vllm", "openai"] = "vllm"
    """Program that answers: `vllm run-batch`, or the Batch API of OpenAI and others, which has
    neither `top_k` nor `min_p`."""


def _as_batch_files(value: Any) -> Any:
    return {"directory": value} if isinstance(value, str) else value


class SampleSection(Section):
    """Responses: those of a model, or those that the sources have."""

    responses: Literal["sampled", "given", "both"] = "sampled"
    """`sampled` generates them with the model; `given` uses those of the sources; `both` adds
    generated responses to those of the sources."""
    n: Count = 4
    """Number of responses per prompt. A larger number later adds to the existing ones."""
    temperature: Temperature = 1.0
    """Divides the logits; 0 is greedy decoding, of one response."""
    top_p: PositiveShare = 1.0
    """Tokens are drawn from the most likely ones with this total probability."""
    top_k: NonNegative = 0
    """Number of the most likely tokens that are drawn from; 0: all."""
    min_p: Share = 0.0
    """Minimum probability of a token, as a share of that of the most likely one."""
    max_new_tokens: Count = 512
    """Maximum number of tokens of a response."""
    stop: Names = ()  # type: ignore[assignment] # lists become tuples
    """Strings that end a response, in addition to the end token of the model."""
    seed: Seed = 0
    """Seed of the responses. A response depends on it, on its prompt and its number, and not on
    batches, processes or interruptions."""
    batch_size: Count = 16
    """Maximum number of responses that are generated at a time."""
    server: ServerSection | None = None
    """A server that generates the responses; null: the model runs in this process."""
    batch_files: Annotated[BatchFilesSection | None, BeforeValidator(_as_batch_files)] = None
    """Files of requests that another program answers, or only their directory; null: none."""
    truncated: Literal["reject", "drop", "keep"] = "reject"
    """What happens to a response of `max_new_tokens` tokens: it may only be the rejected one of a
    pair, it is in no pair, or it is treated as any other."""

    @property
    def sampling(self) -> Sampling | None:
        """How tokens are drawn; `None` for greedy decoding."""
        if self.temperature == 0:
            return None
        return Sampling(self.temperature, self.top_p, self.top_k, self.min_p)


class ScorerSection(Section):
    """A scorer and its parameters (`unidpo-mm list scorers`)."""

    model_config = ConfigDict(extra="allow")

    scorer: Name
    """Name of a scorer, or the path of a Python file with one; further keys are its parameters."""
    max_faults: Fraction = 0.02
    """Maximum share of responses without a score because of a fault, such as a reply of a judge
    that is no verdict; with more, the run ends."""

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters that are set; all others have their defaults."""
        return dict(self.model_extra or {})


class PairSection(Section):
    """The pairs."""

    score: ScoreName | None = None
    """Score by which pairs are formed, one of the names in `score`; null: the last one."""
    rule: Literal[
        "given",
        "all",
        "best_vs_worst",
        "adjacent",
        "right_vs_wrong",
        "right_vs_weaker",
        "best_vs_random",
        "best_vs_sigma",
    ] = "best_vs_worst"
    """Which pairs are formed; `given` keeps those of the sources, which get scores only."""
    right: ScoreName | None = None
    """Score that is at its maximum if the final answer is right, for the rules that need it; null:
    the only `verifier`."""
    min_margin: Annotated[Finite, Field(ge=0)] = 0.0
    """Minimum difference of the two scores of a pair."""
    gates: dict[Literal["chosen", "rejected"], Names] = Field(default_factory=dict)
    """Conditions on the chosen or the rejected response, such as `claims >= 0`, all of which have
    to hold."""
    contained: Literal["keep", "drop"] = "keep"
    """What happens to a pair whose rejected response contains the chosen one: probably both are
    right."""
    length_ratio: LengthRatio | None = None
    """Lowest and highest length of the chosen response as a multiple of the rejected one's; null:
    no limit."""
    per_prompt: Count | None = None
    """Maximum number of pairs of a prompt, those with the largest margins; null: no limit."""
    max_pairs: Count | None = None
    """Maximum number of pairs, drawn at random; null: no limit."""
    balance_length: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Largest relative difference of the mean lengths of chosen and rejected responses; pairs are
    dropped until it is reached. Null: no limit."""
    seed: Seed = 0
    """Seed of draws."""

    @model_validator(mode="after")
    def _check(self) -> "PairSection":
        if self.length_ratio is not None and self.length_ratio[0] > self.length_ratio[1]:
            raise ValueError("length_ratio: the first number must not be above the second")
        return self


class MakeRecipe(Section):
    """The definition of a data set to make."""

    model_config = ConfigDict(protected_namespaces=())

    output: Name
    """Directory of everything that is written."""
    model: ModelSection | None = None
    """The model that generates responses; not needed for responses of the sources or a server."""
    prompts: PromptsSection
    """The prompts."""
    sample: SampleSection = SampleSection()
    """The responses."""
    score: dict[ScoreName, ScorerSection] = Field(default_factory=dict)
    """Name of a score -> the scorer that gives it. Scorers run in this order."""
    pair: PairSection = PairSection()
    """The pairs."""

    @property
    def directory(self) -> Path:
        """The directory of everything that is written."""
        return Path(self.output)

    @property
    def pair_score(self) -> str | None:
        """The name of the score by which pairs are formed; `None` if there is none."""
        return self.pair.score or (list(self.score)[-1] if self.score else None)

    @property
    def served_model(self) -> str | None:
        """The name of the model in requests; `None` if it generates in this process."""
        server, batch = self.sample.server, self.sample.batch_files
        if server is not None:
            return server.model
        if batch is None:
            return None
        return batch.model or (self.model.name_or_path if self.model is not None else None)

    def parameters(self) -> Mapping[str, Mapping[str, Any]]:
        """Return the parameters of every scorer by the name of its score."""
        return {name: section.parameters for name, section in self.score.items()}

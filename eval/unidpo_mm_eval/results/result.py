"""A result: the metrics of predictions, as one JSON file for comparisons and reports."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from unidpo_mm import __version__
from unidpo_mm.atomic import write_text
from unidpo_mm.errors import DataError, Problem

from ..benchmarks import JudgeInfo
from ..data.samples import GradedSample
from ..protocols import Protocol

GENERIC = "predictions?|preds?|responses?|answers?|outputs?"
"""Words of a file name that are not part of a model's name."""
WORD = r"(?:^|[-_.]+)(?:{})(?=$|[-_.])"
FORMAT = 1
"""Version of the file format."""


@dataclass(frozen=True)
class Source:
    """An input file of a result."""

    path: str
    sha256: str
    rows: int
    dropped: int = 0


@dataclass(frozen=True, kw_only=True)
class Reasoning:
    """Counts of responses with reasoning, and the rule that was applied to them."""

    rule: str = "none"  # The protocol's rule, see `scorers/reasoning.py`
    description: str = ""  # The rule in words
    responses: int = 0  # Number of responses with reasoning, in any notation
    removed: int = 0  # Number of responses that the rule shortened
    unclosed: int = 0  # Number of responses that end inside a reasoning block


@dataclass(frozen=True, kw_only=True)
class Result:
    """The result of a model on a benchmark."""

    benchmark: str  # Name of the benchmark
    title: str  # Title of the benchmark
    protocol: Protocol
    headline: str  # Name of the metric that represents the benchmark
    # By the names in `docs/evaluation.md`; rates and accuracies from 0 to 100
    metrics: Mapping[str, float]
    per_sample: tuple[GradedSample, ...]  # All samples in the order of the data
    data: Source  # File or directory of the benchmark data
    predictions: Source  # File of predictions
    model: str | None = None  # Name of the model; `None` for the name in the prediction file
    # How the predictions were made, if their file states it
    manifest: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    judge: JudgeInfo | None = None  # The judge; `None` for rule-based scorers
    # Versions of other distributions that affect the scores
    libraries: Mapping[str, str] = field(default_factory=dict)
    reasoning: Reasoning = Reasoning()  # How reasoning was handled
    # The user's file that defines the benchmark; not written for other benchmarks
    benchmark_file: str | None = None
    format: int = FORMAT  # Version of the file format
    version: str = __version__  # Version of unidpo-mm

    @property
    def name(self) -> str:
        """Name of the model in tables.

        If it is not recorded, the path of the predictions gives it: `pope.jsonl` and `mme.jsonl` in
        one directory belong to the model of the directory's name, and `tuned_pope.jsonl` and
        `tuned_mme.jsonl` to the model `tuned`.
        """
        model = self.model or self.manifest.get("model")
        return str(model or _model_of(Path(self.predictions.path), self.benchmark))


def _model_of(path: Path, benchmark: str) -> str:
    """Return the model that a prediction file is named after."""
    rest = re.sub(WORD.format(re.escape(benchmark)), "", path.stem, flags=re.IGNORECASE)
    name = re.sub(WORD.format(GENERIC), "", rest, flags=re.IGNORECASE).strip("-_.")
    if not name:
        return path.absolute().parent.name or path.stem
    return path.stem if rest == path.stem else name


RESULT = TypeAdapter(Result)


def write_result(result: Result, path: Path) -> None:
    """Write a result as JSON, unrounded and atomically."""
    content = RESULT.dump_python(result, mode="json")
    if result.benchmark_file is None:
        del content["benchmark_file"]
    write_text(path, json.dumps(content, ensure_ascii=False, indent=1))


def read_result(path: Path) -> Result:
    """Read a result."""
    remedy = "Use a file written by `unidpo-mm eval score`"
    try:
        return RESULT.validate_json(path.read_bytes())
    except OSError as error:
        text = f"the file cannot be read ({error.strerror or error})"
        raise DataError(Problem(str(path), text, remedy)) from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        text = f"not a result: {place}: {first['msg']}"
        raise DataError(Problem(str(path), text, remedy)) from error

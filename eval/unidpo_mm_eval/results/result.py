"""A result: what predictions scored, as one JSON file that a comparison or a report reads back."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from unidpo_mm import __version__
from unidpo_mm.errors import DataError, Problem

from ..benchmarks import Verdicts
from ..data.samples import ScoredSample
from ..protocols import Protocol

__all__ = ["Reasoning", "Result", "Source", "read_result", "write_result"]

GENERIC = "predictions?|preds?|responses?|answers?|outputs?"
"""Words of a file name that name no model."""
WORD = r"(?:^|[-_.]+)(?:{})(?=$|[-_.])"
FORMAT = 1
"""Version of the file's layout."""


@dataclass(frozen=True)
class Source:
    """A file that a result was made of.

    Attributes:
        path: Where it was.
        sha256: Of its content.
        rows: How many it has.
        dropped: Rows left out.
    """

    path: str
    sha256: str
    rows: int
    dropped: int = 0


@dataclass(frozen=True, kw_only=True)
class Reasoning:
    """How the reasoning in responses was handled.

    Attributes:
        rule: The protocol's rule, see `extract/reasoning.py`.
        description: The rule in words.
        responses: Number of responses with reasoning, in any notation.
        removed: Number of responses that the rule shortened.
        unclosed: Number of responses that end inside a reasoning block.
    """

    rule: str = "none"
    description: str = ""
    responses: int = 0
    removed: int = 0
    unclosed: int = 0


@dataclass(frozen=True, kw_only=True)
class Result:
    """What predictions scored on a benchmark.

    Attributes:
        benchmark, title: Of the benchmark.
        protocol: The rules.
        headline: The metric that stands for the benchmark.
        metrics: By the names of `docs/evaluation.md`; rates and accuracies from 0 to 100.
        per_sample: Every sample, in the order of the data.
        data, predictions: What it was made of.
        model: What the model is called; None for what the file of predictions says.
        manifest: How the predictions were made, where their file says so.
        warnings: What should be known.
        judge: Whose verdicts it is made of; None for rules alone.
        libraries: Versions of what the scores depend on beside our code.
        reasoning: How reasoning was handled, and how many responses have some.
        format, version: Of the file's layout, and of unidpo-mm.
    """

    benchmark: str
    title: str
    protocol: Protocol
    headline: str
    metrics: Mapping[str, float]
    per_sample: tuple[ScoredSample, ...]
    data: Source
    predictions: Source
    model: str | None = None
    manifest: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    judge: Verdicts | None = None
    libraries: Mapping[str, str] = field(default_factory=dict)
    reasoning: Reasoning = Reasoning()
    format: int = FORMAT
    version: str = __version__

    @property
    def name(self) -> str:
        """What the result is called in tables: the model.

        If nothing names the model, the file of predictions does: `pope.jsonl` and `mme.jsonl` of
        one directory are of the model that the directory is named for, and so are
        `tuned_pope.jsonl` and `tuned_mme.jsonl` of the model `tuned`.
        """
        model = self.model or self.manifest.get("model")
        return str(model or _model_of(Path(self.predictions.path), self.benchmark))


def _model_of(path: Path, benchmark: str) -> str:
    """Return the model that a file of predictions is named for."""
    rest = re.sub(WORD.format(re.escape(benchmark)), "", path.stem, flags=re.IGNORECASE)
    name = re.sub(WORD.format(GENERIC), "", rest, flags=re.IGNORECASE).strip("-_.")
    if not name:
        return path.absolute().parent.name or path.stem
    return path.stem if rest == path.stem else name


RESULT = TypeAdapter(Result)


def write_result(result: Result, path: Path) -> None:
    """Writes a result as JSON, unrounded."""
    content = RESULT.dump_python(result, mode="json")
    whole = path.with_name(f"{path.name}.part")  # a write that fails leaves no half of a result
    whole.write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")
    whole.replace(path)


def read_result(path: Path) -> Result:
    """Returns a result of a file.

    Raises:
        DataError: If there is none that can be read.
    """
    remedy = "Give a file that `unidpo-mm eval score` wrote"
    try:
        return RESULT.validate_json(path.read_bytes())
    except OSError as error:
        found = f"the file cannot be read ({error.strerror or error})"
        raise DataError(Problem(str(path), found, remedy)) from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        found = f"it is no result: {place}: {first['msg']}"
        raise DataError(Problem(str(path), found, remedy)) from error

"""The responses of a finished run as columns of numbers, for warnings, the page and the record."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy
from numpy.typing import NDArray

from ..inference.record_index import RecordIndex
from .load import Making, right_score
from .pairs import is_right
from .run import Made, groups_of

__all__ = ["FaultKind", "ResponseTable", "table_of"]

Numbers = NDArray[numpy.float64]
EXAMPLES = 3
"""Number of faults of a kind that are kept as examples."""
SAMPLING = "responses"
"""Key of the faults of sampling, among the names of scores."""


@dataclass
class FaultKind:
    """Faults of one kind.

    Attributes:
        number: Their number.
        examples: Id of a response and its message, for the first ones.
    """

    number: int = 0
    examples: list[tuple[str, str]] = field(default_factory=list)

    def add(self, response_id: str, message: str) -> None:
        """Count a fault."""
        self.number += 1
        if len(self.examples) < EXAMPLES:
            self.examples.append((response_id, message))


@dataclass(kw_only=True)
class ResponseTable:
    """All responses of a run, [N] in the order of prompts and numbers.

    Attributes:
        ids: Their ids.
        prompts: [N] Index of the prompt of each response.
        lengths: [N] Their lengths.
        unit: Unit of the lengths: ``tokens``, or ``words`` if a response has no number of tokens.
        truncated: [N] Whether a response ended because it reached the maximum length.
        distinct: [P] Number of distinct texts of each prompt, apart from blanks around them.
        counts: [P] Number of responses of each prompt.
        scores: Name -> [N] score; NaN for a response without one.
        right: [N] 1 for a right final answer, 0 for a wrong one, NaN if that is unknown; `None`
            without a score that knows it.
        faults: Name of a score, or ``responses``, -> kind -> faults.
    """

    ids: Sequence[str]
    prompts: NDArray[numpy.int64]
    lengths: Numbers
    unit: str
    truncated: NDArray[numpy.bool_]
    distinct: NDArray[numpy.int64]
    counts: NDArray[numpy.int64]
    scores: Mapping[str, Numbers]
    right: Numbers | None
    faults: Mapping[str, Mapping[str, FaultKind]]

    def __len__(self) -> int:
        return len(self.ids)


def table_of(making: Making, made: Made) -> ResponseTable:
    """Return the table of a run in which all responses have been scored."""
    groups = groups_of(making, made.prompts.items)
    ids = [name for group in groups for name in group.ids]
    counts = numpy.array([len(group.ids) for group in groups], dtype=numpy.int64)
    faults: dict[str, dict[str, FaultKind]] = {}
    columns = _read_responses(ids, counts, made, faults)
    scores = {
        name: numpy.array([*_read_scores(ids, name, store.done, faults)], dtype=numpy.float64)
        for name, store in made.scores.items()
    }
    return ResponseTable(
        ids=ids,
        prompts=numpy.repeat(numpy.arange(len(groups)), counts),
        counts=counts,
        scores=scores,
        right=_right(making, scores),
        faults=faults,
        **columns,
    )


def _read_responses(
    ids: Sequence[str],
    counts: NDArray[numpy.int64],
    made: Made,
    faults: dict[str, dict[str, FaultKind]],
) -> dict[str, Any]:
    """Return the columns of the responses themselves."""
    tokens, words, truncated, texts = [], [], [], []
    for record in _records(made.responses, ids):
        text = record["response"]
        tokens.append(record.get("new_tokens", numpy.nan))
        words.append(len(text.split()))
        truncated.append(record.get("finish_reason") == "length")
        texts.append(hash(text.strip()))
        _count_fault(faults, SAMPLING, record)
    ends = numpy.cumsum(counts)
    distinct = [len(set(texts[end - n : end])) for end, n in zip(ends, counts, strict=True)]
    lengths = numpy.array(tokens, dtype=numpy.float64)
    has_tokens = not numpy.isnan(lengths).any()
    return {
        "lengths": lengths if has_tokens else numpy.array(words, dtype=numpy.float64),
        "unit": "tokens" if has_tokens else "words",
        "truncated": numpy.array(truncated, dtype=bool),
        "distinct": numpy.array(distinct, dtype=numpy.int64),
    }


def _read_scores(
    ids: Sequence[str],
    name: str,
    records: Mapping[str, Mapping[str, Any]],
    faults: dict[str, dict[str, FaultKind]],
) -> Iterator[float]:
    for record in _records(records, ids):
        _count_fault(faults, name, record)
        yield numpy.nan if record.get("score") is None else record["score"]


def _records(
    records: Mapping[str, Mapping[str, Any]], ids: Sequence[str]
) -> Iterable[Mapping[str, Any]]:
    """Return records in the order of the ids; those of files are read with few calls."""
    if isinstance(records, RecordIndex):
        return (record for _, _, record in records.lines(ids))
    return (records[name] for name in ids)


def _count_fault(
    faults: dict[str, dict[str, FaultKind]], subject: str, record: Mapping[str, Any]
) -> None:
    if "fault" in record or "error" in record:
        kinds = faults.setdefault(subject, {})
        message = str(record.get("message", record.get("error", "")))
        kinds.setdefault(record.get("fault", "error"), FaultKind()).add(record["id"], message)


def _right(making: Making, scores: Mapping[str, Numbers]) -> Numbers | None:
    name = right_score(making.recipe, making.scorers)
    if name is None:
        return None
    values = (None if numpy.isnan(score) else float(score) for score in scores[name])
    rights = (is_right(value, making, name) for value in values)
    return numpy.array([numpy.nan if right is None else right for right in rights], dtype=float)

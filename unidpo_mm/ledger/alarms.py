"""Alarms: signs in a ledger that a run does not do what its user expects, each with advice.

An alarm is a statement about all visits so far, so that a resumed run raises the same ones. The
thresholds are far from what usual runs do: an alarm that is often wrong would not be read. This
module computes with numpy and not with polars, whose threads do not survive a fork: a run may be a
forked process, and its data workers are.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import pyarrow as pa
import pyarrow.parquet
from numpy.typing import NDArray

from .files import description_of, read_files

__all__ = ["Alarm", "find_alarms", "read_visits"]

MIN_VISITS = 64
"""Visits below which nothing is concluded."""

MIN_STEPS = 4
"""Steps below which beginning and end are not compared."""

FALLEN = -0.3
"""Change of the chosen responses' log-prob per token that counts as a fall."""

COLLAPSED = 0.02
"""Mean contribution at the end, relative to the beginning, that counts as a collapse."""

NEARLY_ALL = 0.9
"""Share of the gate or of the contribution that counts as all of it."""

FEW_VISITS = 0.7
"""Share of the visits up to which holding nearly all of the contribution is unexpected."""

FLAT, STEEP = 0.1, 6.0
"""eta times the median score margin: below, quality weights are alike; above, they are all 1."""

CORRELATED = 0.6
"""Rank correlation of weight and length that counts as a dependence."""

Array = NDArray[Any]


@dataclass(frozen=True)
class Alarm:
    """A sign of trouble.

    Attributes:
        name: A short name.
        message: What was observed, with numbers.
        advice: What to do about it.
    """

    name: str
    message: str
    advice: str

    def __str__(self) -> str:
        return f"{self.message}. {self.advice}."


@dataclass(frozen=True)
class Visits:
    """The visits of a run in the order of their steps.

    Attributes:
        columns: Column -> its values [V]; NaN where there is none. Terms have their own names.
        loss: The parameters of the loss.
    """

    columns: Mapping[str, Array]
    loss: Mapping[str, Any]

    def __len__(self) -> int:
        return len(self.columns["step"])

    def __getitem__(self, name: str) -> Array:
        return self.columns[name]

    def quarter(self, number: int) -> Array:
        """Return which visits are in a quarter of the steps, 0 to 3."""
        step = self["step"]
        first = step.min()
        mask: Array = (step - first) * 4 // (step.max() - first + 1) == number
        return mask


def read_visits(folder: Path) -> Visits | None:
    """Return the visits of a ledger that changed the weights; `None` if there are no lines."""
    paths, opened = read_files(folder)
    tables = [pyarrow.parquet.read_table(path) for path in paths]
    tables += [] if opened is None else [opened]
    if not tables:
        return None
    loss = description_of(tables[-1].schema.metadata, folder)["loss"]
    table = pa.concat_tables(tables, promote_options="default")
    table = table.filter(table["applied"])
    names = [name for name in table.column_names if name not in ("pair_id", "row_id")]
    columns = {name: table[name].to_numpy() for name in names}
    return Visits(columns, loss)


def find_alarms(visits: Visits | None) -> list[Alarm]:
    """Return the alarms of a run."""
    if visits is None or len(visits) < MIN_VISITS:
        return []
    if numpy.ptp(visits["step"]) < MIN_STEPS:
        return []
    return [alarm for check in CHECKS for alarm in check(visits)]


def _falling(visits: Visits) -> Iterator[Alarm]:
    policy, reference = visits["policy_chosen_logp"], visits["reference_chosen_logp"]
    lengths, last = visits["chosen_length"], visits.quarter(3)
    if numpy.isnan(reference).all():  # a loss without reference: compare with the beginning
        per_token = policy / lengths
        change = _mean(per_token[last]) - _mean(per_token[visits.quarter(0)])
        since = "the first quarter"
    else:
        change = _mean(((policy - reference) / lengths)[last])
        since = "the reference"
    if change < FALLEN:
        yield Alarm(
            "chosen log-probs fall",
            f"in the last quarter, the log-prob per token of chosen responses is {-change:.2f} "
            f"below that of {since}",
            "Responses that the data prefer become unlikely: lower the learning rate, raise beta, "
            "or raise nll_lambda or sft_weight",
        )


def _collapsed(visits: Visits) -> Iterator[Alarm]:
    contribution = visits["contribution"]
    first, last = (_mean(contribution[visits.quarter(n)]) for n in (0, 3))
    if last < COLLAPSED * first:
        yield Alarm(
            "contributions collapse",
            f"pairs contribute {last / first:.1%} of what they contributed in the first quarter",
            "Further steps change little: train for fewer steps, raise tau_ref or lower gamma so "
            "that learned pairs keep some weight, or lower beta",
        )


def _gate(visits: Visits) -> Iterator[Alarm]:
    if "nll_gate" not in visits.columns or not visits.loss.get("nll_lambda"):
        return
    gate, late = visits["nll_gate"], visits["step"] > visits["step"].max() / 2
    losing = visits["reference_chosen_logp"] > visits["policy_chosen_logp"]
    if gate[late].mean() > NEARLY_ALL:
        yield Alarm(
            "gate always open",
            f"the gate of the calibrated NLL is open for {gate[late].mean():.0%} of the visits in "
            "the second half",
            "Good responses keep losing likelihood: lower the learning rate, or raise nll_lambda",
        )
    elif losing[late].mean() > 1 - NEARLY_ALL and not gate.any():
        scores = visits["score_chosen"]
        best = numpy.nanmax(scores) if numpy.isfinite(scores).any() else math.nan
        if not best < _largest_tau_good(visits.loss):
            return  # no response that is good enough has lost likelihood
        yield Alarm(
            "gate never open",
            f"{losing[late].mean():.0%} of the chosen responses lost likelihood in the second "
            f"half, but no chosen score reaches tau_good (the highest is {best:g})",
            "Lower tau_good, or set it to median",
        )


def _largest_tau_good(loss: Mapping[str, Any]) -> float:
    """Return the largest threshold of the gate over all sources."""
    by_source = (loss.get("by_source") or {}).values()
    values = [loss.get("tau_good"), *(parameters.get("tau_good") for parameters in by_source)]
    return max((value for value in values if isinstance(value, int | float)), default=math.inf)


def _concentrated(visits: Visits) -> Iterator[Alarm]:
    weighted = visits["contribution"] * visits["weight"]
    pull = numpy.where(numpy.isfinite(weighted), weighted, 0.0)
    total = pull.sum()
    for column in ("source", "domain"):
        for name in sorted(set(visits[column])):
            mask = visits[column] == name
            share = pull[mask].sum() / total if total > 0 else 0.0
            if share > NEARLY_ALL and mask.mean() < FEW_VISITS:
                yield Alarm(
                    "one part of the data dominates",
                    f"the {column} '{name}' makes {share:.0%} of the contributions with "
                    f"{mask.mean():.0%} of the visits",
                    "Check the score scale and the loss parameters of the other sources",
                )
                return


def _score_range(visits: Visits) -> Iterator[Alarm]:
    eta = visits.loss.get("eta")
    margins = numpy.abs(visits["score_margin"])
    if not eta or visits.loss.get("quality_weight", "score") != "score":
        return
    by_source = visits.loss.get("by_source") or {}
    texts, slopes = [], []
    for source in sorted(set(visits["source"])):
        slope = by_source.get(source, {}).get("eta", eta)
        values = margins[visits["source"] == source]
        values = values[numpy.isfinite(values)]
        margin = float(numpy.median(values)) if len(values) else 0.0
        if FLAT <= slope * margin <= STEEP or not margin > 0:
            continue
        effect = "are close to 0.5" if slope * margin < FLAT else "are nearly all 1"
        texts.append(f"of '{source}' is {margin:.3g} (eta {slope:g}): its quality weights {effect}")
        slopes.append(f"{2 / margin:.2g}")
    if texts:
        yield Alarm(
            "score range unfit for eta",
            f"the median score margin {'; '.join(texts)}",
            f"Set scores.scale of the source, or its eta to about {', '.join(slopes)}",
        )


def _length(visits: Visits) -> Iterator[Alarm]:
    weights = [visits[name] for name in visits.columns if name.startswith("w_")]
    if not weights:
        return
    weight = numpy.prod(weights, axis=0)
    chosen, rejected = visits["chosen_length"], visits["rejected_length"]
    for name, length in (
        ("of the chosen response", chosen),
        ("by which the chosen response is longer", chosen - rejected),
    ):
        correlation = _spearman(weight, length)
        if abs(correlation) > CORRELATED:
            direction = "grow" if correlation > 0 else "shrink"
            yield Alarm(
                "weights depend on length",
                f"weights {direction} with the number of tokens {name} (rank correlation "
                f"{correlation:.2f})",
                "Look at a few pairs of each end: the scores may favor a length, or the loss may "
                "need length_norm",
            )
            return


def _mean(values: Array) -> float:
    """Return the mean of the finite values; NaN if there are none."""
    finite = values[numpy.isfinite(values)]
    return float(finite.mean()) if len(finite) else math.nan


def _spearman(left: Array, right: Array) -> float:
    """Return the rank correlation; 0 if one side is constant."""
    finite = numpy.isfinite(left) & numpy.isfinite(right)
    if not finite.any():
        return 0.0
    first, second = _ranks(left[finite]), _ranks(right[finite])
    if first.std() == 0 or second.std() == 0:
        return 0.0
    return float(numpy.corrcoef(first, second)[0, 1])


def _ranks(values: Array) -> Array:
    """Return ranks; equal values have the mean of their ranks."""
    _, inverse, counts = numpy.unique(values, return_inverse=True, return_counts=True)
    ends = counts.cumsum()
    means: Array = ends - (counts - 1) / 2
    return means[inverse]


CHECKS: tuple[Callable[[Visits], Iterator[Alarm]], ...] = (
    _falling,
    _collapsed,
    _gate,
    _concentrated,
    _score_range,
    _length,
)

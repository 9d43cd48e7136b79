"""Shared by sets of preference pairs: how they are read, and the metrics of their rewards.

The reward of a response is beta * (log pi - log ref) if there is a reference, otherwise the
log-prob per token. A tie counts as wrong.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from unidpo_mm.config import SourceOptions
from unidpo_mm.data.images import identity
from unidpo_mm.data.load import load_rows, read_records
from unidpo_mm.data.videos import video_identity
from unidpo_mm.errors import DataError, Problem
from unidpo_mm.records import PreferenceRow

from ..data.dataset import Dataset, file_hash
from ..data.json_files import JsonRow
from ..data.json_files import read_records as read_json
from ..data.samples import GradedSample, Image, Sample, Video
from ..stats.metrics import (
    Array,
    MetricRow,
    Metrics,
    Totals,
    divide,
    mean_metrics,
    mean_of,
    mean_score,
    share,
)
from . import Benchmark, Scorer


@dataclass(frozen=True, kw_only=True)
class PairSet:
    """Rows with preference pairs."""

    path: Path
    sha256: str  # Hash of its content
    rows: Sequence[PreferenceRow]  # Each with at least one pair
    # Row id -> label -> value, in addition to the domain
    groups: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    # Row id -> unit; a unit is correct if all its pairs are
    units: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()  # Warnings of the reader


PairReader = Callable[[Path, Path | None], PairSet]
"""(file, image directory) -> its pairs."""
RecordReader = Callable[[JsonRow], Mapping[str, Any] | None]
"""Record of a reward benchmark -> prompt, chosen, rejected, images, group and optionally unit;
`None` skips the record."""


def training_pairs(path: Path, images: Path | None) -> PairSet:
    """Read the pairs of a file in any format that the trainer reads."""
    folder = None if images is None else str(images)
    source = SourceOptions(path=str(path), images=folder, images_outside=True)
    rows = [row for row in load_rows([source]) if row.pairs]
    if not rows:
        raise DataError(Problem(str(path), "no row has a pair", "Use rows with two responses"))
    return PairSet(path=path, sha256=file_hash([path]), rows=rows)


def reward_pairs(
    path: Path, images: Path | None, *, read: RecordReader, skip_reason: str = ""
) -> PairSet:
    """Read the pairs of a reward benchmark.

    Images are searched next to the file by default; `skip_reason` says why records may be
    skipped.
    """
    problems: list[Problem] = []
    records, groups, units, skipped = [], {}, {}, 0
    for number, row in enumerate(read_json([path], problems), start=1):
        pair = read(row)
        problems += row.problems
        if pair is None or row.problems:
            skipped += pair is None and not row.problems
            continue
        row_id = str(number)
        names = ("prompt", "chosen", "rejected", "images")
        records.append({"id": row_id} | {name: pair[name] for name in names})
        groups[row_id] = {"group": str(pair["group"])}
        units[row_id] = str(pair.get("unit", row_id))
    folder = str(images or path.parent)
    source = SourceOptions(path=str(path), images=folder, images_outside=True)
    loaded = read_records(records, source)
    problems += loaded.problems
    if not records and not problems:
        problems.append(Problem(str(path), "no pairs", "Use the benchmark's file"))
    if problems:
        raise DataError(problems)
    return PairSet(
        path=path,
        sha256=file_hash([path]),
        rows=loaded.rows,
        groups=groups,
        units=units,
        notes=[f"skipped {skipped} rows: {skip_reason}"] if skipped else [],
    )


def pair_ids(row: PreferenceRow) -> list[str]:
    """Return the ids of a row's pairs: the row's id, numbered if it has several pairs."""
    if len(row.pairs) == 1:
        return [row.id]
    return [f"{row.id}#{number}" for number in range(len(row.pairs))]


def pair_benchmark(
    name: str,
    title: str,
    pairs: PairReader,
    *,
    rows: int | None = None,
    files: tuple[str, ...],
    layout: str,
) -> Benchmark:
    """Build a benchmark of preference pairs.

    `rows` is the size of the complete data; `None` for any size.
    """
    return Benchmark(
        name=name,
        title=title,
        read=partial(_read, pairs),
        scorers={"implicit-reward": PAIR_SCORER},
        expected={} if rows is None else {"rows": rows},
        files=files,
        layouts=(layout,),
        pairs=pairs,
    )


def _read(pairs: PairReader, path: Path, with_images: bool) -> Dataset:
    pair_set = pairs(path, None)
    samples = tuple(
        Sample(
            id=pair_id,
            where=row.where,
            question=row.messages[-1].text,
            labels={"domain": row.domain, **pair_set.groups.get(row.id, {})},
            images=tuple(Image(identity(i), i if with_images else None) for i in row.images),
            videos=tuple(Video(video_identity(v), v if with_images else None) for v in row.videos),
        )
        for row in pair_set.rows
        for pair_id in pair_ids(row)
    )
    notes = tuple(pair_set.notes)
    return Dataset(path=path, sha256=pair_set.sha256, samples=samples, notes=notes)


def pair_metrics(samples: Sequence[GradedSample]) -> Metrics:
    """Return accuracies, margins and rates of pairs, all with intervals.

    The `details` of a pair are ``margin`` and, per response, log-prob per token and number of
    tokens.
    """
    metrics = mean_score("accuracy", samples)
    valid = [sample for sample in samples if sample.error is None]
    ties = {s.id for s in valid if s.details["margin"] == 0.0}
    halves: list[MetricRow] = [(s.cluster, 0.5 if s.id in ties else s.score, {}) for s in samples]
    mean_metrics("accuracy_ties_half", halves, metrics=metrics)
    units: dict[str, list[GradedSample]] = defaultdict(list)
    for sample in samples:
        units[sample.unit].append(sample)
    correct: list[MetricRow] = [
        (members[0].cluster, min(s.score for s in members), {}) for members in units.values()
    ]
    mean_metrics("acc_plus", correct, metrics=metrics)
    lengths: dict[str, list[GradedSample]] = defaultdict(list)
    for sample in valid:
        difference = sample.details["chosen_tokens"] - sample.details["rejected_tokens"]
        lengths["same" if not difference else "longer" if difference > 0 else "shorter"].append(
            sample
        )
    for name, members in lengths.items():
        mean_score(f"accuracy/chosen/{name}", members, by_label=False, metrics=metrics)
    for sample in valid:
        _add_rewards(sample, metrics)
    for name in ("margin", "chosen_logp", "rejected_logp"):
        metrics.formulas[f"mean_{name}"] = share(name, "pairs", scale=1.0)
    groups = [name for name in metrics.formulas if name.startswith("accuracy/group/")]
    if groups:
        metrics.formulas["macro_accuracy"] = mean_of([metrics.formulas[name] for name in groups])
    return metrics


def _add_rewards(sample: GradedSample, metrics: Metrics) -> None:
    cluster, values, add = sample.cluster, sample.details, metrics.sums.add
    add(cluster, "pairs")
    for name in ("margin", "chosen_logp", "rejected_logp"):
        add(cluster, name, values[name])
    if "fell" in values:
        add(cluster, "fell", values["fell"])
        metrics.formulas["chosen_fell_rate"] = share("fell", "pairs")
    if "score_margin" in values:
        x, y = values["margin"], values["score_margin"]
        products = {"n": 1, "x": x, "y": y, "xx": x * x, "yy": y * y, "xy": x * y}
        for name, value in products.items():
            add(cluster, f"c_{name}", value)
        metrics.formulas["score_margin_correlation"] = _correlation


def _correlation(totals: Totals) -> Array:
    n, x, y = totals["c_n"], totals["c_x"], totals["c_y"]
    covariance = n * totals["c_xy"] - x * y
    variances = (n * totals["c_xx"] - x**2) * (n * totals["c_yy"] - y**2)
    return divide(covariance, np.sqrt(np.maximum(variances, 0)), empty=np.nan)


def extra_pair_metrics(samples: Sequence[GradedSample]) -> dict[str, float]:
    """Return the median margin and the AUC of rewards, which are not formulas over sums."""
    details = [sample.details for sample in samples if sample.error is None]
    if not details:
        return {}
    sides = ("chosen_reward", "rejected_reward")
    chosen, rejected = (np.array([values[side] for values in details]) for side in sides)
    from scipy.stats import rankdata  # takes a second to import

    ranks = rankdata(np.concatenate([chosen, rejected]))[: len(chosen)]
    below = ranks.sum() - len(chosen) * (len(chosen) + 1) / 2
    return {
        "median_margin": float(np.median([values["margin"] for values in details])),
        "auc": float(100 * below / (len(chosen) * len(rejected))),
    }


PAIR_SCORER = Scorer(metrics=pair_metrics, headline="accuracy", extra_metrics=extra_pair_metrics)
"""The scorer of every set of pairs."""

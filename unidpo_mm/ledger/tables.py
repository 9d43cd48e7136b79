"""Questions to a ledger: what the weights did, which pairs mattered, which scores look wrong.

Every answer is a polars table, in which `pairs` counts pairs and `visits` counts lines. The
*weight* of a visit is the product of the loss terms whose names start with ``w_``. Its
*contribution* is |d loss / d reward margin|, which also contains how far the pair has been learned.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import polars as pl
import pyarrow.parquet

from ..errors import DataError, Problem, counted
from .files import description_of, ledger_directory, read_files

__all__ = [
    "RANKINGS",
    "Ledger",
    "Ranking",
    "by_group",
    "over_time",
    "pair_history",
    "quadrants",
    "rank_correlation",
    "read_ledger",
    "top_pairs",
]

Ranking = Literal["ignored", "hard", "suspected"]

RANKINGS: dict[Ranking, str] = {
    "suspected": "pairs that the policy ranks against their scores with confidence: suspected "
    "label errors",
    "hard": "pairs whose reward margin is not positive at their last visit, the smallest first",
    "ignored": "pairs that contribute least, on average over their visits",
}
"""The rankings of `top_pairs`, with what they list."""

SUSPECTED = 1.0
"""Minimum suspicion of a listed pair, in nats: it is more than e times as likely to be swapped."""

MAX_NAMED = 10
"""Maximum number of ids in a message."""

LENGTH_BANDS = 4
"""Number of groups of equal size by response length."""


@dataclass(frozen=True)
class Ledger:
    """The ledger of a run.

    Attributes:
        folder: Its directory.
        visits: One row per visit, see `columns.COLUMNS`; with the terms of the loss and the columns
            ``pair_weight``, the product of all weights, and ``reward_margin``.
        terms: The terms of the loss.
        loss: The loss and its resolved parameters.
        unit: ``pair``, or ``response`` for a loss of single responses.
    """

    folder: Path
    visits: pl.LazyFrame
    terms: tuple[str, ...]
    loss: dict[str, Any]
    unit: str

    @property
    def applied(self) -> pl.LazyFrame:
        """The visits in steps that changed the weights; questions count no others."""
        return self.visits.filter(pl.col("applied"))


def read_ledger(path: Path) -> Ledger:
    """Open the ledger of a run, which may still be training.

    Args:
        path: The output directory of the run, or the ledger in it.

    Raises:
        DataError: If there is no ledger, or a file of it is damaged.
    """
    folder = ledger_directory(path)
    frames, metadata = [], None
    parts, table = read_files(folder)
    for part in parts:
        try:
            metadata = description_of(pyarrow.parquet.read_schema(part).metadata, part)
        except (OSError, pyarrow.ArrowInvalid) as error:
            text = f"it cannot be read ({' '.join(str(error).split())})"
            remedy = "Restore it, or remove it to look at the other steps"
            raise DataError(Problem(str(part), text, remedy)) from None
        frames.append(pl.scan_parquet(part))
    if table is not None:
        metadata = description_of(table.schema.metadata, folder)
        opened = pl.from_arrow(table)
        assert isinstance(opened, pl.DataFrame)  # a table becomes a frame
        frames.append(opened.lazy())
    if not frames or metadata is None:
        raise DataError(Problem(str(folder), "it has no lines yet", "Look again later"))
    visits = pl.concat(frames, how="diagonal_relaxed")
    columns = visits.collect_schema().names()
    weights = [pl.col(name) for name in columns if name.startswith("w_")]
    weight = pl.col("weight")
    for factor in weights:
        weight = weight * factor.fill_null(1.0)
    return Ledger(
        folder=folder,
        visits=visits.with_columns(pair_weight=weight),
        terms=tuple(name for name in metadata["terms"] if name in columns),
        loss=metadata["loss"],
        unit=metadata["unit"],
    )


def over_time(ledger: Ledger, *, periods: int = 8) -> pl.DataFrame:
    """Return means and effective sample sizes of consecutive periods with equally many steps.

    The effective sample size of values x is (sum x)^2 / sum x^2 relative to their number: 1 if all
    are equal, 1/n if a single one of n is not zero.
    """
    last = ledger.applied.select(pl.col("step").max()).collect().item() or 1
    period = ((pl.col("step").cast(pl.Int64) - 1) * min(periods, last) // last).alias("period")
    terms = [pl.col(name).mean() for name in ledger.terms]
    return (
        ledger.applied.group_by(period)
        .agg(
            pl.col("step").min().alias("first_step"),
            pl.col("step").max().alias("last_step"),
            pl.len().alias("visits"),
            *_means(),
            _effective_share("pair_weight").alias("effective_by_weight"),
            _effective_share("contribution").alias("effective_by_contribution"),
            *terms,
        )
        .sort("period")
        .drop("period")
        .collect()
    )


def by_group(ledger: Ledger, column: Literal["source", "domain", "length"]) -> pl.DataFrame:
    """Return means by source, by domain, or by length of the chosen response.

    The share of the contribution is that of the group in the sum of all contributions: how much of
    what the model learned came from it.
    """
    length = pl.col("chosen_length")
    key, first = pl.col(column if column != "length" else "band").alias("group"), pl.lit(0)
    visits = ledger.applied
    if column == "length":
        lengths = visits.select(length).collect().to_series()
        edges = [lengths.quantile(n / LENGTH_BANDS, "lower") for n in range(1, LENGTH_BANDS)]
        bands = sum(((length > edge).cast(pl.Int32) for edge in edges), pl.lit(0))
        limits = (
            length.min().cast(pl.Int64).over("band"),
            length.max().cast(pl.Int64).over("band"),
        )
        visits = visits.with_columns(band=bands).with_columns(band=pl.format("{}-{}", *limits))
        first = length.min()
    return (
        visits.group_by(key)
        .agg(
            pl.col("pair_id").n_unique().alias("pairs"),
            pl.len().alias("visits"),
            *_means(),
            (pl.col("contribution") * pl.col("weight")).sum().alias("sum"),
            first.alias("first"),
        )
        .sort("first", "group")
        .with_columns(_share("sum").alias("share_of_contribution"))
        .drop("sum", "first")
        .collect()
    )


def rank_correlation(ledger: Ledger) -> pl.DataFrame:
    """Return Spearman's correlation of score margin and reward margin in each pass."""
    epoch = pl.col("epoch").floor().cast(pl.Int32).alias("epoch")
    return (
        ledger.applied.drop_nulls(["score_margin", "reward_margin"])
        .group_by(epoch)
        .agg(
            pl.len().alias("visits"),
            pl.corr("score_margin", "reward_margin", method="spearman").alias("spearman"),
        )
        .sort("epoch")
        .collect()
    )


def quadrants(ledger: Ledger, *, periods: int = 3) -> pl.DataFrame:
    """Return how visits divide by quality and performance, in consecutive periods.

    Quality is high if the score margin is at least the median of all visits; a pair counts as
    learned if its reward margin is positive.
    """
    visits = ledger.applied.drop_nulls(["score_margin", "reward_margin"])
    last = ledger.applied.select(pl.col("step").max()).collect().item() or 1
    period = ((pl.col("step").cast(pl.Int64) - 1) * min(periods, last) // last + 1).alias("period")
    high = pl.col("score_margin") >= pl.col("score_margin").median()
    quality = pl.when(high).then(pl.lit("high")).otherwise(pl.lit("low")).alias("quality")
    learned = (pl.col("reward_margin") > 0).alias("learned")
    contribution = pl.col("contribution") * pl.col("weight")
    return (
        visits.with_columns(period, quality, learned, contribution.alias("sum"))
        .group_by("period", "quality", "learned")
        .agg(pl.len().alias("visits"), pl.col("pair_weight").mean(), pl.col("sum").sum())
        .with_columns(
            (pl.col("visits") / pl.col("visits").sum().over("period")).alias("share_of_visits"),
            _share("sum", "period").alias("share_of_contribution"),
        )
        .drop("sum")
        .sort("period", "quality", "learned")
        .collect()
    )


def top_pairs(ledger: Ledger, ranking: Ranking, *, limit: int | None = 20) -> pl.DataFrame:
    """Return the first pairs of a ranking.

    The column ``suspicion`` is the log-likelihood ratio, in nats and summed over the visits of a
    pair, of its two responses being swapped against their being right: -2 m mean / variance for a
    policy margin m (log-prob per token of the chosen minus that of the rejected response) under
    normal distributions with means of opposite sign. Mean and variance are those of the visits of
    the same source at the same time, so that margins count only where the policy ranks the pairs of
    the source by their scores on average.

    Args:
        ledger: The ledger.
        ranking: One of `RANKINGS`.
        limit: Maximum number of pairs; `None` for all.
    """
    pairs = _pairs(ledger)
    if ranking == "ignored":
        ordered = pairs.drop_nulls("contribution").sort("contribution", "pair_id")
    elif ranking == "hard":
        ordered = pairs.filter(pl.col("last_margin") <= 0).sort("last_margin", "pair_id")
    else:
        ordered = pairs.filter(pl.col("suspicion") > SUSPECTED).sort(
            "suspicion", "pair_id", descending=[True, False]
        )
    return ordered if limit is None else ordered.head(limit)


def pair_history(ledger: Ledger, name: str) -> pl.DataFrame:
    """Return the visits of a pair in their order.

    Args:
        ledger: The ledger.
        name: The id of the pair or the beginning of it, or the id of its row.

    Raises:
        DataError: If no pair has the name, or several pairs have.
    """
    pair_id, row_id = pl.col("pair_id"), pl.col("row_id")
    for matches in (pair_id == name, row_id == name, pair_id.str.starts_with(name)):
        visits = ledger.visits.filter(matches).sort("step", "rank", "position").collect()
        ids = visits["pair_id"].unique(maintain_order=True).to_list()
        if ids:
            break
    if not ids:
        text = f"no visit of a pair '{name}' is recorded"
        remedy = "Use an id from 'unidpo-mm ledger top'"
        raise DataError(Problem(str(ledger.folder), text, remedy))
    if len(ids) > 1:
        examples = ", ".join(ids[:MAX_NAMED])
        text = f"'{name}' matches {counted(len(ids), 'pair')}: {examples}"
        raise DataError(Problem(str(ledger.folder), text, "Use the id of one of them"))
    return visits


def _means() -> list[pl.Expr]:
    margins = pl.col("reward_margin")
    return [
        pl.col("loss").mean(),
        margins.mean(),
        (margins > 0).mean().alias("accuracy"),
        pl.col("pair_weight").mean(),
        pl.col("contribution").mean(),
    ]


def _share(column: str, group: str | None = None) -> pl.Expr:
    """Return values relative to their sum; null if it is 0."""
    total = pl.col(column).sum()
    total = total if group is None else total.over(group)
    return pl.when(total > 0).then(pl.col(column) / total)


def _effective_share(column: str) -> pl.Expr:
    values = pl.col(column).drop_nulls()
    squares = (values**2).sum()
    return pl.when(squares > 0).then(values.sum() ** 2 / squares / values.len())


def _pairs(ledger: Ledger) -> pl.DataFrame:
    """Return one line per pair, from all of its visits."""
    margin = pl.col("reward_margin")
    chosen, rejected = (
        pl.col(f"policy_{side}_logp") / pl.col(f"{side}_length") for side in ("chosen", "rejected")
    )
    groups, policy_margin = ["window", "source"], pl.col("policy_margin")
    mean, variance = policy_margin.mean().over(groups), policy_margin.var().over(groups)
    ratio = pl.when((mean > 0) & (variance > 0)).then(-2 * mean * policy_margin / variance)
    return (
        ledger.applied.sort("step", "rank", "position")
        .with_columns(window=_windows(ledger), policy_margin=chosen - rejected)
        .with_columns(ratio=ratio)
        .group_by("pair_id", maintain_order=True)
        .agg(
            pl.col("row_id").first(),
            pl.col("source").first(),
            pl.col("domain").first(),
            pl.len().alias("visits"),
            pl.col("score_margin").last(),
            margin.first().alias("first_margin"),
            margin.last().alias("last_margin"),
            pl.col("pair_weight").mean(),
            pl.col("contribution").mean(),
            pl.col("ratio").sum().alias("suspicion"),
        )
        .collect()
    )


def _windows(ledger: Ledger) -> pl.Expr:
    """Return the window of each visit, in which margins are compared: 64 visits on average."""
    count = ledger.applied.select(pl.len()).collect().item()
    steps = ledger.applied.select(pl.col("step").max()).collect().item() or 1
    windows = max(min(count // 64, steps), 1)
    window: pl.Expr = (pl.col("step").cast(pl.Int64) - 1) * windows // steps
    return window

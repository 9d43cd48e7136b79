"""A loss together with its parameters, which may differ between data sources."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import torch
from torch import Tensor

from ..config import SourceLoss
from ..config.checks.loss import loss_config
from ..config.loss_aliases import resolve_loss
from ..config.python import UniDPOConfig
from ..errors import DataError, Problem, RecipeError
from ..losses.base import Loss
from ..plugins import load_loss, suggestion
from ..records import GroupBatch, LossOutput, PairLogps, PreferenceRow, SequenceLogps

__all__ = ["SOURCE_PARAMETERS", "ConfiguredLoss", "configure_loss", "configured_loss"]

SOURCE_PARAMETERS = tuple(SourceLoss.__annotations__)
"""Parameters that may differ by source, as in the released text, math and image settings."""

BY_SOURCE = {*SOURCE_PARAMETERS, "missing_quality"}
"""The same, and the parameter that follows from `scores.missing` of a source."""


@dataclass(frozen=True, kw_only=True)
class ConfiguredLoss:
    """The loss of a run.

    Attributes:
        loss: The loss.
        config: The parameters of all sources.
        by_source: Source -> the parameters that differ there.
        state: The state that a stateful loss keeps between batches; `None` for other losses.
    """

    loss: Loss
    config: Any
    by_source: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    state: Any = None

    def compute(self, policy: SequenceLogps, pairs: PairLogps, batch: GroupBatch) -> LossOutput:
        """Return the loss of each unit of a batch."""
        if self.loss.unit == "response":
            output = self.loss.compute(policy.select(batch.responses.indices[:, 0]), self.config)
        else:
            state = () if self.state is None else (self.state,)
            output = self.loss.compute(pairs, self.config_for(batch), *state)
        self._check_output(output)
        units = batch.units(self.loss.unit)
        if output.per_unit.shape != units.weight.shape:  # a mean would silently broadcast
            problem = f"compute returns per_unit of shape {tuple(output.per_unit.shape)} for "
            problem += f"{len(units)} {self.loss.unit}s"
            remedy = f"Return one entry per {self.loss.unit}"
            raise RecipeError(Problem(f"the loss '{self.loss.name}'", problem, remedy))
        return output

    def _check_output(self, output: Any) -> None:
        """Refuse what `compute` of a user's loss must not return."""
        where = f"the loss '{self.loss.name}'"
        if not isinstance(output, LossOutput):
            problem = f"compute returns {type(output).__name__}, not a LossOutput"
            raise RecipeError(Problem(where, problem, "Return loss_output(...)"))
        if set(output.terms) != set(self.loss.terms):
            problem = f"compute returns the terms {sorted(output.terms)}, and LOSS.terms is "
            problem += f"{sorted(self.loss.terms)}"
            raise RecipeError(Problem(where, problem, "Use the same names in both places"))

    def config_for(self, batch: GroupBatch) -> Any:
        """Return the parameters of a batch: numbers, or tensors [P] if sources differ."""
        names = {name for source in batch.sources for name in self.by_source.get(source, {})}
        if not names:
            return self.config
        return dataclasses.replace(
            self.config, **{name: self._per_pair(name, batch) for name in names}
        )

    def _per_pair(self, name: str, batch: GroupBatch) -> Tensor:
        common = getattr(self.config, name)
        values = [self.by_source.get(source, {}).get(name, common) for source in batch.sources]
        values = [math.nan if value is None else value for value in values]
        table = torch.tensor(values, dtype=batch.scores.dtype, device=batch.scores.device)
        return table[batch.pairs.source]

    def with_medians(
        self, rows: Sequence[PreferenceRow], *, lenient: bool = False
    ) -> "ConfiguredLoss":
        """Return the same loss with each ``tau_good: median`` replaced by a number.

        The number is the median score of the chosen responses in the training pairs of a source.

        Args:
            rows: The training rows.
            lenient: Whether a source without any score gets an infinite `tau_good`, so that no
                response counts as good, instead of an error.
        """
        if not hasattr(self.config, "tau_good"):
            return self
        values = {
            source: self.by_source.get(source, {}).get("tau_good", self.config.tau_good)
            for source in dict.fromkeys(row.source for row in rows)
        }
        if "median" not in (self.config.tau_good, *values.values()):
            return self
        numbers = {
            source: self._median_tau(rows, source, lenient) if value == "median" else float(value)
            for source, value in values.items()
        }
        by_source = {
            source: {**self.by_source.get(source, {}), "tau_good": number}
            for source, number in numbers.items()
        }
        # Sources without a training pair use the common value; any number will do for them.
        common = median(numbers.values()) if numbers else math.inf
        config = self.config
        if config.tau_good == "median":
            config = dataclasses.replace(config, tau_good=common)
        return dataclasses.replace(self, config=config, by_source={**self.by_source, **by_source})

    def with_gate_margin(self, margin: float) -> "ConfiguredLoss":
        """Return the same loss with an NLL gate that ignores differences up to a margin.

        Losses without such a gate are returned unchanged.
        """
        if getattr(self.config, "nll_gate_margin", margin) >= margin:
            return self
        return dataclasses.replace(
            self, config=dataclasses.replace(self.config, nll_gate_margin=margin)
        )

    def _median_tau(self, rows: Sequence[PreferenceRow], source: str, lenient: bool) -> float:
        """Return the median score; infinity if there are no scores and none are needed."""
        scores = _chosen_scores(rows, source)
        if scores or (self.needs_scores(source) and not lenient):
            return _median_score(scores, source)
        return math.inf

    def needs_scores(self, source: str) -> bool:
        """Return whether the loss needs scores with the parameters of a source."""
        parameters = self.by_source.get(source, {})
        return self.loss.needs_scores(dataclasses.replace(self.config, **parameters))

    def check_sources(self, rows: Iterable[PreferenceRow]) -> list[Problem]:
        """Return a problem for each source that has parameters but no rows."""
        sources = dict.fromkeys(row.source for row in rows)
        return [
            Problem(
                f"data source '{source}', loss",
                f"no row comes from a source with that name{suggestion(source, sources)}",
                f"Use one of {', '.join(sources)}, or remove it" if sources else "Remove it",
            )
            for source in self.by_source
            if source not in sources
        ]

    def check_rows(self, rows: Iterable[PreferenceRow]) -> list[Problem]:
        """Return a problem for each row that lacks the pairs or scores that the loss needs."""
        problems: list[Problem] = []
        needed: dict[str, bool] = {}
        for row in rows:
            if row.source not in needed:
                needed[row.source] = self.needs_scores(row.source)
            if self.loss.unit == "pair" and not row.pairs:
                remedy = (
                    "Add two responses with different scores, or set the source's scores.ties to "
                    f"drop, which skips such rows: the loss '{self.loss.name}' needs pairs"
                )
                problems.append(Problem(row.where, "the row has no pair", remedy))
            if needed[row.source]:
                problems += row.missing_scores()
        return problems

    def describe(self) -> dict[str, Any]:
        """Return the resolved parameters, for the record of a run."""
        return {
            "name": self.loss.name,
            **dataclasses.asdict(self.config),
            "by_source": {source: dict(values) for source, values in self.by_source.items()},
        }


def configured_loss(args: UniDPOConfig) -> ConfiguredLoss:
    """Return the loss of a run with its parameters.

    Raises:
        RecipeError: If the loss does not have a parameter, or a value is invalid.
    """
    name, parameters = resolve_loss(args)
    return configure_loss(name, parameters, args.loss_by_source)


def configure_loss(
    name: str,
    parameters: Mapping[str, Any],
    by_source: Mapping[str, Mapping[str, Any]] | None = None,
) -> ConfiguredLoss:
    """Return a loss by name, with its parameters.

    Args:
        name: Name of the loss.
        parameters: Parameter -> value; missing ones and those that are `None` take their default.
        by_source: Source -> parameters that differ there.

    Raises:
        RecipeError: If the loss or a parameter does not exist, or a value is invalid; lists all
            problems.
    """
    loss: Loss = load_loss(name)
    common = {key: value for key, value in parameters.items() if value is not None}
    config, problems = loss_config(loss, common, "loss")
    if problems:
        common = {}  # otherwise their problems would be repeated for each source
    chosen: dict[str, dict[str, Any]] = {}
    for source, values in (by_source or {}).items():
        changed = {key: value for key, value in values.items() if value is not None}
        merged, source_problems = loss_config(
            loss, {**common, **changed}, f"data source '{source}', loss"
        )
        problems += [problem for problem in source_problems if problem not in problems]
        problems += [
            _not_by_source(source, name)
            for name in changed
            if name in {f.name for f in dataclasses.fields(loss.config)} - BY_SOURCE
        ]
        if merged is not None and changed and not problems:
            chosen[source] = {key: getattr(merged, key) for key in changed}
    if problems:
        raise RecipeError(problems)
    state = None if loss.initial_state is None else loss.initial_state()
    return ConfiguredLoss(loss=loss, config=config, by_source=chosen, state=state)


def _not_by_source(source: str, name: str) -> Problem:
    return Problem(
        f"data source '{source}', loss.{name}",
        "this parameter cannot differ between sources",
        f"Set it in loss; {', '.join(SOURCE_PARAMETERS)} may differ",
    )


def _chosen_scores(rows: Sequence[PreferenceRow], source: str) -> list[float]:
    return [
        score
        for row in rows
        if row.source == source
        for pair in row.pairs
        if (score := row.responses[pair.chosen].score) is not None
    ]


def _median_score(scores: Sequence[float], source: str) -> float:
    if not scores:
        raise DataError(
            Problem(
                f"source '{source}'",
                "loss.tau_good is 'median' and no chosen response has a score",
                "Add scores, or set loss.tau_good to a number",
            )
        )
    return float(median(scores))

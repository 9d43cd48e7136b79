"""A loss with its parameters, which may differ from source to source."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import torch
from torch import Tensor

from ..errors import DataError, Problem, RecipeError
from ..losses.base import Loss
from ..plugins import load_loss, suggestion
from ..recipe.problems import explain_settings
from ..records import GroupBatch, LossOutput, PairLogps, PreferenceRow, SequenceLogps
from .argument_ranges import loss_range_problems

__all__ = ["SOURCE_PARAMETERS", "ConfiguredLoss", "configure_loss", "weights_missing_scores"]

SOURCE_PARAMETERS = ("beta", "eta", "gamma", "tau_ref", "nll_lambda", "tau_good")
"""Parameters that may differ by source, since the released text, math and image settings do."""

BY_SOURCE = {*SOURCE_PARAMETERS, "missing_quality"}
"""With the one that a source sets by what it says of its scores."""


@dataclass(frozen=True, kw_only=True)
class ConfiguredLoss:
    """The loss of a run.

    Attributes:
        loss: What is computed.
        config: Its parameters for every source.
        by_source: Source -> parameters that differ there.
        state: What a stateful loss remembers from batch to batch; `None` for most losses.
    """

    loss: Loss
    config: Any
    by_source: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    state: Any = None

    def compute(self, policy: SequenceLogps, pairs: PairLogps, batch: GroupBatch) -> LossOutput:
        """Return the loss of each unit of a batch."""
        if self.loss.unit == "response":
            output = self.loss.compute(policy.select(batch.targets), self.config)
        else:
            state = () if self.state is None else (self.state,)
            output = self.loss.compute(pairs, self.config_for(batch), *state)
        units = batch.unit_weight(self.loss.unit)
        if output.per_unit.shape != units.shape:  # a mean would be spread over all units
            raise ValueError(
                f"the loss '{self.loss.name}' returns {tuple(output.per_unit.shape)} for "
                f"{units.numel()} {self.loss.unit}s: per_unit must have one entry for each"
            )
        return output

    def config_for(self, batch: GroupBatch) -> Any:
        """Return the parameters of a batch: numbers, or tensors [P] where sources differ."""
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
        return table[batch.pair_source]

    def with_medians(
        self, rows: Sequence[PreferenceRow], *, lenient: bool = False
    ) -> "ConfiguredLoss":
        """Return the settings with each ``tau_good: median`` replaced by a number.

        The number is the median score of the chosen answers of the source's training pairs.

        Args:
            rows: The training rows.
            lenient: Whether a source without any score makes every answer not good, rather than an
                error.
        """
        if not hasattr(self.config, "tau_good"):
            return self
        given = {
            source: self.by_source.get(source, {}).get("tau_good", self.config.tau_good)
            for source in dict.fromkeys(row.source for row in rows)
        }
        if "median" not in (self.config.tau_good, *given.values()):
            return self
        numbers = {
            source: self._median(rows, source, lenient) if value == "median" else float(value)
            for source, value in given.items()
        }
        by_source = {
            source: {**self.by_source.get(source, {}), "tau_good": number}
            for source, number in numbers.items()
        }
        # Any number serves as the common value, for rows of sources that hold no training pair.
        common = median(numbers.values()) if numbers else math.inf
        config = self.config
        if config.tau_good == "median":
            config = dataclasses.replace(config, tau_good=common)
        return dataclasses.replace(self, config=config, by_source={**self.by_source, **by_source})

    def with_gate_margin(self, margin: float) -> "ConfiguredLoss":
        """Return the settings with a gate of the NLL that is deaf to differences up to a margin.

        Losses without such a gate stay as they are.
        """
        own = getattr(self.config, "nll_gate_margin", margin)
        if own >= margin:
            return self
        return dataclasses.replace(
            self, config=dataclasses.replace(self.config, nll_gate_margin=margin)
        )

    def _median(self, rows: Sequence[PreferenceRow], source: str, lenient: bool) -> float:
        """Return the median; where nothing needs scores and none are there, no answer is good."""
        scores = _chosen_scores(rows, source)
        if scores or (self.needs_scores(source) and not lenient):
            return _median(scores, source)
        return math.inf

    def needs_scores(self, source: str) -> bool:
        """Return whether the loss needs scores, with the parameters of this source."""
        own = self.by_source.get(source, {})
        return self.loss.needs_scores(dataclasses.replace(self.config, **own))

    def check_sources(self, rows: Iterable[PreferenceRow]) -> list[Problem]:
        """Return the sources that have parameters and no row."""
        known = dict.fromkeys(row.source for row in rows)
        return [
            Problem(
                f"data source '{source}', loss",
                f"no row comes from a source of that name{suggestion(source, known)}",
                f"Choose from {', '.join(known) or 'none'}, or leave it out",
            )
            for source in self.by_source
            if source not in known
        ]

    def check_rows(self, rows: Iterable[PreferenceRow]) -> list[Problem]:
        """Return what the rows lack for this loss: pairs, or scores."""
        problems: list[Problem] = []
        needed: dict[str, bool] = {}
        for row in rows:
            if row.source not in needed:
                needed[row.source] = self.needs_scores(row.source)
            if self.loss.unit == "pair" and not row.pairs:
                remedy = (
                    "Give two answers with different scores, or set the source's scores.ties to "
                    f"drop, which leaves such rows out: the loss '{self.loss.name}' learns from "
                    "pairs"
                )
                problems.append(Problem(row.where, "the row holds no pair", remedy))
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


def weights_missing_scores(loss: str) -> bool:
    """Whether pairs without scores can be given a quality weight under a loss."""
    return "missing_quality" in {field.name for field in dataclasses.fields(load_loss(loss).config)}


def configure_loss(
    name: str,
    parameters: Mapping[str, Any],
    by_source: Mapping[str, Mapping[str, Any]] | None = None,
) -> ConfiguredLoss:
    """Return the settings of a loss by name.

    Parameters left out, or None, take the loss's own default.

    Raises:
        RecipeError: If there is no such loss, it has no such parameter, or a value is wrong; all
            problems at once.
    """
    loss: Loss = load_loss(name)
    given = {key: value for key, value in parameters.items() if value is not None}
    config, problems = _configured(loss, given, "loss")
    common = {} if problems else given  # so that no mistake is told once more for every source
    chosen: dict[str, dict[str, Any]] = {}
    for source, values in (by_source or {}).items():
        own = {key: value for key, value in values.items() if value is not None}
        merged, found = _configured(loss, {**common, **own}, f"data source '{source}', loss")
        problems += [problem for problem in found if problem not in problems]
        problems += [
            _not_by_source(source, name)
            for name in own
            if name in {f.name for f in dataclasses.fields(loss.config)} - BY_SOURCE
        ]
        if merged is not None and own and not problems:
            chosen[source] = {key: getattr(merged, key) for key in own}
    if problems:
        raise RecipeError(problems)
    state = None if loss.initial_state is None else loss.initial_state()
    return ConfiguredLoss(loss=loss, config=config, by_source=chosen, state=state)


def _configured(loss: Loss, parameters: Mapping[str, Any], where: str) -> tuple[Any, list[Problem]]:
    """Return the loss's config made of parameters, or the problems with them."""
    from pydantic import TypeAdapter, ValidationError

    known = [f.name for f in dataclasses.fields(loss.config)]
    problems = [
        Problem(
            f"{where}.{name}",
            f"the loss '{loss.name}' has no parameter '{name}'{suggestion(name, known)}",
            f"Choose from {', '.join(known)}",
        )
        for name in parameters
        if name not in known
    ]
    fitting = {name: value for name, value in parameters.items() if name in known}
    try:
        config = TypeAdapter(loss.config).validate_python(fitting)
    except ValidationError as error:
        for path, problem in explain_settings(error, fitting, known):
            place = ".".join(map(str, (where, *path)))
            problems.append(Problem(place, problem.message, problem.remedy))
        return None, problems
    problems += loss_range_problems(fitting, where=where)
    return config, problems


def _not_by_source(source: str, name: str) -> Problem:
    return Problem(
        f"data source '{source}', loss.{name}",
        "this parameter is one for all sources",
        f"Set it in loss; by source there are {', '.join(SOURCE_PARAMETERS)}",
    )


def _chosen_scores(rows: Sequence[PreferenceRow], source: str) -> list[float]:
    return [
        score
        for row in rows
        if row.source == source
        for pair in row.pairs
        if (score := row.responses[pair.chosen].score) is not None
    ]


def _median(scores: Sequence[float], source: str) -> float:
    if not scores:
        raise DataError(
            Problem(
                f"source '{source}'",
                "loss.tau_good is 'median' and no chosen answer has a score",
                "Give scores, or a number for loss.tau_good",
            )
        )
    return float(median(scores))

"""A loss together with its parameters, which may differ between data sources."""

import dataclasses
import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy
import torch
from torch import Tensor

from ..config import SourceLoss
from ..config.checks.loss import loss_config
from ..config.loss_aliases import resolve_loss
from ..config.python import UniDPOConfig
from ..data.columns import RowColumns
from ..data.row_table import columns_of
from ..errors import DataError, Problem, RecipeError
from ..losses.base import Loss
from ..losses.image_preference import with_image_preference
from ..plugins import load_loss, suggestion
from ..records import GroupBatch, LossOutput, PairLogps, PreferenceRow, SequenceLogps

__all__ = [
    "IMAGE_KEY",
    "LOSS_FILE",
    "SOURCE_PARAMETERS",
    "ConfiguredLoss",
    "add_image_preference",
    "configure_loss",
    "configured_loss",
    "loss_state",
    "pinned_settings",
    "restore_loss_state",
    "write_settings",
]

logger = logging.getLogger(__name__)

LOSS_FILE = "loss.json"
"""The file of a checkpoint with the loss, its resolved parameters and its state."""

IMAGE_KEY = "image_preference"
"""Key of the weights of the image preference in the description of a loss."""

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
        image_preference: The weights of the term of this name, which `loss` has; `None` if it has
            no such term.
    """

    loss: Loss
    config: Any
    by_source: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    state: Any = None
    image_preference: Mapping[str, float] | None = None

    def compute(self, policy: SequenceLogps, pairs: PairLogps, batch: GroupBatch) -> LossOutput:
        """Return the loss of each unit of a batch."""
        if self.loss.unit == "response":
            output = self.loss.compute(policy.select(batch.responses.indices[:, 0]), self.config)
        else:
            state = () if self.state is None else (self.state,)
            if self.loss.needs_labels and pairs.good is None:  # only fillers
                pairs = dataclasses.replace(pairs, good=torch.zeros_like(pairs.weight).bool())
            output = self.loss.compute(pairs, self.config_for(batch), *state)
        self._check_output(output, len(batch.units(self.loss.unit).weight))
        return output

    def _check_output(self, output: Any, units: int) -> None:
        """Refuse what `compute` of a user's loss must not return."""
        where, unit = f"the loss '{self.loss.name}'", self.loss.unit
        if not isinstance(output, LossOutput):
            problem = f"compute returns {type(output).__name__}, not a LossOutput"
            raise RecipeError(Problem(where, problem, "Return loss_output(...)"))
        if set(output.terms) != set(self.loss.terms):
            problem = f"compute returns the terms {sorted(output.terms)}, and LOSS.terms is "
            problem += f"{sorted(self.loss.terms)}"
            raise RecipeError(Problem(where, problem, "Use the same names in both places"))
        shape = tuple(output.per_unit.shape)
        if shape != (units,):  # a mean would silently broadcast
            problem = f"compute returns per_unit of shape {shape} for {units} {unit}s"
            raise RecipeError(Problem(where, problem, f"Return one entry per {unit}"))

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
        table = torch.tensor(values, dtype=batch.scores.dtype)
        return table.to(batch.scores.device, non_blocking=True)[batch.pairs.source]

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
        columns = columns_of(rows)
        values = {
            source: self.by_source.get(source, {}).get("tau_good", self.config.tau_good)
            for source in columns.sources
        }
        if "median" not in (self.config.tau_good, *values.values()):
            return self
        numbers = {
            source: self._median_tau(columns, source, lenient)
            if value == "median"
            else float(value)
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

    def _median_tau(self, columns: RowColumns, source: str, lenient: bool) -> float:
        """Return the median score; infinity if there are no scores and none are needed."""
        chosen = columns.of_source(source, columns.chosen)
        scores = chosen[~numpy.isnan(chosen)].tolist()
        if scores:
            return float(median(scores))
        if lenient or not self.needs_scores(source):
            return math.inf
        problem = "loss.tau_good is 'median' and no chosen response has a score"
        remedy = "Add scores, or set loss.tau_good to a number"
        raise DataError(Problem(f"source '{source}'", problem, remedy))

    def needs_scores(self, source: str) -> bool:
        """Return whether the loss needs scores with the parameters of a source."""
        parameters = self.by_source.get(source, {})
        return self.loss.needs_scores(dataclasses.replace(self.config, **parameters))

    def check_sources(self, sources: Sequence[str]) -> list[Problem]:
        """Return a problem for each source that has parameters but is not one of these sources."""
        return [
            Problem(
                f"data source '{source}', loss",
                f"no row comes from a source with that name{suggestion(source, sources)}",
                f"Use one of {', '.join(sources)}, or remove it" if sources else "Remove it",
            )
            for source in self.by_source
            if source not in sources
        ]

    def check_rows(self, rows: Sequence[PreferenceRow]) -> list[Problem]:
        """Return a problem for each row that lacks the pairs or scores that the loss needs."""
        columns = columns_of(rows)
        needed = [self.needs_scores(name) for name in columns.source_names]
        units = columns.labeled if self.loss.needs_labels else columns.pairs
        unpaired = (units == 0) & (self.loss.unit == "pair")
        scores = numpy.isnan(columns.chosen.values) | numpy.isnan(columns.rejected.values)
        unscored = numpy.zeros(len(columns), dtype=bool)
        unscored[columns.chosen.owners[scores]] = True
        unscored &= numpy.array(needed, dtype=bool)[columns.source]
        problems: list[Problem] = []
        for number in numpy.flatnonzero(unpaired | unscored).tolist():
            row = rows[number]
            if unpaired[number]:
                problems.append(self._no_unit(row))
            if unscored[number]:
                problems += row.missing_scores()
        return problems

    def _no_unit(self, row: PreferenceRow) -> Problem:
        """Return the problem of a row without a unit of the loss."""
        needs = f"the loss '{self.loss.name}' needs"
        if self.loss.needs_labels:
            text = "the row has neither a label nor a pair"
            return Problem(row.where, text, f"Add a label, true or false: {needs} labels or pairs")
        if row.labels:
            text = "the row has a label and no pair"
            remedy = f"Use the loss 'kto' for labeled responses, or add pairs: {needs} pairs"
            return Problem(row.where, text, remedy)
        remedy = (
            "Add two responses with different scores, or set the source's scores.ties to drop, "
            f"which skips such rows: {needs} pairs"
        )
        return Problem(row.where, "the row has no pair", remedy)

    def describe(self) -> dict[str, Any]:
        """Return the resolved parameters, for the record of a run."""
        image = {} if self.image_preference is None else {IMAGE_KEY: dict(self.image_preference)}
        return {
            "name": self.loss.name,
            **dataclasses.asdict(self.config),
            **image,
            "by_source": {source: dict(values) for source, values in self.by_source.items()},
        }


def configured_loss(args: UniDPOConfig) -> ConfiguredLoss:
    """Return the loss of a run with its parameters.

    Raises:
        RecipeError: If the loss does not have a parameter, or a value is invalid.
    """
    name, parameters = resolve_loss(args)
    configured = configure_loss(name, parameters, args.loss_by_source)
    if args.image_term is None:
        return configured
    weights = {"weight": args.image_term.weight, "anchor": args.image_term.anchor}
    return add_image_preference(configured, weights)


def add_image_preference(settings: ConfiguredLoss, weights: Mapping[str, float]) -> ConfiguredLoss:
    """Return the same loss with the image preference, see `losses/image_preference.py`.

    Raises:
        RecipeError: If the loss has no pairs, or the anchor lacks a reference.
    """
    if weights["anchor"] > 0 and not settings.loss.needs_reference(settings.config):
        text = f"the anchor compares with the reference, and the loss '{settings.loss.name}' has "
        text += "none"
        raise RecipeError(Problem("train.image_preference.anchor", text, "Set it to 0"))
    loss = with_image_preference(settings.loss, **weights)
    return dataclasses.replace(settings, loss=loss, image_preference=weights)


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
            Problem(
                f"data source '{source}', loss.{name}",
                "this parameter cannot differ between sources",
                f"Set it in loss; {', '.join(SOURCE_PARAMETERS)} may differ",
            )
            for name in changed
            if name in {f.name for f in dataclasses.fields(loss.config)} - BY_SOURCE
        ]
        if merged is not None and changed and not problems:
            chosen[source] = {key: getattr(merged, key) for key in changed}
    if problems:
        raise RecipeError(problems)
    state = None if loss.initial_state is None else loss.initial_state()
    return ConfiguredLoss(loss=loss, config=config, by_source=chosen, state=state)


def write_settings(settings: ConfiguredLoss, folder: str | Path) -> None:
    """Write the loss and its resolved parameters into a checkpoint."""
    path = Path(folder) / LOSS_FILE
    content = {**settings.describe(), "state": loss_state(settings)}
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")


def loss_state(settings: ConfiguredLoss) -> dict[str, Any] | None:
    """Return the state that a stateful loss keeps between batches; `None` for other losses."""
    return None if settings.state is None else dataclasses.asdict(settings.state)


def restore_loss_state(settings: ConfiguredLoss, state: Mapping[str, Any] | None) -> None:
    """Restore the state of a stateful loss, in place."""
    if settings.state is None or state is None:
        return
    for name in vars(settings.state).keys() & state.keys():
        setattr(settings.state, name, state[name])


def pinned_settings(settings: ConfiguredLoss, folder: str | Path) -> ConfiguredLoss:
    """Return the loss with each source's `tau_good` from a checkpoint.

    Args:
        settings: The loss configured by the current recipe and rows.
        folder: The checkpoint; if it has no such file, or another loss, the settings are returned
            unchanged.
    """
    try:
        before = json.loads((Path(folder) / LOSS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return settings
    if before.get("name") != settings.loss.name:
        return settings
    restore_loss_state(settings, before.get("state"))
    by_source = {name: dict(values) for name, values in settings.by_source.items()}
    for source, values in before.get("by_source", {}).items():
        number, now = values.get("tau_good"), by_source.get(source, {}).get("tau_good")
        if number is None or now is None or number == now:
            continue
        logger.warning(
            "source '%s': tau_good would be %s with the current rows; the run keeps the %s of its "
            "checkpoint",
            source,
            now,
            number,
        )
        by_source[source]["tau_good"] = number
    return dataclasses.replace(settings, by_source=by_source)

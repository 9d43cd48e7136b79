"""The observer that records every visit of a pair in the ledger of the run (`unidpo_mm.ledger`).

A step only keeps tensors on their device. They are read where the host waits for the device anyway:
when metrics are logged and when a checkpoint is saved. One process writes the lines of all.
"""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..distributed import errors_shared, gather_objects
from ..errors import ModelError, Problem
from ..ledger.columns import VALUES, VISIT, column_of_term, names
from ..ledger.files import LedgerFiles, bytes_of, schema_of, table_of
from ..losses.base import Loss
from ..records import GroupBatch, SequenceLogps, Unit
from .step import StepOutput

__all__ = ["LedgerRecorder", "derivatives", "recorded_values"]

MAX_KEPT_STEPS = 500
"""Steps after which kept values are read even if nothing was logged or saved meanwhile."""

MAX_OPEN_LINES = 200_000
"""Lines after which a part is written before the next checkpoint: writing one reads them all."""


@dataclass
class _MicroBatch:
    """The visits of a micro-batch.

    Attributes:
        step: The optimizer step, from 1.
        epoch: Passes over the data before that step.
        first: Place of the first unit among those of the step in this process.
        ids, row_ids, domains, sources: Those of the U units, and the names of the sources.
        values: [U, K] The recorded numbers, on the device.
        applied: Whether the step changed the weights.
    """

    step: int
    epoch: float
    first: int
    ids: tuple[str, ...]
    row_ids: tuple[str, ...]
    domains: tuple[str, ...]
    sources: tuple[str, ...]
    values: Tensor
    applied: bool = True


class LedgerRecorder:
    """Records the visits of this process.

    Args:
        loss: The loss of the run.
        description: Its resolved parameters, which become the metadata of the files.
        rank: The index of this process.
        output_dir: The output directory of the run; `None` on processes that do not write.
    """

    def __init__(
        self, loss: Loss, description: Mapping[str, Any], *, rank: int, output_dir: Path | None
    ) -> None:
        self.unit = loss.unit
        self.columns = (*names(VALUES), *map(column_of_term, loss.terms))
        self.schema = schema_of(
            loss.terms,
            {
                "unit": loss.unit,
                "terms": list(map(column_of_term, loss.terms)),
                "loss": dict(description),
            },
        )
        self.rank = rank
        self.output_dir = output_dir
        self.files = None if output_dir is None else LedgerFiles(output_dir, self.schema)
        self._step, self._epoch, self._units = 0, 0.0, 0
        self._kept: list[_MicroBatch] = []

    def start_step(self, step: int, epoch: float) -> None:
        """Set the step, from 1, of the next micro-batches and the passes over the data before.

        Every process calls it.
        """
        if self._kept and step - self._kept[0].step >= MAX_KEPT_STEPS:
            self.flush()
        self._step, self._epoch, self._units = step, epoch, 0

    def on_step(self, batch: GroupBatch, output: StepOutput) -> None:
        """Keep the values of a micro-batch, without waiting for the device."""
        units = batch.units(self.unit)
        recorded = {"source": units.source, **recorded_values(batch, output, self.unit)}
        nothing = torch.full_like(units.weight, torch.nan)
        columns = [recorded.get(name, nothing) for name in ("source", *self.columns)]
        values = torch.stack([column.detach().to(units.weight) for column in columns], 1)
        self._kept.append(
            _MicroBatch(
                step=self._step,
                epoch=self._epoch,
                first=self._units,
                ids=units.ids,
                row_ids=units.row_ids,
                domains=units.domains,
                sources=batch.sources,
                values=values,
            )
        )
        self._units += len(units)

    def skip_step(self) -> None:
        """Record that the current step did not change the weights."""
        for kept in self._kept:
            kept.applied = kept.applied and kept.step != self._step

    def rewind(self, step: int) -> None:
        """Remove the lines of the steps after `step`, which the run repeats."""
        if self.files is not None:
            self.files.rewind(step)

    def flush(self) -> None:
        """Append the kept visits of all processes to the open file; every process calls it."""
        contents = gather_objects(bytes_of(self._table()))
        self._kept = []
        with self._writing():
            if self.files is None:
                return
            for content in contents:
                self.files.append(content)
            if self.files.open_lines > MAX_OPEN_LINES:
                self.files.commit(self._step)

    def commit(self) -> None:
        """Write all visits so far into a part, before a checkpoint; every process calls it."""
        self.flush()
        with self._writing():
            if self.files is not None:
                self.files.commit(self._step)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Stop all processes if the files cannot be written.

        Raises:
            ModelError: If they cannot, for example because the disk is full.
        """
        with errors_shared():
            try:
                yield
            except OSError as error:
                text = f"the ledger could not be written to '{self.output_dir}' ({error.strerror})"
                remedy = "Free disk space, or set train.ledger to false"
                raise ModelError(Problem("train.ledger", text, remedy)) from error

    def _table(self) -> Any:
        """Return the kept visits as a table; this waits for the device."""
        rows = [item.values for item in self._kept] or [torch.zeros(0, 1 + len(self.columns))]
        sources, *numbers = torch.cat(rows).cpu().double().T.numpy()
        visits = list(self._visits(iter(sources.tolist())))
        identity = zip(*visits, strict=True) if visits else ([] for _ in VISIT)
        columns = dict(zip(names(VISIT), identity, strict=True))
        return table_of(self.schema, columns | dict(zip(self.columns, numbers, strict=True)))

    def _visits(self, source: Iterator[float]) -> Iterator[tuple[Any, ...]]:
        """Yield the columns `VISIT` of each kept unit; `source` has the source of each."""
        for item in self._kept:
            units = zip(item.ids, item.row_ids, item.domains, strict=True)
            for position, (pair_id, row_id, domain) in enumerate(units, item.first):
                place = (item.step, item.epoch, self.rank, position)
                yield *place, pair_id, row_id, item.sources[int(next(source))], domain, item.applied


def recorded_values(batch: GroupBatch, output: StepOutput, unit: Unit) -> dict[str, Tensor]:
    """Return the values of each unit of a micro-batch, [U] each.

    Of the columns in `unidpo_mm.ledger.columns.VALUES`, those without a value are missing. A
    response labeled good is in the columns of chosen responses, a bad one in those of rejected
    ones. The other side only has a reward: the one that the response is compared with.
    """
    loss, pairs = output.loss, output.pairs
    values = {"weight": output.weight, "loss": loss.per_unit}
    values |= {column_of_term(name): term for name, term in loss.terms.items()}
    if unit == "response":
        index = batch.responses.indices[:, 0]
        (slope,) = derivatives(loss.per_unit, output.policy)
        values |= _response("chosen", output.policy.select(index), None, batch.scores[index])
        return values | {"dloss_dchosen": slope[index]}
    if pairs.good is not None:
        return values | _labeled(output, pairs.good)
    values |= _response("chosen", pairs.policy_chosen, pairs.reference_chosen, pairs.score_chosen)
    values |= _response(
        "rejected", pairs.policy_rejected, pairs.reference_rejected, pairs.score_rejected
    )
    chosen, rejected = pairs.policy_chosen, pairs.policy_rejected
    by_chosen, by_rejected = derivatives(loss.per_unit, chosen, rejected)
    values |= {"dloss_dchosen": by_chosen, "dloss_drejected": by_rejected}
    if loss.chosen_rewards is not None and loss.rejected_rewards is not None:
        values |= {"reward_chosen": loss.chosen_rewards, "reward_rejected": loss.rejected_rewards}
    if loss.reward_margin is not None:
        if loss.pair_loss is not None:
            by_chosen, by_rejected = derivatives(loss.pair_loss, chosen, rejected)
        # one unit of reward margin: half a unit from each of the two responses
        margin_by_chosen, margin_by_rejected = derivatives(loss.reward_margin, chosen, rejected)
        slope = (by_chosen / margin_by_chosen + by_rejected / margin_by_rejected) / 2
        values["contribution"] = slope.abs()
    return values


def _labeled(output: StepOutput, good: Tensor) -> dict[str, Tensor]:
    """Return the columns of labeled responses, NaN on the other side."""
    loss, pairs = output.loss, output.pairs
    (slope,) = derivatives(loss.per_unit, pairs.policy_chosen)
    values: dict[str, Tensor] = {}
    for side, present in (("chosen", good), ("rejected", ~good)):
        columns = _response(side, pairs.policy_chosen, pairs.reference_chosen, pairs.score_chosen)
        columns[f"dloss_d{side}"] = slope
        values |= {name: torch.where(present, item, torch.nan) for name, item in columns.items()}
        if loss.chosen_rewards is not None and loss.rejected_rewards is not None:
            values[f"reward_{side}"] = torch.where(
                present, loss.chosen_rewards, loss.rejected_rewards
            )
    if loss.reward_margin is not None:
        (by_reward,) = derivatives(loss.reward_margin, pairs.policy_chosen)
        values["contribution"] = (slope / by_reward).abs()
    return values


def _response(
    side: str, policy: SequenceLogps, reference: SequenceLogps | None, scores: Tensor
) -> dict[str, Tensor]:
    """Return the columns of one response of each unit."""
    values = {
        f"score_{side}": scores,
        f"{side}_length": policy.length,
        f"policy_{side}_logp": policy.sum,
    }
    return values if reference is None else {**values, f"reference_{side}_logp": reference.sum}


def derivatives(values: Tensor, *responses: SequenceLogps) -> tuple[Tensor, ...]:
    """Return the derivative of each of some values [U] by the log-prob of its responses.

    Only the graph between values and log-probs is walked, which is the formula of the loss. Where a
    loss uses single tokens, the log-prob of a response is raised by the same amount at each of its
    tokens. The derivatives are NaN if the values have no gradient.
    """
    sums = [response.sum for response in responses]
    if not values.requires_grad or not all(tensor.requires_grad for tensor in sums):
        return tuple(torch.full_like(tensor, torch.nan) for tensor in sums)
    tokens = [response.tokens for response in responses if response.tokens is not None]
    slopes = torch.autograd.grad(
        values.sum(), [*sums, *tokens], retain_graph=True, allow_unused=True, materialize_grads=True
    )
    by_token = iter(slopes[len(sums) :])
    return tuple(
        by_sum if response.tokens is None else by_sum + _mean_slope(next(by_token), response.length)
        for by_sum, response in zip(slopes, responses, strict=False)
    )


def _mean_slope(by_token: Tensor, length: Tensor) -> Tensor:
    """Return the mean over the tokens of each response [U], without the padding after them."""
    place = torch.arange(by_token.shape[1], device=by_token.device)
    return torch.where(place < length.unsqueeze(-1), by_token, 0.0).sum(1) / length

"""Metrics as weighted sums and counts, in total and by domain.

In a mean of batch means, the pairs of small batches would have larger weights. So each process adds
up sums and counts, which are reduced over processes once and then divided.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..distributed import sum_in_place
from ..losses.base import Loss
from ..metric_names import PAIR_METRICS
from ..records import DOMAINS, GroupBatch, Units
from .step import StepOutput

__all__ = ["LabelValues", "MetricSums", "label_values", "pair_values", "policy_only_change"]

ALL = "all"


class MetricSums:
    """Sums and counts of a fixed set of metrics, the same on every process.

    Args:
        loss: Declares the terms and the unit.
        device: The device of the sums.

    Attributes:
        names: The metrics.
        groups: ``all`` and the domains.
        table: [groups, names, 2] Weighted sum and sum of weights of each metric.
    """

    def __init__(self, loss: Loss, device: torch.device | str = "cpu") -> None:
        self.loss = loss
        self.names = ("loss", *PAIR_METRICS, *loss.terms)
        self.groups = (ALL, *DOMAINS)
        shape = (len(self.groups), len(self.names), 2)
        dtype = torch.float32 if torch.device(device).type == "mps" else torch.float64
        self.table = torch.zeros(shape, dtype=dtype, device=device)
        self._present: dict[frozenset[str], Tensor] = {}

    def on_step(self, batch: GroupBatch, output: StepOutput) -> None:
        """Add one batch, without waiting for the device."""
        losses, values = {"loss": output.loss.per_unit}, pair_values(output)
        if batch.pairs.good is not None:
            labels = label_values(output, batch.pairs.good)
            self._add({**losses, **labels.common}, batch.pairs)
            self._add(labels.good, batch.pairs, only=batch.pairs.good)
            self._add(labels.bad, batch.pairs, only=~batch.pairs.good)
        elif self.loss.unit == "pair":
            self._add({**losses, **values}, batch.pairs)
        else:
            self._add(losses, batch.responses)
            self._add(values, batch.pairs)

    def reduce(self) -> None:
        """Sum over all processes; every process calls it."""
        sum_in_place(self.table)

    def means(self) -> dict[str, float]:
        """Return the means: `name` over all pairs, `domain/name` for each domain that occurs."""
        table = self.table.cpu()  # the only wait for the device
        result: dict[str, float] = {}
        domains = [group for number, group in enumerate(self.groups) if table[number, 0, 1] > 0]
        for group in domains:
            if group != ALL and len(domains) == 2:
                continue  # the only domain has the same means as all pairs
            prefix = "" if group == ALL else f"{group}/"
            means = self._group_means(table[self.groups.index(group)])
            result |= {prefix + name: value for name, value in means.items()}
        return result

    def _group_means(self, table: Tensor) -> dict[str, float]:
        sums, counts = table.unbind(-1)
        means = {
            name: float(sums[number] / counts[number])
            for number, name in enumerate(self.names)
            if counts[number] > 0
        }
        if (
            "rewards/margins" not in means
            and {"rewards/chosen", "rewards/rejected"} <= means.keys()
        ):
            means["rewards/margins"] = means["rewards/chosen"] - means["rewards/rejected"]
        weight, squared = means.pop("weight", None), means.pop("weight_squared", None)
        if weight is not None and squared:
            pairs = float(counts[self.names.index("weight")])
            # (sum w)^2 / sum w^2: the number of equally weighted pairs with the same variance
            means["effective_sample_size"] = pairs * weight**2 / squared
        return means

    def _add(
        self, values: Mapping[str, Tensor], units: Units, *, only: Tensor | None = None
    ) -> None:
        """Add values [U] of some metrics, all at once.

        Values of another domain are replaced by 0 and not multiplied by it, so that a NaN stays in
        the sums of its own domain.

        Args:
            values: Metric -> its values.
            units: Their weights and domains.
            only: [U] The units that count; `None` for all.
        """
        weight_U = units.weight if only is None else torch.where(only, units.weight, 0.0)
        empty = torch.zeros_like(weight_U)
        values_UN = torch.stack(
            [values.get(name, empty).detach().to(empty) for name in self.names], 1
        )
        weighted_UN = torch.where(weight_U[:, None] > 0, values_UN, 0.0) * weight_U[:, None]
        sums_GN = torch.where(units.members[:, :, None], weighted_UN, 0.0).sum(1)
        weights_G = torch.where(units.members, weight_U, 0.0).sum(1)
        counts_GN = weights_G[:, None] * self._presence(values)
        self.table += torch.stack([sums_GN, counts_GN], -1).to(self.table)

    def _presence(self, values: Mapping[str, Tensor]) -> Tensor:
        """Return [N], 1 for each metric that has values."""
        names = frozenset(values)
        if names not in self._present:
            flags = torch.tensor([float(name in names) for name in self.names])
            self._present[names] = flags.to(self.table, non_blocking=True)
        return self._present[names]


def pair_values(output: StepOutput) -> Mapping[str, Tensor]:
    """Return every metric of the pairs of a batch, each [P].

    Accuracies count ties as wrong. Log-probs are means over tokens. The weight of a pair is the
    product of the loss terms whose names start with ``w_``; it is 1 if there are none.
    """
    pairs, loss = output.pairs, output.loss
    chosen, rejected = pairs.policy_chosen.mean, pairs.policy_rejected.mean
    values: dict[str, Tensor] = {
        "logps/chosen": chosen,
        "logps/rejected": rejected,
        "logps/accuracies": (chosen > rejected).to(chosen),
    }
    if pairs.reference_chosen is not None:
        values["logps/chosen_change"] = chosen - pairs.reference_chosen.mean
    if loss.chosen_rewards is not None and loss.rejected_rewards is not None:
        margins = loss.chosen_rewards - loss.rejected_rewards
        values |= {
            "rewards/chosen": loss.chosen_rewards,
            "rewards/rejected": loss.rejected_rewards,
            "rewards/margins": margins,
            "rewards/accuracies": (margins > 0).to(margins),
            "unweighted_loss": -torch.nn.functional.logsigmoid(margins),
            **loss.terms,
        }
        weight = loss.pair_weight
        values |= {"weight": weight, "weight_squared": weight**2}
    return {name: tensor.detach() for name, tensor in values.items()}


@dataclass(frozen=True)
class LabelValues:
    """Metrics of labeled responses, each [U].

    Attributes:
        common: Those of all responses.
        good, bad: Those of responses labeled good or bad only. They have the names of the metrics
            of chosen and rejected responses.
    """

    common: Mapping[str, Tensor]
    good: Mapping[str, Tensor]
    bad: Mapping[str, Tensor]


def label_values(output: StepOutput, good: Tensor) -> LabelValues:
    """Return every metric of the labeled responses of a batch.

    A response counts as classified right if a good one has a higher reward than the loss compares
    it with, or a bad one does not.
    """
    pairs, loss = output.pairs, output.loss
    logps, rewards = pairs.policy_chosen.mean.detach(), loss.chosen_rewards
    common = dict(loss.terms)
    of_good, of_bad = {"logps/chosen": logps}, {"logps/rejected": logps}
    if pairs.reference_chosen is not None:
        of_good["logps/chosen_change"] = logps - pairs.reference_chosen.mean
    if rewards is not None and loss.rejected_rewards is not None:
        above = rewards > loss.rejected_rewards
        common["rewards/accuracies"] = (above == good).to(logps)
        of_good["rewards/chosen"], of_bad["rewards/rejected"] = rewards, rewards
    return LabelValues(common, of_good, of_bad)


def policy_only_change(means: Mapping[str, float], first: Mapping[str, float]) -> dict[str, float]:
    """Return the change of the log-probs of chosen responses since the first evaluation.

    This is for losses without a reference; with one, `pair_values` compares with the reference.
    """
    return {
        f"{name}_change": value - first[name]
        for name, value in means.items()
        if name.endswith("logps/chosen") and f"{name}_change" not in means and name in first
    }

"""Metrics as weighted sums and counts, in total and by domain.

In a mean of batch means, the pairs of small batches would have larger weights. So each process adds
up sums and counts, which are reduced over processes once and then divided.
"""

import functools
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..distributed import sum_in_place
from ..losses.base import Loss
from ..metric_names import PAIR_METRICS
from ..records import DOMAINS, GroupBatch
from .step import StepOutput

__all__ = ["MetricSums", "pair_values", "policy_only_change"]

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

    def on_step(self, batch: GroupBatch, output: StepOutput) -> None:
        """Add one batch."""
        unit = self.loss.unit
        self._add("loss", output.loss.per_unit, output.weight, batch.units(unit).domains)
        for name, values in pair_values(output).items():
            self._add(name, values, batch.pairs.weight, batch.pairs.domains)

    def reduce(self) -> None:
        """Sum over all processes; every process calls it."""
        sum_in_place(self.table)

    def means(self) -> dict[str, float]:
        """Return the means: `name` over all pairs, `domain/name` for each domain that occurs."""
        result: dict[str, float] = {}
        domains = [
            group for number, group in enumerate(self.groups) if self.table[number, 0, 1] > 0
        ]
        for group in domains:
            if group != ALL and len(domains) == 2:
                continue  # the only domain has the same means as all pairs
            prefix = "" if group == ALL else f"{group}/"
            means = self._group_means(self.groups.index(group))
            result |= {prefix + name: value for name, value in means.items()}
        return result

    def _group_means(self, group: int) -> dict[str, float]:
        sums, counts = self.table[group].unbind(-1)
        means = {
            name: float(sums[number] / counts[number])
            for number, name in enumerate(self.names)
            if counts[number] > 0
        }
        weight, squared = means.pop("weight", None), means.pop("weight_squared", None)
        if weight is not None and squared:
            pairs = float(counts[self.names.index("weight")])
            # (sum w)^2 / sum w^2: the number of equally weighted pairs with the same variance
            means["effective_sample_size"] = pairs * weight**2 / squared
        return means

    def _add(self, name: str, values: Tensor, weight: Tensor, domains: Sequence[str]) -> None:
        column = self.names.index(name)
        values = torch.where(weight > 0, values.detach().to(weight.dtype), 0.0) * weight
        for number, group in enumerate(self.groups):
            inside = [group in (ALL, domain) for domain in domains]
            mask = torch.tensor(inside, dtype=torch.bool, device=weight.device)
            self.table[number, column, 0] += values[mask].sum().to(self.table)
            self.table[number, column, 1] += weight[mask].sum().to(self.table)


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
        factors = [tensor for name, tensor in loss.terms.items() if name.startswith("w_")]
        weight = functools.reduce(torch.mul, factors, torch.ones_like(margins))
        values |= {"weight": weight, "weight_squared": weight**2}
    return {name: tensor.detach() for name, tensor in values.items()}


def policy_only_change(means: Mapping[str, float], first: Mapping[str, float]) -> dict[str, float]:
    """Return the change of the log-probs of chosen responses since the first evaluation.

    This is for losses without a reference; with one, `pair_values` compares with the reference.
    """
    return {
        f"{name}_change": value - first[name]
        for name, value in means.items()
        if name.endswith("logps/chosen") and f"{name}_change" not in means and name in first
    }

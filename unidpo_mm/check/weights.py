"""Scores of each source, and the weights of pairs with which a run would start."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy
import torch
from torch import Tensor

from ..adapter import Adapter, AdapterFamily
from ..data.collate import collate
from ..data.columns import RowColumns
from ..data.row_table import columns_of
from ..inference.image_tokens import check_image_tokens
from ..kernels.logprobs import sequence_logps
from ..losses.weights import performance_weight, quality_weight
from ..modeling.load import ModelSource, load_weights
from ..modeling.logp_model import LogpModel, compute_logps
from ..records import EncodedGroup, PreferenceRow
from ..training.configured_loss import ConfiguredLoss
from .numbers import effective_share, histogram, summarize
from .report import ScoreReport, StartWeights

__all__ = ["sampled", "score_reports", "start_weights"]

Item = TypeVar("Item")


def score_reports(rows: Sequence[PreferenceRow], settings: ConfiguredLoss) -> list[ScoreReport]:
    """Return a report for each source with scores."""
    columns = columns_of(rows)
    reports = (_report(name, columns, settings) for name in columns.sources)
    return [report for report in reports if report is not None]


def _report(source: str, columns: RowColumns, settings: ConfiguredLoss) -> ScoreReport | None:
    values = [columns.of_source(source, scores) for scores in (columns.chosen, columns.rejected)]
    pairs = torch.from_numpy(numpy.stack(values, axis=1))
    scored = pairs[~pairs.isnan().any(dim=1)]
    if not len(scored):
        return None
    chosen, rejected = scored.unbind(1)
    margin = chosen - rejected
    eta, tau_good = (_parameter(settings, source, name) for name in ("eta", "tau_good"))
    w_qual = quality_weight(chosen, rejected, eta=eta)
    return ScoreReport(
        source=source,
        scored=len(scored),
        pairs=len(pairs),
        chosen=summarize(chosen),
        rejected=summarize(rejected),
        margin=summarize(margin),
        scores=histogram(torch.cat([chosen, rejected])),
        margins=histogram(margin),
        w_qual=summarize(w_qual),
        quality=histogram(w_qual, 0.0, 1.0),
        effective_share=effective_share(w_qual),
        eta=eta,
        tau_good=tau_good,
        good=_share(chosen >= tau_good),
        misordered=_share(margin < 0),
        ties=_share(margin == 0),
    )


def _parameter(settings: ConfiguredLoss, source: str, name: str) -> float:
    parameters = settings.by_source.get(source, {})
    return float(parameters.get(name, getattr(settings.config, name)))


def _share(mask: Tensor) -> float:
    return float(mask.double().mean())


def sampled(items: Sequence[Item], size: int) -> list[Item]:
    """Return up to `size` evenly spaced items."""
    step = max(len(items) / max(size, 1), 1.0)
    return [items[int(number * step)] for number in range(min(size, len(items)))]


@torch.no_grad()
def start_weights(
    rows: Sequence[PreferenceRow],
    source: ModelSource,
    family: AdapterFamily,
    adapter: Adapter,
    settings: ConfiguredLoss,
) -> StartWeights | None:
    """Return the initial weights of the pairs of rows under a model.

    At the start the reference equals the policy, so that all reward margins are 0 and the gradient
    of a pair is proportional to w_qual times w_perf.
    """
    logp_model = LogpModel(load_weights(source, family)).eval()
    device = next(logp_model.parameters()).device
    check_image_tokens(logp_model.model, adapter, device)
    values_by_name: dict[str, list[float]] = defaultdict(list)
    domains: list[str] = []
    for row in rows:
        group = adapter.encode(row)
        for name, values in _group_weights(group, logp_model, adapter, settings, device).items():
            values_by_name[name] += values
        domains += [row.domain] * len(group.preferences.pairs)
    if not domains:
        return None
    w_perf = torch.tensor(values_by_name["w_perf"], dtype=torch.float64)
    weight = w_perf * torch.tensor(values_by_name["w_qual"], dtype=torch.float64)
    return StartWeights(
        pairs=len(domains),
        w_perf=summarize(w_perf),
        by_length=list(zip(values_by_name["length"], w_perf.tolist(), strict=True)),
        gradient_share=_shares(domains, weight.tolist()),
        pair_share=_shares(domains, [1.0] * len(domains)),
        effective_share=effective_share(weight),
    )


def _group_weights(
    group: EncodedGroup,
    logp_model: LogpModel,
    adapter: Adapter,
    settings: ConfiguredLoss,
    device: Any,
) -> dict[str, list[float]]:
    batch = collate([group], pad_token_id=adapter.pad_token_id).to(device)
    means = sequence_logps(compute_logps(logp_model, adapter, batch), batch.targets).mean
    config = settings.config_for(batch)
    chosen, rejected = batch.pairs.chosen, batch.pairs.rejected
    margin = config.beta * (means[chosen] - means[rejected])
    w_perf = performance_weight(margin, gamma=config.gamma, tau_ref=config.tau_ref)
    missing = 0.5 if config.missing_quality is None else config.missing_quality
    w_qual = quality_weight(
        batch.scores[chosen], batch.scores[rejected], eta=config.eta, missing=missing
    )
    longest = [
        float(max(group.response_ids[p.chosen].numel(), group.response_ids[p.rejected].numel()))
        for p in group.preferences.pairs
    ]
    return {"w_perf": w_perf.tolist(), "w_qual": w_qual.tolist(), "length": longest}


def _shares(domains: Sequence[str], weights: Sequence[float]) -> dict[str, float]:
    total: dict[str, float] = defaultdict(float)
    for domain, weight in zip(domains, weights, strict=True):
        total[domain] += weight
    weight_sum = sum(total.values())
    if not weight_sum:
        return {}
    return {domain: value / weight_sum for domain, value in sorted(total.items())}

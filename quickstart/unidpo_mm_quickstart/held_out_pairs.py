"""Preference accuracy on held-out pairs before and after tuning, by domain."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from unidpo_mm.training.configured_loss import configure_loss
from unidpo_mm.training.step import preference_step
from unidpo_mm.training.trainer import UniDPOTrainer

__all__ = ["DOMAINS", "PairResult", "pair_results", "preference_accuracy"]

DOMAINS = ("multimodal", "math", "text")


@dataclass(frozen=True, kw_only=True)
class PairResult:
    """A model's log-probs of a held-out pair.

    Attributes:
        domain: Domain of the pair.
        correct: Whether the chosen response has the higher log-prob per token; a tie is wrong.
        chosen_logp: Log-prob per token of the chosen response.
    """

    domain: str
    correct: bool
    chosen_logp: float


@torch.no_grad()
def pair_results(trainer: UniDPOTrainer) -> dict[str, PairResult]:
    """Return the results of the held-out pairs by row id; only the policy runs."""
    settings = configure_loss("sft", {})  # only log-probs are used, so any loss will do
    trainer.model.eval()
    results: dict[str, PairResult] = {}
    for item in trainer.get_eval_dataloader():
        batch = item["batch"]
        with trainer.accelerator.autocast():
            output = preference_step(
                trainer.model,
                batch,
                adapter=trainer.parts.adapter,
                settings=settings,
                reference=None,
            )
        chosen, rejected = output.pairs.policy_chosen.mean, output.pairs.policy_rejected.mean
        for number, row in enumerate(batch.pairs.row_ids):
            results[row] = PairResult(
                domain=batch.pairs.domains[number],
                correct=bool(chosen[number] > rejected[number]),
                chosen_logp=float(chosen[number]),
            )
    return results


def preference_accuracy(
    before: Mapping[str, PairResult], after: Mapping[str, PairResult]
) -> dict[str, dict[str, float]]:
    """Return accuracy before and after by domain, and the paired standard error of the change."""
    result = {}
    for domain in (*DOMAINS, "all"):
        rows = [row for row, pair in before.items() if domain in (pair.domain, "all")]
        changes = [after[row].correct - before[row].correct for row in rows]
        mean = sum(changes) / len(rows)
        spread = sum((change - mean) ** 2 for change in changes) / max(len(rows) - 1, 1)
        result[domain] = {
            "before": sum(before[row].correct for row in rows) / len(rows),
            "tuned": sum(after[row].correct for row in rows) / len(rows),
            "change_error": math.sqrt(spread / len(rows)),
            "chosen_logp_before": sum(before[row].chosen_logp for row in rows) / len(rows),
            "chosen_logp_tuned": sum(after[row].chosen_logp for row in rows) / len(rows),
            "n": len(rows),
        }
    return result

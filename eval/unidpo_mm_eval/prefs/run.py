"""The flow of `eval prefs`: pairs are scored, and what comes of it is a result like any other."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from unidpo_mm.records import Pair, PreferenceRow

from ..benchmarks import Benchmark
from ..benchmarks._pair_metrics import metrics, once
from ..benchmarks._pair_sets import PairSet, pair_ids
from ..data.dataset import file_hash
from ..data.samples import ScoredSample
from ..models.checkpoint import LoadedCheckpoint
from ..models.processes import processes
from ..models.template_variables import different_variables, variables_of
from ..protocols import load_protocol
from ..results.result import Result, Source, write_result
from ..run.eval_run import PACKAGES, processor_hash, style_of
from ..run.progress import Told
from ..run.store import PredictionStore
from .logps import Scorer, score_pairs

__all__ = ["PROTOCOL", "score_preferences"]

PROTOCOL = "implicit-reward"


def score_preferences(
    loaded: LoadedCheckpoint,
    benchmark: Benchmark,
    pairs: PairSet,
    path: Path,
    *,
    reference: LoadedCheckpoint | None = None,
    against: str = "none",
    beta: float = 0.1,
    batch_size: int = 8,
    style: str = "auto",
    chat_template_kwargs: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    told: Told = lambda name, more, whole: None,
) -> Result | None:
    """Scores pairs and writes log-probabilities (.jsonl) and the result (.json).

    Args:
        loaded: The model.
        benchmark: What the pairs are.
        pairs: The pairs.
        path: Where log-probabilities go.
        reference: A model that rewards are measured against.
        against: ``lora_off`` measures against the model without its LoRA, ``none`` the model alone.
        beta: Of rewards with a reference; it scales margins and changes no accuracy.
        batch_size: Rows at once.
        style: How prompts are rendered.
        chat_template_kwargs: Variables for the chat template.
        overwrite: Whatever is there is removed first.
        told: Is told how far it is.

    Returns:
        The result; None on all processes but the first.
    """
    state = processes()
    rendered = style_of(loaded.processor, style)
    other = against if reference is None else reference.checkpoint.weights
    variables = dict(chat_template_kwargs or {})
    scorer = Scorer.of(
        loaded,
        style=rendered,
        reference=reference or _lora_off(against),
        chat_template_kwargs=variables,
    )
    manifest = _manifest(loaded, benchmark, pairs, style=rendered, reference=other)
    manifest |= {"batch_size": batch_size, "layout": scorer.layout}
    manifest["overrides"] = {"style": style}
    manifest |= variables_of(loaded.checkpoint, variables)
    store = PredictionStore(path, manifest, rank=state.process_index, overwrite=overwrite)
    state.wait_for_everyone()
    store.open()
    if not store.finished:
        score_pairs(
            scorer,
            pairs.rows,
            store,
            batch_size=batch_size,
            rank=state.process_index,
            world=state.num_processes,
            told=lambda more: told(benchmark.name, more * state.num_processes, len(pairs.rows)),
        )
    state.wait_for_everyone()
    if not state.is_main_process:
        return None
    if not store.finished:
        store.merge([row.id for row in pairs.rows])
    result = result_of(benchmark, pairs, path, store, beta=beta)
    write_result(result, path.with_suffix(".json"))
    return result


def result_of(
    benchmark: Benchmark, pairs: PairSet, path: Path, store: PredictionStore, *, beta: float
) -> Result:
    """Returns what log-probabilities of pairs come to."""
    scored = [
        _scored(row, number, pair, store.done[row.id], pairs, beta=beta)
        for row in pairs.rows
        for number, pair in enumerate(row.pairs)
    ]
    other = different_variables(store.manifest)
    errors = sum(one.error is not None for one in scored)
    counts = {
        "n": len(scored),
        "n_clusters": len({one.cluster for one in scored}),
        "error_rate": 100 * errors / max(len(scored), 1),
        "unparsed_rate": 0.0,
        "truncated_rate": 0.0,
        "empty_rate": 0.0,
        "missing": 0,
    }
    return Result(
        benchmark=benchmark.name,
        title=benchmark.title,
        protocol=load_protocol(PROTOCOL),
        headline="accuracy",
        metrics=metrics(scored).values() | once(scored) | counts,
        per_sample=tuple(scored),
        data=Source(str(pairs.path), pairs.sha256, len(scored)),
        predictions=Source(str(path), file_hash([path]), len(store.done)),
        manifest=store.manifest | {"beta": beta},
        warnings=(*pairs.notes, *([other] if other else ())),
    )


def _lora_off(against: str) -> str | None:
    return None if against == "none" else against


def _manifest(
    loaded: LoadedCheckpoint, benchmark: Benchmark, pairs: PairSet, *, style: str, reference: str
) -> dict[str, Any]:
    return {
        "model": loaded.checkpoint.name,
        "weights": loaded.checkpoint.weights,
        "family": loaded.family.name,
        "processor": processor_hash(loaded.processor),
        "dtype": str(next(loaded.model.parameters()).dtype).removeprefix("torch."),
        "device": str(loaded.device).partition(":")[0],
        "style": style,
        "reference": reference,
        "benchmark": benchmark.name,
        "data_sha256": pairs.sha256,
        "rows": len(pairs.rows),
        "versions": {name: version(name) for name in PACKAGES},
    }


def _scored(
    row: PreferenceRow,
    number: int,
    pair: Pair,
    record: Mapping[str, Any],
    pairs: PairSet,
    *,
    beta: float,
) -> ScoredSample:
    chosen, rejected = row.responses[pair.chosen], row.responses[pair.rejected]
    labels = {"domain": row.domain, **pairs.groups.get(row.id, {})}
    own = pair_ids(row)[number]
    details = _details(row, pair, record, beta=beta) if "logps" in record else {}
    margin = details.get("margin", 0.0)
    return ScoredSample(
        id=own,
        question="\n".join(message.text for message in row.messages),
        answers=(chosen.text,),
        labels=labels,
        cluster=_cluster(row),
        unit=pairs.units.get(row.id, row.id),
        response=rejected.text,
        score=float(margin > 0),
        answer=f"margin {margin:+.4f}" if details else None,
        error=record.get("error"),
        details=details,
    )


def _cluster(row: PreferenceRow) -> str:
    """Returns what is equal for rows on the same pictures, or of the same prompt without any."""
    if row.images:
        return " ".join(image.key()[:16] for image in row.images)
    words = json.dumps([message.text for message in row.messages])
    return hashlib.sha256(words.encode()).hexdigest()[:16]


def _details(
    row: PreferenceRow, pair: Pair, record: Mapping[str, Any], *, beta: float
) -> dict[str, float]:
    sums, tokens = record["logps"], record["tokens"]
    found: dict[str, float] = {}
    for name, at in (("chosen", pair.chosen), ("rejected", pair.rejected)):
        found[f"{name}_logp"] = sums[at] / tokens[at]
        found[f"{name}_tokens"] = tokens[at]
        found[f"{name}_reward"] = found[f"{name}_logp"]
        if "reference" in record:
            found[f"{name}_reward"] = beta * (sums[at] - record["reference"][at])
    found["margin"] = found["chosen_reward"] - found["rejected_reward"]
    if "reference" in record:
        found["fell"] = float(sums[pair.chosen] < record["reference"][pair.chosen])
    scores: Sequence[float | None] = [row.responses[n].score for n in (pair.chosen, pair.rejected)]
    if scores[0] is not None and scores[1] is not None:
        found["score_margin"] = scores[0] - scores[1]
    return found

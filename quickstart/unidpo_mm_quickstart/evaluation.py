"""Evaluate models of the quick-start like the commands of `unidpo-mm eval`.

`eval run` generates a caption of every unseen image, and `eval prefs` evaluates pairs of images,
math and text. Here, each model is loaded once for both. The files are those that the commands
write, so the commands reproduce them.
"""

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from unidpo_mm_eval.benchmarks import load_benchmark
from unidpo_mm_eval.data.predictions import read_predictions
from unidpo_mm_eval.prefs.evaluation import evaluate_pairs, read_pairs
from unidpo_mm_eval.protocols import load_protocol
from unidpo_mm_eval.results.grading import grade_predictions
from unidpo_mm_eval.results.result import Result, write_result
from unidpo_mm_eval.run.eval_run import (
    RunSettings,
    checkpoint_run,
    generate_predictions,
    score_predictions,
)

from unidpo_mm.distributed.processes import processes
from unidpo_mm.inference.checkpoint import find_checkpoint, load_checkpoint

from .training_rows import DOMAINS, DemoData

__all__ = ["CONTROL", "Evaluation", "commands", "control_result", "evaluate"]

BENCHMARK, PAIRS, PROTOCOL = "quickstart", "preferences", "official"
CONTROL = "other images"
BATCH_SIZE = 40
MAX_NEW_TOKENS = 8
"""The longest correct caption has five tokens; longer responses are truncated."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The results of a model.

    Attributes:
        captions: Its greedy captions of unseen images.
        pairs: Log-probs of held-out pairs, a result of `eval prefs`.
    """

    captions: Result
    pairs: Result

    def values(self) -> dict[str, float]:
        """Return the metrics of the model by name; rates are between 0 and 1."""
        captions, pairs = self.captions.metrics, self.pairs.metrics
        rates = ("accuracy", "hallucination_rate", "object_recall", "exact")
        values = {name: captions[name] / 100 for name in rates}
        values["caption_words"] = captions["caption_words"]
        values["pairs_all"] = pairs["accuracy"] / 100
        values |= {
            f"pairs_{domain}": pairs[f"accuracy/domain/{domain}"] / 100 for domain in DOMAINS
        }
        return values | {"chosen_logp": pairs["mean_chosen_logp"]}


def evaluate(
    models: Mapping[str, Path], data: DemoData, output: Path, *, dtype: str
) -> list[Evaluation]:
    """Evaluate models on the unseen images and the held-out pairs.

    Args:
        models: Name -> directory of the checkpoint.
        data: The data of the quick-start.
        output: Directory for predictions and results.
        dtype: Number format of the weights.
    """
    captions, pairs = load_benchmark(BENCHMARK), load_benchmark(PAIRS)
    questions = captions.read(data.file("test_images"), False)
    rows = read_pairs(pairs, data.file("heldout_pairs"))
    settings = RunSettings(
        protocol=load_protocol(PROTOCOL),
        prompt="plain",
        batch_size=BATCH_SIZE,
        max_new_tokens=MAX_NEW_TOKENS,
        overwrite=True,
    )

    def evaluate_model(name: str, path: Path) -> Evaluation:
        checkpoint = find_checkpoint(str(path), name)
        loaded = load_checkpoint(checkpoint, dtype=dtype, device=processes().device)
        folder = output / name
        run = checkpoint_run(loaded, captions, questions, settings)
        generate_predictions(run, folder / f"{BENCHMARK}.jsonl", settings)
        scored = score_predictions(run, folder / f"{BENCHMARK}.jsonl", settings.protocol)
        compared = evaluate_pairs(
            loaded, pairs, rows, folder / f"{PAIRS}.jsonl", batch_size=BATCH_SIZE, overwrite=True
        )
        assert compared is not None  # it is `None` in further processes, and the demo has one
        return Evaluation(captions=scored, pairs=compared)

    return [evaluate_model(name, path) for name, path in models.items()]


def control_result(captions: Result, data: DemoData, output: Path, *, seed: int) -> Result:
    """Grade each caption on the image of another sample, as a control.

    A greedy response depends on image and question only, and all questions are the same. So the
    captions that a model would generate for permuted images are its captions, permuted.

    Args:
        captions: The captions of a model.
        data: The data of the quick-start.
        output: Directory for predictions and results.
        seed: Seed of the permutation, a cycle through all samples.
    """
    order = list(captions.per_sample)
    random.Random(f"control-{seed}").shuffle(order)
    pairs = zip(order, order[1:] + order[:1], strict=True)
    path = output / CONTROL.replace(" ", "-") / f"{BENCHMARK}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [
        json.dumps({"id": sample.id, "response": other.response}) + "\n" for sample, other in pairs
    ]
    path.write_text("".join(lines), encoding="utf-8")
    benchmark = load_benchmark(BENCHMARK)
    result = grade_predictions(
        benchmark,
        benchmark.read(data.file("test_images"), False),
        read_predictions(path),
        captions.protocol,
        model=CONTROL,
    )
    write_result(result, path.with_suffix(".json"))
    return result


def commands(models: Mapping[str, Path], data: DemoData, output: Path, *, dtype: str) -> list[str]:
    """Return the commands that evaluate the same models in the same way."""
    names = " ".join(f"--name {name}" for name in models)
    shared = f"--dtype {dtype} --batch-size {BATCH_SIZE} --output {output}"
    folders = " ".join(map(str, models.values()))
    return [
        f"unidpo-mm eval run {folders} {names} --data {data.file('test_images')} -b {BENCHMARK} "
        f"--protocol {PROTOCOL} --prompt plain --max-new-tokens {MAX_NEW_TOKENS} {shared}",
        f"unidpo-mm eval prefs {folders} {names} --data {data.file('heldout_pairs')} {shared}",
    ]

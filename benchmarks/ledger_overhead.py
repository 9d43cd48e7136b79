"""Measure the share of a training step that its ledger takes.

    python benchmarks/ledger_overhead.py [STEPS]

trains a small text model (30 million parameters, random weights) with Uni-DPO and a ledger, with
one thread, and prints the CPU time of the run and that of recording, writing and alarms. A larger
model takes longer per step, while the time of the ledger depends on the number of pairs only, so
that the share is an upper bound.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import functools
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from unidpo_mm import UniDPOConfig, UniDPOTrainer
from unidpo_mm.training import callbacks
from unidpo_mm.training.ledger_recorder import LedgerRecorder

WORDS = 8_000
"""Size of the vocabulary; every word is a token."""


def timed(spent: dict[str, float], name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that adds its CPU time to `spent`."""

    @functools.wraps(function)
    def measured(*args: Any, **kwargs: Any) -> Any:
        start = time.process_time()
        try:
            return function(*args, **kwargs)
        finally:
            spent[name] += time.process_time() - start

    return measured


def write_model(folder: Path) -> None:
    """Write the model and its tokenizer."""
    vocabulary = {f"w{n}": n for n in range(WORDS - 1)} | {"<end>": WORDS - 1}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<end>", pad_token="<end>"
    ).save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=WORDS,
        hidden_size=512,
        intermediate_size=1536,
        num_hidden_layers=6,
        num_attention_heads=8,
        eos_token_id=WORDS - 1,
        pad_token_id=WORDS - 1,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)


def rows(count: int) -> Dataset:
    """Return pairs with prompts of 32 tokens and responses of 48."""
    draw = torch.Generator().manual_seed(0)

    def words(number: int) -> str:
        ids = torch.randint(0, WORDS - 1, (number,), generator=draw)
        return " ".join(f"w{n}" for n in ids.tolist())

    pairs = [
        {"prompt": words(32), "chosen": words(48), "rejected": words(48)} for _ in range(count)
    ]
    scored = [{**pair, "score_chosen": 4.0, "score_rejected": 1.0} for pair in pairs]
    return Dataset.from_list(scored)


def main(steps: int) -> None:
    """Train, and print the times."""
    spent: dict[str, float] = defaultdict(float)
    for name in ("on_step", "flush", "commit"):
        setattr(LedgerRecorder, name, timed(spent, name, getattr(LedgerRecorder, name)))
    for name in ("read_visits", "find_alarms"):
        setattr(callbacks, name, timed(spent, name, getattr(callbacks, name)))
    with tempfile.TemporaryDirectory() as folder:
        write_model(Path(folder) / "model")
        args = UniDPOConfig(
            output_dir=str(Path(folder) / "out"),
            max_steps=steps,
            per_device_train_batch_size=8,
            logging_steps=5,
            save_steps=max(steps // 2, 1),
            save_only_model=True,
            report_to="none",
            use_cpu=True,
            disable_tqdm=True,
            eval_generations=0,
        )
        trainer = UniDPOTrainer(str(Path(folder) / "model"), args, train_dataset=rows(8 * steps))
        start = time.process_time()
        trainer.train()
        total = time.process_time() - start
    print(f"{steps} steps of 8 pairs: {total:.2f} s of CPU time")
    for name, seconds in spent.items():
        print(f"  {name}: {1000 * seconds:.1f} ms, {seconds / total:.3%}")
    # a commit flushes first, so that these flushes count twice: the share is an upper bound
    print(f"in total: {sum(spent.values()) / total:.3%}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 40)

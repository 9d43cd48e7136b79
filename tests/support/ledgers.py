"""Constructed ledgers, and the data of their runs."""

import json
from pathlib import Path
from typing import Any

import numpy
from PIL import Image

from unidpo_mm.config import load_recipe
from unidpo_mm.data.load import load_rows
from unidpo_mm.ledger.files import LedgerFiles, bytes_of, schema_of, table_of
from unidpo_mm.records import PreferenceRow

TERMS = ("w_qual", "w_perf", "nll_gate")


def write_ledger(output_dir: Path, ids: list[str], *, epochs: int = 3) -> None:
    """Write a ledger in which every pair is visited once per epoch."""
    loss = {"name": "uni_dpo", "eta": 0.7, "nll_lambda": 0.001}
    schema = schema_of(TERMS, {"unit": "pair", "terms": list(TERMS), "loss": loss})
    files = LedgerFiles(output_dir, schema)
    draw = numpy.random.default_rng(0)
    count = len(ids)
    scores = draw.choice([1.0, 2.0, 3.0], count)
    lengths = draw.integers(3, 60, (2, count)).astype(float)
    for epoch in range(epochs):
        step = epoch * -(-count // 4) + numpy.arange(count) // 4 + 1
        margin = epoch + draw.normal(size=count)
        reference = -1.2 * lengths
        quality, performance = 1 / (1 + numpy.exp(-0.7 * scores)), 1 / (1 + numpy.exp(margin))
        columns: dict[str, Any] = {
            "step": step,
            "epoch": numpy.full(count, float(epoch)),
            "rank": numpy.zeros(count, int),
            "position": numpy.arange(count) % 4,
            "pair_id": ids,
            "row_id": [name.rsplit(":", 2)[0] for name in ids],
            "source": ["even" if n % 2 else "odd" for n in range(count)],
            "domain": ["multimodal" if n % 3 else "math" for n in range(count)],
            "applied": [True] * count,
            "weight": numpy.ones(count),
            "score_chosen": 1 + scores,
            "score_rejected": numpy.ones(count),
            "chosen_length": lengths[0],
            "rejected_length": lengths[1],
            "policy_chosen_logp": reference[0],
            "policy_rejected_logp": reference[1] - margin,
            "reference_chosen_logp": reference[0],
            "reference_rejected_logp": reference[1],
            "reward_chosen": margin / 2,
            "reward_rejected": -margin / 2,
            "loss": numpy.log1p(numpy.exp(-margin)),
            "dloss_dchosen": -quality,
            "dloss_drejected": quality,
            "contribution": quality * performance,
            "w_qual": quality,
            "w_perf": performance,
            "nll_gate": (draw.random(count) < 0.2).astype(float),
        }
        files.append(bytes_of(table_of(schema, columns)))
        files.commit(int(step[-1]))


def write_data(output_dir: Path, rows: int) -> list[PreferenceRow]:
    """Write a recipe and image rows next to a ledger, and return the rows as a run reads them."""
    folder = output_dir.parent
    output_dir.mkdir(exist_ok=True)
    lines = []
    for number in range(rows):
        Image.new("RGB", (600, 300), (10 * number, 0, 0)).save(folder / f"{number}.png")
        question = {"type": "text", "text": f"What is {number}? <b>"}
        lines.append(
            {
                "id": f"r{number}",
                "prompt": [{"role": "user", "content": [{"type": "image"}, question]}],
                "images": [f"{number}.png"],
                "chosen": f"good </script> {number}",
                "rejected": f"bad & {number}",
                "score_chosen": 4.0,
                "score_rejected": 1.0,
            }
        )
    path = folder / "pairs.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    recipe = output_dir / "recipe.yaml"
    recipe.write_text(
        f"model: {{name_or_path: absent}}\ndata: {{sources: [{{path: {path}}}]}}\n"
        f"train: {{output_dir: {output_dir}}}\n",
        encoding="utf-8",
    )
    return list(load_rows(load_recipe(recipe).data.sources))

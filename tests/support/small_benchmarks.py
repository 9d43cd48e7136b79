"""Small benchmarks and models for tests of `eval run`."""

import base64
import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from builders import make_image, tiny_checkpoint

SIZES = ((40, 30), (30, 56), (64, 64), (28, 90), (100, 40))


def image_base64(shade: int) -> str:
    content = io.BytesIO()
    make_image(shade, SIZES[shade % len(SIZES)]).save(content, "PNG")
    return base64.b64encode(content.getvalue()).decode("ascii")


def option_table(folder: Path, rows: int = 11) -> Path:
    """Write a table of questions with options and images of several sizes."""
    path = folder / "AI2D_TEST.tsv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t")
        writer.writerow(("index", "question", "hint", "A", "B", "answer", "image"))
        for n in range(rows):
            image = image_base64(n) if n % 4 else image_base64(0) if n == 0 else "0"
            question = f"Which is {n}? " + "Hello world! " * (n % 3)
            writer.writerow(
                (n, question, "Look." if n % 2 else "", "two", "red", "AB"[n % 2], image)
            )
    return path


def math_lines(folder: Path, rows: int = 7) -> Path:
    folder = folder / "gsm8k"
    folder.mkdir(exist_ok=True)
    # of different lengths, so that even a tiny model answers them differently
    lines = [
        {"question": f"{'Red and blue. ' * n}What is {n} + 4?", "answer": f"#### {n + 4}"}
        for n in range(rows)
    ]
    path = folder / "test.jsonl"
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return path


def varied_checkpoint(folder: Path, model_type: str) -> Path:
    """Write a tiny checkpoint whose responses end and differ between prompts."""
    torch.manual_seed(3)
    return tiny_checkpoint(folder, model_type)


def predictions(path: Path) -> dict[str, dict[str, Any]]:
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {line["id"]: line for line in lines if "id" in line}


def responses_of(path: Path) -> dict[str, str]:
    return {key: item["response"] for key, item in predictions(path).items()}


def run_arguments(
    checkpoint: Path, data: Path, out: Path, benchmark: str, *options: Any
) -> Sequence[str]:
    arguments = ("run", checkpoint, "-b", benchmark, "--data", data, "--output", out)
    return [
        str(word) for word in (*arguments, "--dtype", "float32", "--max-new-tokens", 6, *options)
    ]

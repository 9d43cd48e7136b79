"""Recipes that sample from a server, and servers that sample like vLLM."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from builders import make_image

from unidpo_mm.pipelines.load import load_make_recipe
from unidpo_mm.pipelines.run import Made, make

SCORER = """
from unidpo_mm.pipelines.scorer import Score, Scorer


class Length(Scorer):
    def score(self, candidates):
        return [Score(len(candidate.text)) for candidate in candidates]


SCORER = Length
"""


def write_prompts(folder: Path, count: int, *, images: bool = False) -> Path:
    """Write prompts, each with an image of its own on request."""
    rows = []
    for number in range(count):
        row: dict[str, Any] = {"id": f"p{number}", "prompt": f"Count to {number}, please."}
        if images:
            make_image(number).save(folder / f"{number}.png")
            row = {**row, "prompt": f"<image>{row['prompt']}", "images": [f"{number}.png"]}
        rows.append(row)
    path = folder / "prompts.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def write_recipe(folder: Path, **sample: Any) -> Path:
    """Write a recipe for the prompts of a directory."""
    (folder / "length.py").write_text(SCORER, encoding="utf-8")
    recipe = {
        "output": str(folder / "made"),
        "prompts": {"sources": [{"path": "prompts.jsonl"}]},
        "sample": {"max_new_tokens": 9, "temperature": 0.8, "top_p": 0.9, **sample},
        "score": {"length": {"scorer": "./length.py"}},
    }
    path = folder / "make.yaml"
    path.write_text(json.dumps(recipe), encoding="utf-8")
    return path


def sampled(folder: Path, *overrides: str, **sample: Any) -> dict[str, dict[str, Any]]:
    """Make the responses of a recipe and return them by id."""
    made = run_sampling(folder, *overrides, **sample)
    return dict(made.responses)


def run_sampling(folder: Path, *overrides: str, **sample: Any) -> Made:
    making = load_make_recipe(write_recipe(folder, **sample), overrides)
    return make(making, until="sample")


def served(*urls: str, **section: Any) -> dict[str, Any]:
    """Return the section of a recipe for servers."""
    return {"urls": list(urls), "model": "org/served", "concurrency": 4, "timeout": 5, **section}


def completion(texts: Sequence[str], prompt_tokens: int = 5) -> bytes:
    """Return the body of a reply with several choices."""
    choices = [
        {"index": index, "message": {"content": text}, "finish_reason": "stop"}
        for index, text in enumerate(texts)
    ]
    usage = {"completion_tokens": 3 * len(texts), "prompt_tokens": prompt_tokens}
    return json.dumps({"choices": choices[::-1], "usage": usage}).encode()


def drawn(request: Mapping[str, Any], seed: int) -> str:
    """Return a text that depends on the prompt, the temperature and the seed of a choice."""
    content = json.dumps([request["messages"], request["temperature"], seed])
    return f"text {hashlib.sha256(content.encode()).hexdigest()[:12]}"


def like_vllm(request: Mapping[str, Any], before: int = 0) -> bytes:
    """Answer with `n` choices, whose seeds follow that of the request."""
    seeds = range(request["seed"], request["seed"] + request.get("n", 1))
    return completion([drawn(request, seed) for seed in seeds], prompt_tokens=count(request))


def count(request: Mapping[str, Any]) -> int:
    """Return a number of tokens that grows with images."""
    parts = [part for turn in request["messages"] for part in turn["content"]]
    return 5 + 10 * sum("image_url" in part for part in parts if isinstance(part, dict))


OPENAI = frozenset(
    "model messages temperature top_p frequency_penalty presence_penalty seed n stop "
    "max_tokens".split()
)


def strict(speak: Callable[[Mapping[str, Any], int], Any]) -> Callable[..., Any]:
    """Refuse requests with fields that OpenAI's protocol lacks."""
    return lambda request, before: speak(request, before) if set(request) <= OPENAI else 400

"""Recipes that score responses of their sources, with a scorer whose calls are counted."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from builders import make_image

__all__ = ["calls_of", "write_made_recipe", "write_rows"]

JUDGE = '''
import time
from dataclasses import dataclass
from pathlib import Path

from unidpo_mm.pipelines.scorer import Fault, Score, Scorer


@dataclass(frozen=True)
class Judge(Scorer):
    """Scores the number of words, and writes a line per request."""

    log: str = ""
    seconds: float = 0.0
    faulty: str = "no such text"

    scale = (0.0, 1000.0)

    def score(self, candidates):
        time.sleep(self.seconds * len(candidates))
        with Path(self.log).open("a") as stream:
            stream.write("call\\n" * len(candidates))
        return [
            Fault("malformed", f"'{c.text}' has no verdict") if self.faulty in c.text
            else Score(len(c.text.split()))
            for c in candidates
        ]

    def units(self, candidates, prompts):
        return {"judge requests": candidates}


SCORER = Judge
'''


def write_rows(folder: Path, responses: Sequence[Sequence[str]], *, images: bool = False) -> Path:
    """Write one row per list of responses; the right answer is the number of the row."""
    lines = []
    for number, texts in enumerate(responses):
        row: dict[str, Any] = {
            "id": f"p{number}",
            "prompt": [{"role": "user", "content": f"Question {number}?"}],
            "responses": [{"text": text} for text in texts],
            "answer": str(number),
        }
        if images:
            make_image(number % 250).save(folder / f"{number}.png")
            parts = [{"type": "image"}, {"type": "text", "text": f"Question {number}?"}]
            row |= {"images": [f"{number}.png"], "prompt": [{"role": "user", "content": parts}]}
        lines.append(json.dumps(row) + "\n")
    path = folder / "rows.jsonl"
    path.write_text("".join(lines), encoding="utf-8")
    return path


def write_made_recipe(folder: Path, judge: Mapping[str, Any] = {}, **sections: Any) -> Path:
    """Write a recipe for the rows of a directory, scored by a judge that counts its calls."""
    (folder / "judge.py").write_text(JUDGE, encoding="utf-8")
    settings = {"scorer": "./judge.py", "log": str(folder / "calls.txt"), **judge}
    recipe = {
        "output": str(folder / "made"),
        "prompts": {"sources": [{"path": "rows.jsonl"}]},
        "sample": {"responses": "given"},
        "score": {"words": settings},
        **sections,
    }
    path = folder / "make.yaml"
    path.write_text(json.dumps(recipe), encoding="utf-8")
    return path


def calls_of(folder: Path) -> int:
    """Return the number of responses that the judge has scored, and forget them."""
    path = folder / "calls.txt"
    calls = len(path.read_text(encoding="utf-8").splitlines())
    path.unlink()
    return calls

"""The texts and images of the pairs on the page, read again from the data of the run."""

import base64
from collections.abc import Collection
from pathlib import Path
from typing import Any

from ..config import load_recipe
from ..data.excerpts import prompt_text, thumbnails
from ..data.load import ReadOptions, read_sources
from ..errors import UniDPOError, counted
from ..training.output_directory import RECIPE_FILE

__all__ = ["pair_excerpts"]

SIDE = 320
"""Maximum number of pixels of an image on the page."""

MAX_CHARACTERS = 4000
"""Maximum length of a text on the page."""


def pair_excerpts(output_dir: Path, ids: Collection[str]) -> tuple[dict[str, Any], str]:
    """Return what the page shows of pairs, and why it shows nothing of others.

    Args:
        output_dir: The output directory of the run.
        ids: The ids of the pairs.

    Returns:
        Pair id -> its prompt, responses, place in the data and images; and a reason, which is empty
        if all pairs were found.
    """
    path = output_dir / RECIPE_FILE
    if not path.is_file():
        return {}, "The run was started from Python, so its data cannot be read again"
    try:
        data = load_recipe(path).data
        loaded = read_sources(data.sources, ReadOptions(score_scale=data.score_scale))
    except (UniDPOError, OSError) as error:
        return {}, f"The data of the run cannot be read: {error}"
    row_ids = {name.rsplit(":", 2)[0] for name in ids}
    excerpts: dict[str, Any] = {}
    for row in loaded.rows:
        if row.labels:
            row = row.for_labels(None)
        names = {pair.row_id or row.id for pair in row.pairs}
        if not names & row_ids:
            continue
        for pair in row.pairs:
            name = row.pair_id(pair)
            if name in ids and name not in excerpts:
                chosen, rejected = row.responses[pair.chosen], row.responses[pair.rejected]
                excerpts[name] = {
                    "where": row.where,
                    "prompt": _short(prompt_text(row)),
                    "chosen": "" if pair.good is False else _short(chosen.text),
                    "rejected": "" if pair.good else _short(rejected.text),
                    "images": [_inline(content) for content in thumbnails(row, side=SIDE)],
                }
    missing = len(set(ids) - excerpts.keys())
    if missing and loaded.problems:
        return excerpts, f"The data of the run cannot be read: {loaded.problems[0]}"
    if missing:
        missing_pairs = counted(missing, "pair is", "pairs are")
        return excerpts, f"{missing_pairs} not in the data of the run any more"
    return excerpts, ""


def _short(text: str) -> str:
    return text if len(text) <= MAX_CHARACTERS else f"{text[:MAX_CHARACTERS]} …"


def _inline(content: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(content).decode()}"

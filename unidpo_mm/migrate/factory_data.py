"""LLaMA-Factory's data sets, by their registered names."""

from pathlib import Path
from typing import Any

from ..errors import RecipeError
from .draft import Draft
from .keys import as_list
from .registry import Registry, load_registry

__all__ = ["complete_data"]


def complete_data(draft: Draft) -> None:
    """States the sources of data and what is held out of them."""
    registry = _registry(draft)
    sources = _sources(draft, registry, "dataset")
    if sources:
        draft.put("data.sources", sources, "dataset", "media_dir")
    if "dataset_dir" in draft.values:
        if registry.entries is None:
            draft.note("dataset_dir", "there is no dataset_info.json in it")
        else:
            draft.carried.add("dataset_dir")
    evaluated = _sources(draft, registry, "eval_dataset")
    if evaluated:
        draft.put("data.eval_sources", evaluated, "eval_dataset")
    elif "eval_dataset" in draft.values:
        draft.leave_out("eval_dataset", "name a data set there")
    draft.hold_out("val_size")


def _registry(draft: Draft) -> Registry:
    folder, images = str(draft.value("dataset_dir")), draft.values.get("media_dir")
    images = None if images is None else str(images)
    try:
        return load_registry(folder, draft.folder, images)
    except RecipeError as error:
        draft.problems += error.problems
        return Registry(folder=Path(folder), images=images)


def _sources(draft: Draft, registry: Registry, key: str) -> list[dict[str, Any]]:
    sources = []
    for name in as_list(draft.values.get(key)):
        source, texts = registry.source(name)
        sources.append(source)
        for text in texts:
            draft.note(key, text)
    return sources

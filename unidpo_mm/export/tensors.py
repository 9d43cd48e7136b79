"""The comparison of the tensors of an exported model with those of its base model.

A model may be saved with tensors missing, for example because the class that loaded it does not
know them. Then other programs cannot load it, or load random numbers. So the names and shapes of an
exported model are compared with those of its base model.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import ModelError, Problem, counted
from ..modeling.tensor_files import INDEX_FILE, SINGLE_FILE, TensorFiles, tensor_shapes

__all__ = ["add_tensors", "check_names"]

EXAMPLES = 3


def check_names(
    saved: Mapping[str, tuple[int, ...]],
    base: TensorFiles,
    *,
    tied: Iterable[str],
    untied: Iterable[str],
    where: str,
) -> None:
    """Check that an exported model has the tensors of its base model, with the same shapes.

    Args:
        saved: Name of each exported tensor -> its shape.
        base: The tensors of the base model.
        tied: Names that may be missing, because the model shares another tensor.
        untied: Names that may be added, because the base model shared another tensor.
        where: The model, for messages.

    Raises:
        ModelError: If a tensor is missing, added or of another shape.
    """
    missing = base.shapes.keys() - saved.keys() - set(tied)
    added = saved.keys() - base.shapes.keys() - set(untied) - set(tied)
    resized = {n for n in saved.keys() & base.shapes.keys() if saved[n] != base.shapes[n]}
    texts = [
        f"{counted(len(names), noun)} {what}, such as {', '.join(sorted(names)[:EXAMPLES])}"
        for names, noun, what in (
            (missing, "tensor", "of the base model would be lost"),
            (added, "tensor", "would be added that the base model does not have"),
            (resized, "tensor", "would have another shape than in the base model"),
        )
        if names
    ]
    if texts:
        problem = f"{'; '.join(texts)} (base model '{base.name_or_path}')"
        remedy = "Set --base to the model that was trained, and report this as a bug if it is set"
        raise ModelError(Problem(where, problem, remedy))


def add_tensors(directory: Path, tensors: Mapping[str, Tensor]) -> None:
    """Add tensors to the files of a saved model, in a file of their own."""
    from safetensors.torch import save_file

    index_path = directory / INDEX_FILE
    if index_path.is_file():
        index: dict[str, Any] = json.loads(index_path.read_text(encoding="utf-8"))
        added = "model-additional.safetensors"
    else:
        first, added = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
        (directory / SINGLE_FILE).rename(directory / first)
        names = [name for name, _ in tensor_shapes(directory / first)]
        size = (directory / first).stat().st_size
        index = {"metadata": {"total_size": size}, "weight_map": dict.fromkeys(names, first)}
    save_file({name: t.contiguous() for name, t in tensors.items()}, directory / added, PYTORCH)
    index["weight_map"] |= dict.fromkeys(tensors, added)
    index["metadata"]["total_size"] += sum(t.numel() * t.element_size() for t in tensors.values())
    index_path.write_text(json.dumps(index, indent=2), encoding="utf-8")


PYTORCH = {"format": "pt"}
"""Metadata of a safetensors file, which transformers requires."""

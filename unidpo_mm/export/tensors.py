"""The tensors in the files of a checkpoint, and the comparison of two checkpoints.

A model may be saved with tensors missing, for example because the class that loaded it does not
know them. Then other programs cannot load it, or load random numbers. So the names and shapes of an
exported model are compared with those of its base model.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import ModelError, Problem, counted

__all__ = ["TensorFiles", "add_tensors", "check_names"]

INDEX_FILE = "model.safetensors.index.json"
SINGLE_FILE = "model.safetensors"
WEIGHT_FILES = (SINGLE_FILE, INDEX_FILE, "pytorch_model.bin", "pytorch_model.bin.index.json")
"""Names of weight files in the order in which transformers looks for them."""

EXAMPLES = 3


class TensorFiles:
    """The tensors of a checkpoint, which are read one by one.

    Args:
        name_or_path: A local directory, or the name of a model on a hub that was downloaded.

    Attributes:
        shapes: Name of each tensor -> its shape.

    Raises:
        ModelError: If the checkpoint has no weights that can be read.
    """

    def __init__(self, name_or_path: str) -> None:
        self.name_or_path = name_or_path
        self.shapes: dict[str, tuple[int, ...]] = {}
        self._file_of: dict[str, Path] = {}
        try:
            for path in self._files():
                for name, shape in _shapes(path):
                    self.shapes[name] = shape
                    self._file_of[name] = path
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            problem = f"its weights cannot be read ({' '.join(str(error).split()).rstrip('.')})"
            raise ModelError(Problem(name_or_path, problem, "Download or save it again")) from error
        if not self.shapes:
            problem = f"it has no weights ({', '.join(WEIGHT_FILES)})"
            raise ModelError(Problem(name_or_path, problem, "Download or save it again"))

    def _files(self) -> list[Path]:
        from transformers.utils.hub import cached_file

        def find(name: str) -> Path | None:
            path = cached_file(self.name_or_path, name, _raise_exceptions_for_missing_entries=False)
            return None if path is None else Path(path)

        for name in WEIGHT_FILES:
            path = find(name)
            if path is not None and path.suffix == ".json":
                names = sorted(set(json.loads(path.read_text("utf-8"))["weight_map"].values()))
                shards = [find(shard) for shard in names]
                return [shard for shard in shards if shard is not None]
            if path is not None:
                return [path]
        return []

    def read(self, names: Iterable[str]) -> dict[str, Tensor]:
        """Return tensors by their names."""
        tensors: dict[str, Tensor] = {}
        for name in names:
            with _opened(self._file_of[name]) as content:
                tensors[name] = content(name)
        return tensors


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
        names = [name for name, _ in _shapes(directory / first)]
        size = (directory / first).stat().st_size
        index = {"metadata": {"total_size": size}, "weight_map": dict.fromkeys(names, first)}
    save_file({name: t.contiguous() for name, t in tensors.items()}, directory / added, PYTORCH)
    index["weight_map"] |= dict.fromkeys(tensors, added)
    index["metadata"]["total_size"] += sum(t.numel() * t.element_size() for t in tensors.values())
    index_path.write_text(json.dumps(index, indent=2), encoding="utf-8")


PYTORCH = {"format": "pt"}
"""Metadata of a safetensors file, which transformers requires."""


def _shapes(path: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    if path.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(path, framework="pt") as content:
            for name in content.keys():  # noqa: SIM118 (not a mapping)
                yield name, tuple(content.get_slice(name).get_shape())
        return
    for name, tensor in _load(path, "meta").items():
        yield name, tuple(tensor.shape)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Yield a function that reads a tensor of a file."""
    if path.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(path, framework="pt") as content:
            yield content.get_tensor
    else:
        yield _load(path, "cpu").__getitem__


def _load(path: Path, device: str) -> dict[str, Tensor]:
    loaded: dict[str, Tensor] = torch.load(path, map_location=device, weights_only=True, mmap=True)
    return loaded

"""The tensors in the files of a checkpoint, and those that its model does not load."""

import contextlib
import json
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import ModelError, Problem, counted
from .checkpoint_names import file_names, head_names

if TYPE_CHECKING:
    from .load import ModelSource

__all__ = [
    "INDEX_FILE",
    "SINGLE_FILE",
    "TensorFiles",
    "tensor_shapes",
    "tensors_not_loaded",
    "warn_of_tensors_not_loaded",
]

logger = logging.getLogger(__name__)

INDEX_FILE = "model.safetensors.index.json"
SINGLE_FILE = "model.safetensors"
WEIGHT_FILES = (SINGLE_FILE, INDEX_FILE, "pytorch_model.bin", "pytorch_model.bin.index.json")
"""Names of weight files in the order in which transformers looks for them."""

OTHER_FILES = {"gguf_file", "revision", "state_dict", "subfolder", "variant"}
"""Arguments of `from_pretrained` with which the weights are those of other files."""


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
                for name, shape in tensor_shapes(path):
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


def tensors_not_loaded(model: Any, files: TensorFiles) -> list[str]:
    """Return the names of the tensors in the files of a checkpoint that its model does not load."""
    is_tied = bool(getattr(model.config.get_text_config(), "tie_word_embeddings", False))
    tied = head_names(model) if is_tied else set()
    return sorted(files.shapes.keys() - file_names(model).keys() - tied)


def warn_of_tensors_not_loaded(model: Any, source: "ModelSource") -> None:
    """Warn about tensors of a checkpoint that will be missing when its model is saved.

    Some of them are listed nowhere: transformers hides those that a class ignores on purpose.

    Args:
        model: The model, without a LoRA adapter.
        source: Where it was loaded from.
    """
    quantized = getattr(model.config, "quantization_config", None) is not None
    if quantized or OTHER_FILES & source.init_kwargs.keys():
        return
    names: list[str] = []
    with contextlib.suppress(ModelError):  # files of a kind that is not read here
        names = tensors_not_loaded(model, TensorFiles(source.model_name))
    if names:
        logger.warning(
            "%s of '%s' (such as %s) %s not loaded by %s: the output directory will not contain "
            "%s, and unidpo-mm export copies %s from the base model",
            counted(len(names), "tensor"),
            source.model_name,
            names[0],
            "is" if len(names) == 1 else "are",
            type(model).__name__,
            *(("it", "it") if len(names) == 1 else ("them", "them")),
        )


def tensor_shapes(path: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield name and shape of each tensor in a file."""
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

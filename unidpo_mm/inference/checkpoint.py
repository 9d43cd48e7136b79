"""Checkpoints: full models, or LoRA adapters with the name of their base model."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..adapter import Adapter, AdapterFamily, AdapterOptions
from ..cache.keys import file_digest
from ..errors import ModelError, Problem
from ..lora_directory import (
    ADAPTER_CONFIG,
    base_of,
    is_adapter_directory,
    processor_directory,
)
from ..modeling.families import family_for
from ..modeling.load import ModelSource, load_adapter, load_config, load_weights
from .image_tokens import check_image_tokens
from .template_variables import TRAINED_WITH, VARIABLES, trained_variables

__all__ = [
    "Checkpoint",
    "LoadedCheckpoint",
    "find_checkpoint",
    "find_checkpoints",
    "load_checkpoint",
    "processor_hash",
]

WEIGHTS = ("*.safetensors", "pytorch_model*.bin", "adapter_model*.bin")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Location of a model.

    Attributes:
        name: Name in tables and of directories.
        base: Directory or hub name of the full model.
        lora: Directory of a LoRA adapter for it; `None` if there is none.
        processor: Directory or hub name of its processor.
        weights: Hash of all weight files; the revision of a model on the hub; empty if unknown.
    """

    name: str
    base: str
    lora: Path | None
    processor: str
    weights: str


@dataclass(frozen=True)
class LoadedCheckpoint:
    """A checkpoint in memory, in evaluation mode."""

    checkpoint: Checkpoint
    model: Any
    family: AdapterFamily
    config: Any
    processor: Any
    device: Any

    def adapter(self, options: AdapterOptions) -> Adapter:
        """Build an adapter with other options for the same weights."""
        return self.family.create(self.processor, self.config, options)

    def manifest(self, variables: Mapping[str, Any]) -> dict[str, Any]:
        """Return what a file of responses records of the model and the chat template's variables.

        If the trainer recorded different variables, these are recorded, too.
        """
        record: dict[str, Any] = {VARIABLES: dict(variables)} if variables else {}
        trained = trained_variables(self.checkpoint.lora or Path(self.checkpoint.base))
        if trained is not None and trained != dict(variables):
            record[TRAINED_WITH] = trained
        return record | {
            "model": self.checkpoint.name,
            "weights": self.checkpoint.weights,
            "family": self.family.name,
            "processor": processor_hash(self.processor),
            "dtype": str(next(self.model.parameters()).dtype).removeprefix("torch."),
            "device": str(self.device).partition(":")[0],
        }


def find_checkpoint(path: str, name: str | None = None, *, with_hash: bool = True) -> Checkpoint:
    """Return a checkpoint without loading its weights.

    Args:
        path: Directory of a model or a LoRA adapter, or hub name.
        name: Name in tables; `None` for the last part of the path.
        with_hash: Whether to read all weight files for their hash.

    Raises:
        ModelError: If there is no checkpoint.
    """
    folder = Path(path)
    name = name or _last_part(folder)
    # without a hash, only a name on the hub is looked up, because it has to exist
    weights = _weights if with_hash else _revision
    if not is_adapter_directory(folder):
        if folder.is_dir() and not (folder / "config.json").is_file():
            text = f"the directory contains neither config.json nor {ADAPTER_CONFIG}"
            remedy = "Use a directory written by save_pretrained or the trainer"
            if newest := _newest_checkpoint(folder):
                text = "the run has not saved its final model yet"
                remedy = f"Use one of its checkpoints, for example {newest}"
            raise ModelError(Problem(path, text, remedy))
        return Checkpoint(name=name, base=path, lora=None, processor=path, weights=weights(path))
    base = base_of(folder)
    needs = family_for(load_config(ModelSource(name_or_path=base))).needs_processor
    return Checkpoint(
        name=name,
        base=base,
        lora=folder,
        processor=processor_directory(folder, base, needs_processor=needs),
        weights="+".join(filter(None, (weights(base), weights(path)))),
    )


def find_checkpoints(paths: Sequence[str], names: Sequence[str] = ()) -> list[Checkpoint]:
    """Return several checkpoints without loading their weights; see `find_checkpoint`."""
    if names and len(names) != len(paths):
        text = f"got {len(names)} names for {len(paths)} checkpoints"
        raise ModelError(Problem("--name", text, "Use one per checkpoint, in order"))
    checkpoints = [
        find_checkpoint(path, names[n] if names else None) for n, path in enumerate(paths)
    ]
    used = Counter(checkpoint.name for checkpoint in checkpoints)
    if duplicates := sorted(name for name, count in used.items() if count > 1):
        text = f"several checkpoints have the name {', '.join(duplicates)}"
        raise ModelError(Problem("CHECKPOINT", text, "Use --name once per checkpoint"))
    return checkpoints


def load_checkpoint(checkpoint: Checkpoint, *, dtype: str, device: Any) -> LoadedCheckpoint:
    """Load a checkpoint in a number format (see `ModelSource`) onto a device.

    Raises:
        ModelError: If the checkpoint cannot be read, or its processor disagrees with its model.
    """
    lora, base = checkpoint.lora, checkpoint.base
    source = ModelSource(
        name_or_path=base if lora is None else str(lora),
        dtype=dtype,
        base_name_or_path=None if lora is None else base,
        base_key=None,
    )
    config = load_config(source)
    family = family_for(config)
    model: Any = load_weights(source, family, is_trainable=False)
    processor = ModelSource(name_or_path=checkpoint.processor)
    adapter = load_adapter(processor, AdapterOptions(), config=config, family=family)
    model = model.to(device).eval()
    check_image_tokens(model, adapter, device)
    return LoadedCheckpoint(checkpoint, model, family, config, adapter.processor, device)


def processor_hash(processor: Any) -> str:
    """Return a hash of how a processor encodes images and renders conversations."""
    tokenizer = getattr(processor, "tokenizer", processor)
    images = getattr(processor, "image_processor", None)
    content = {
        "class": type(processor).__name__,
        "vocabulary": len(tokenizer),
        "template": getattr(processor, "chat_template", None) or tokenizer.chat_template,
        "images": None if images is None else images.to_dict(),
    }
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _last_part(folder: Path) -> str:
    """Return the name of a directory; for `checkpoint-100`, with that of its parent."""
    resolved = folder.resolve() if folder.is_dir() else folder
    name = resolved.name or "model"
    generic = name.startswith("checkpoint-") or name in ("merged", "final", "model")
    return f"{resolved.parent.name}-{name}" if generic and resolved.parent.name else name


def _newest_checkpoint(folder: Path) -> Path | None:
    """Return the checkpoint with the highest step in the output directory of a run."""
    steps = {
        int(place.name.partition("-")[2]): place
        for place in folder.glob("checkpoint-*")
        if place.name.partition("-")[2].isdecimal() and place.is_dir()
    }
    return steps[max(steps)] if steps else None


def _weights(path: str) -> str:
    """Return a hash of a directory's weights and configuration, or a hub model's revision."""
    folder = Path(path)
    if not folder.is_dir():
        return _revision(path)
    weights = sorted({file for pattern in WEIGHTS for file in folder.glob(pattern)})
    configs = (folder / "config.json", folder / ADAPTER_CONFIG)
    digest = hashlib.sha256()
    for file in (*weights, *(config for config in configs if config.is_file())):
        digest.update(file.name.encode())
        digest.update(bytes.fromhex(file_digest(file)))
    return digest.hexdigest()[:32]


def _revision(path: str) -> str:
    """Return the revision of a model on the hub; an empty text for a directory."""
    if Path(path).is_dir():
        return ""
    try:
        config = load_config(ModelSource(name_or_path=path))
    except ModelError as error:
        problem, where = error.problems[0], f"checkpoint '{path}'"
        raise ModelError(Problem(where, problem.message, problem.remedy)) from error
    return f"{path}@{getattr(config, '_commit_hash', None)}"

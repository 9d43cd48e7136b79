"""Checkpoints: whole models, or LoRA matrices beside the name of what they were trained on."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unidpo_mm.adapter import Adapter, AdapterFamily, AdapterOptions
from unidpo_mm.errors import ModelError, Problem
from unidpo_mm.modeling.load import (
    ModelSource,
    family_for,
    load_adapter,
    load_config,
    load_weights,
)
from unidpo_mm.modeling.lora_directory import (
    ADAPTER_CONFIG,
    base_of,
    is_adapter_directory,
    processor_directory,
)

__all__ = [
    "Checkpoint",
    "LoadedCheckpoint",
    "find_checkpoint",
    "find_checkpoints",
    "load_checkpoint",
]

WEIGHTS = ("*.safetensors", "pytorch_model*.bin", "adapter_model*.bin")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Where a model comes from.

    Attributes:
        name: What it is called in tables and folders.
        base: Folder or hub name of the whole model.
        lora: Folder of LoRA matrices on it; None for none.
        processor: Folder or name that its processor comes from.
        weights: Hash of all files of weights; of a model on the hub the revision.
    """

    name: str
    base: str
    lora: Path | None
    processor: str
    weights: str


@dataclass(frozen=True)
class LoadedCheckpoint:
    """A checkpoint in memory."""

    checkpoint: Checkpoint
    model: Any
    family: AdapterFamily
    config: Any
    processor: Any
    device: Any

    def adapter(self, options: AdapterOptions) -> Adapter:
        """Returns the adapter with other options; the weights stay."""
        return self.family.create(self.processor, self.config, options)


def find_checkpoint(path: str, name: str | None = None) -> Checkpoint:
    """Returns what a folder or hub name holds, without reading weights but for their hash.

    Args:
        path: A folder of a whole model, of LoRA matrices, or a name on the hub.
        name: What it is called; None for the last part of the path.

    Raises:
        ModelError: If the folder holds no checkpoint.
    """
    folder = Path(path)
    own = name or _last_part(folder)
    if not folder.is_dir():
        return Checkpoint(name=own, base=path, lora=None, processor=path, weights=_revision(path))
    if not is_adapter_directory(folder):
        if not (folder / "config.json").is_file():
            found = f"the folder holds neither config.json nor {ADAPTER_CONFIG}"
            remedy = "Give a folder that save_pretrained or the trainer wrote"
            raise ModelError(Problem(path, found, remedy))
        digest = _hash_files(folder)
        return Checkpoint(name=own, base=path, lora=None, processor=path, weights=digest)
    base = base_of(folder)
    whole = _hash_files(Path(base)) if Path(base).is_dir() else _revision(base)
    needs = family_for(load_config(ModelSource(name_or_path=base))).needs_processor
    return Checkpoint(
        name=own,
        base=base,
        lora=folder,
        processor=processor_directory(folder, base, needs_processor=needs),
        weights=f"{whole}+{_hash_files(folder)}",
    )


def load_checkpoint(checkpoint: Checkpoint, *, dtype: str, device: Any) -> LoadedCheckpoint:
    """Returns a checkpoint in memory, in evaluation mode.

    Args:
        checkpoint: Which.
        dtype: As `ModelSource` takes it.
        device: Where it runs.
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
    place = ModelSource(name_or_path=checkpoint.processor)
    adapter = load_adapter(place, AdapterOptions(), config=config, family=family)
    model = model.to(device).eval()
    return LoadedCheckpoint(checkpoint, model, family, config, adapter.processor, device)


def find_checkpoints(paths: Sequence[str], names: Sequence[str] = ()) -> list[Checkpoint]:
    """Returns what several folders or hub names hold; see `find_checkpoint`.

    Args:
        paths: Folders or hub names.
        names: What they are called, in order; empty for the last parts of the paths.

    Raises:
        ModelError: If one holds no checkpoint, or two would be written under one name.
    """
    if names and len(names) != len(paths):
        found = f"there are {len(names)} for {len(paths)} checkpoints"
        raise ModelError(Problem("--name", found, "Give one for each, in order"))
    given: Sequence[str | None] = names or [None] * len(paths)
    known = [find_checkpoint(path, own) for path, own in zip(paths, given, strict=True)]
    called = [one.name for one in known]
    twice = sorted({name for name in called if called.count(name) > 1})
    if twice:
        found = f"several checkpoints are called {', '.join(twice)}"
        raise ModelError(Problem("CHECKPOINT", found, "Give each its own --name"))
    return known


def _last_part(folder: Path) -> str:
    """Returns the name of a folder; of `checkpoint-100` with that of the folder it is in."""
    resolved = folder.resolve() if folder.is_dir() else folder
    own = resolved.name or "model"
    generic = own.startswith("checkpoint-") or own in ("merged", "final", "model")
    return f"{resolved.parent.name}-{own}" if generic and resolved.parent.name else own


def _hash_files(folder: Path) -> str:
    """Returns a hash of the weights of a folder, and of its configuration."""
    files = sorted({file for pattern in WEIGHTS for file in folder.glob(pattern)})
    digest = hashlib.sha256()
    for file in [
        *files,
        *(one for one in (folder / "config.json", folder / ADAPTER_CONFIG) if one.is_file()),
    ]:
        digest.update(file.name.encode())
        with file.open("rb") as content:
            digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()[:32]


def _revision(name: str) -> str:
    """Returns the revision of a model on the hub."""
    try:
        config = load_config(ModelSource(name_or_path=name))
    except ModelError as error:
        problem = error.problems[0]
        where = f"checkpoint '{name}'"
        raise ModelError(Problem(where, problem.found, problem.remedy)) from error
    return f"{name}@{getattr(config, '_commit_hash', None)}"

"""Choose the checkpoint that a run resumes from, the same one on every process."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path

from ..distributed import gather_objects
from ..errors import Problem, RecipeError
from .checkpoints import (
    MANIFEST_FILE,
    CheckpointDamaged,
    Manifest,
    checkpoint_path,
    checkpoint_paths,
    read_manifest,
    step_of,
    verify,
)
from .identity import Change, not_allowed

__all__ = ["Choice", "choose_checkpoint", "manifest_or_none", "refuse_changes", "verify_requested"]


@dataclasses.dataclass(frozen=True)
class Choice:
    """The checkpoint to resume from.

    Attributes:
        path: The newest complete checkpoint; `None` if there is none.
        ignored: Newer checkpoints that cannot be used, each with the reason.
    """

    path: Path | None
    ignored: tuple[str, ...] = ()


def choose_checkpoint(output_dir: Path, *, reads: bool) -> Choice:
    """Return the newest checkpoint that is complete on every node.

    Every process calls it. Only the newest candidates are read in full, until one is complete.

    Args:
        output_dir: The directory of the checkpoints.
        reads: Whether this process reads the disk; one process per disk does.
    """
    paths = checkpoint_paths(output_dir) if reads else []
    ignored: list[str] = []
    below: int | None = None
    while True:
        candidates = [path for path in paths if below is None or step_of(path) < below]
        newest = step_of(candidates[0]) if candidates else -1
        proposals = [step for step in gather_objects(newest if reads else None) if step is not None]
        step = min(proposals)
        if len(set(proposals)) > 1:
            ignored.append(f"checkpoint-{max(proposals)}: it does not exist on every node")
            below = max(proposals)
            continue
        if step < 0:
            return Choice(None, tuple(ignored))
        reason = _why_unusable(candidates[0]) if reads else None
        reasons = [text for text in gather_objects(reason) if text is not None]
        if not reasons:
            return Choice(checkpoint_path(output_dir, step), tuple(ignored))
        ignored.append(f"checkpoint-{step}: {reasons[0]}")
        below = step


def verify_requested(path: Path, *, option: str) -> Manifest | None:
    """Return the verified manifest of a checkpoint that the user chose; `None` if it has none.

    A checkpoint of transformers or of another program has no manifest and cannot be verified.

    Raises:
        RecipeError: If it is not a directory, differs from its manifest, or holds the model only.
    """
    if not path.is_dir():
        text = f"'{path}' is not a directory"
        raise RecipeError(Problem(option, text, "Set it to a checkpoint, auto or never"))
    try:
        manifest = verify(path)
    except CheckpointDamaged as error:
        if not (path / MANIFEST_FILE).exists():
            return None
        remedy = "Choose another checkpoint, or set it to auto for the newest complete one"
        raise RecipeError(Problem(option, f"'{path}' cannot be used: {error}", remedy)) from None
    if not manifest.resumable:
        remedy = "Use it as model.name_or_path, or choose another checkpoint"
        raise RecipeError(Problem(option, f"'{path}' cannot be used: {MODEL_ONLY}", remedy))
    return manifest


def manifest_or_none(folder: Path) -> Manifest | None:
    """Return the manifest of a directory; `None` if it has no readable one."""
    try:
        return read_manifest(folder)
    except CheckpointDamaged:
        return None


def refuse_changes(
    changes: Iterable[Change], allowed: Iterable[str], *, checkpoint: Path, names: dict[str, str]
) -> list[str]:
    """Check that all changes are allowed, and return their descriptions.

    Args:
        changes: Every difference between the checkpoint and this run.
        allowed: Names that the user allows.
        checkpoint: For messages.
        names: Field of `UniDPOConfig` -> its name in a recipe, if that differs.

    Raises:
        RecipeError: If changes are neither honored nor allowed; lists all of them.
    """
    changes = list(changes)
    by_user_name = {user_name: field for field, user_name in names.items()}
    allowed_fields = [by_user_name.get(name, name) for name in allowed]
    refused = not_allowed(changes, allowed_fields)
    if refused:
        option = names.get("allow_changes", "allow_changes")
        listed = ",".join(dict.fromkeys(names.get(c.name, c.name) for c in refused))
        remedy = (
            f"Undo the change, use another output directory, start from scratch with "
            f"{names.get('start_anew', 'resume_from_checkpoint=None')}, or allow the change with "
            f"{option}=[{listed}]"
        )
        texts = "; ".join(_described(change, names) for change in refused)
        problem = f"{checkpoint} belongs to another run ({texts})"
        raise RecipeError(Problem(option, problem, remedy))
    return [_described(change, names) for change in changes]


def _described(change: Change, names: dict[str, str]) -> str:
    space = "" if change.path or "->" in change.text else ":"
    return f"{names.get(change.name, change.name)}{change.path}{space} {change.text}"


MODEL_ONLY = "it holds the model without optimizer state (save_only_model)"


def _why_unusable(path: Path) -> str | None:
    try:
        manifest = verify(path)
    except CheckpointDamaged as error:
        return str(error)
    return None if manifest.resumable else MODEL_ONLY

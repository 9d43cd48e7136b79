"""Compute a dumped step again in one process, without data or reference (`unidpo-mm replay`)."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..adapter import Adapter, AdapterOptions
from ..errors import ModelError, Problem
from ..kernels.packing import enable_packing
from ..modeling.load import ModelSource, load_model
from ..modeling.logp_model import LogpModel, unwrap_peft
from ..modeling.vision import ImageFeatures
from ..records import GroupBatch
from .configured_loss import ConfiguredLoss, configure_loss
from .dumped_batch import batch_from_plain
from .nonfinite import DUMP_FILE, rank_file
from .pinned_settings import restore_loss_state
from .step import preference_step

__all__ = ["Replay", "ReplayedUnit", "replay"]

TOLERANCE = 1e-4
"""Maximum relative difference of losses and norms, which may differ between machines."""


@dataclass(frozen=True)
class ReplayedUnit:
    """A pair or response of the step.

    Attributes:
        row: The row id.
        recorded: The loss when the step was dumped.
        replayed: The loss now.
    """

    row: str
    recorded: float
    replayed: float

    @property
    def same(self) -> bool:
        """Whether both are equal up to rounding, or both not finite."""
        return same_number(self.recorded, self.replayed)


@dataclass(frozen=True)
class Replay:
    """The result of computing a step again.

    Attributes:
        step: The optimizer step.
        units: All units with a positive weight.
        recorded_norm, replayed_norm: Gradient norm over all processes; `recorded_norm` is `None` if
            the step was dumped before it was computed.
        gradients: Names of the weights whose gradient is not finite.
    """

    step: int
    units: tuple[ReplayedUnit, ...]
    recorded_norm: float | None
    replayed_norm: float
    gradients: tuple[str, ...]

    @property
    def reproduced(self) -> bool:
        """Whether all recorded losses and the recorded norm were reproduced."""
        norm = self.recorded_norm is None or same_number(self.recorded_norm, self.replayed_norm)
        return norm and all(unit.same for unit in self.units)


class _RecordedReference:
    """A reference that returns the log-probs of the dump."""

    def __init__(self, logps: Tensor) -> None:
        self.logps = logps

    def token_logps(
        self, policy: nn.Module, batch: GroupBatch, images: ImageFeatures | None = None
    ) -> Tensor:
        return self.logps


def same_number(recorded: float, replayed: float) -> bool:
    """Return whether two numbers are equal up to rounding, or both not finite."""
    if not (math.isfinite(recorded) and math.isfinite(replayed)):
        return math.isfinite(recorded) == math.isfinite(replayed)
    return math.isclose(recorded, replayed, rel_tol=TOLERANCE, abs_tol=1e-6)


def replay(folder: Path, *, device: torch.device | str = "cpu") -> Replay:
    """Compute a dumped step again.

    Args:
        folder: The dump, ``nonfinite-step-N``.
        device: The device to compute it on.

    Raises:
        ModelError: If the folder is not a dump, or its model cannot be loaded.
    """
    content = _read(folder)
    logp_model, adapter = _load_policy(folder / "model", content, device)
    loss = dict(content["loss"])
    name, by_source = loss.pop("name"), loss.pop("by_source")
    settings = configure_loss(content.get("loss_path") or name, loss, by_source)
    restore_loss_state(settings, content["loss_state"])
    units: list[ReplayedUnit] = []
    for rank in range(content["processes"]):
        saved = torch.load(folder / rank_file(rank), map_location="cpu", weights_only=True)
        torch.set_rng_state(saved["rng_state"])
        for entry in saved["batches"]:
            units += _step(logp_model, adapter, settings, entry, content, device)
    gradients = [(n, p.grad) for n, p in logp_model.model.named_parameters() if p.grad is not None]
    norm = torch.nn.utils.get_total_norm([gradient for _, gradient in gradients])
    return Replay(
        step=content["step"],
        units=tuple(units),
        recorded_norm=content["grad_norm"],
        replayed_norm=float(norm),
        gradients=tuple(n for n, gradient in gradients if not bool(gradient.isfinite().all())),
    )


def _step(
    logp_model: LogpModel,
    adapter: Adapter,
    settings: ConfiguredLoss,
    entry: Mapping[str, Any],
    content: Mapping[str, Any],
    device: torch.device | str,
) -> list[ReplayedUnit]:
    batch = batch_from_plain(entry["batch"], content["format"]).to(device)
    dtype = getattr(torch, content["autocast"]) if content["autocast"] else None
    logps = entry["reference"]
    reference = None if logps is None else _RecordedReference(logps.to(device))
    with torch.autocast(torch.device(device).type, dtype=dtype, enabled=dtype is not None):
        output = preference_step(
            logp_model, batch, adapter=adapter, settings=settings, reference=reference
        )
    (output.loss_sum / max(content["units"], 1e-12)).backward()
    rows = zip(
        entry["rows"],
        entry["per_unit"].tolist(),
        output.loss.per_unit.tolist(),
        output.weight.tolist(),
        strict=True,
    )
    return [ReplayedUnit(row, before, now) for row, before, now, weight in rows if weight > 0]


def _read(folder: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads((folder / DUMP_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is damaged"
        text = f"its {DUMP_FILE} cannot be read ({reason})"
        remedy = "Use a directory nonfinite-step-N that a run wrote"
        raise ModelError(Problem(str(folder), text, remedy)) from None
    return content


def _load_policy(
    folder: Path, content: Mapping[str, Any], device: torch.device | str
) -> tuple[LogpModel, Adapter]:
    """Return the policy as it was before the step, each weight in its number format."""
    from peft import PeftConfig, PeftModel

    is_lora = (folder / "adapter_config.json").is_file()
    source = str(
        PeftConfig.from_pretrained(str(folder)).base_model_name_or_path if is_lora else folder
    )
    loaded = load_model(
        ModelSource(
            name_or_path=source,
            dtype="float32",
            adapter=content["family"],
            attn_implementation=content["attention"],
        ),
        AdapterOptions(),
    )
    model: Any = loaded.model
    if is_lora:
        model = PeftModel.from_pretrained(
            model, folder, adapter_name=content["lora_adapter"], is_trainable=True
        )
    for name, parameter in model.named_parameters():
        recorded = content["weights"][name]
        parameter.data = parameter.data.to(getattr(torch, recorded["dtype"]))
        parameter.requires_grad_(recorded["trains"])
    enable_packing(unwrap_peft(model))
    logp_model = LogpModel(model.to(device), chunk_size=content["chunk_size"])
    if not content["dropout"]:
        from ..modeling.parts import disable_dropout

        disable_dropout(model)
    return logp_model.train(), loaded.adapter

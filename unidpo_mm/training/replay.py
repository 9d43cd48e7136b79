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
from ..modeling.parts import disable_dropout
from ..modeling.vision import MediaFeatures
from ..records import CacheKeys, GroupBatch, MediaInputs, ModelInputs, Targets, Units
from .configured_loss import (
    IMAGE_KEY,
    ConfiguredLoss,
    add_image_preference,
    configure_loss,
    restore_loss_state,
)
from .nonfinite import DUMP_FILE, rank_file
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
        self, policy: nn.Module, batch: GroupBatch, media: MediaFeatures | None = None
    ) -> Tensor:
        return self.logps


def same_number(recorded: float, replayed: float) -> bool:
    """Return whether two numbers are equal up to rounding, or both not finite."""
    if not (math.isfinite(recorded) and math.isfinite(replayed)):
        return math.isfinite(recorded) == math.isfinite(replayed)
    return math.isclose(recorded, replayed, rel_tol=TOLERANCE, abs_tol=1e-6)


def replay(folder: Path, *, device: torch.device | str = "cpu") -> Replay:
    """Compute the step of a dump, ``nonfinite-step-N``, again.

    Raises:
        ModelError: If the folder is not a dump, or its model cannot be loaded.
    """
    content = _read(folder)
    logp_model, adapter = _load_policy(folder / "model", content, device)
    loss = dict(content["loss"])
    name, by_source = loss.pop("name"), loss.pop("by_source")
    image_preference = loss.pop(IMAGE_KEY, None)
    settings = configure_loss(content.get("loss_path") or name, loss, by_source)
    if image_preference is not None:
        settings = add_image_preference(settings, image_preference)
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
    batch = _batch(entry["batch"], content["format"]).to(device)
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
        disable_dropout(model)
    return logp_model.train(), loaded.adapter


def _batch(content: Mapping[str, Any], version: int) -> GroupBatch:
    """Return the batch of a dump, on the CPU."""
    content = _with_parts(content) if version == 1 else content
    inputs = content["inputs"]
    media = {
        kind: MediaInputs(tensors["inputs"], tensors["order"])
        for kind, tensors in inputs["media"].items()
    }
    return GroupBatch(
        inputs=ModelInputs(**{**inputs, "media": media}),
        targets=Targets(**content["targets"]),
        scores=content["scores"],
        pairs=Units(**content["pairs"]),
        responses=Units(**content["responses"]),
        sources=content["sources"],
        cache_keys=CacheKeys(**content["cache_keys"]),
    )


def _with_parts(content: Mapping[str, Any]) -> dict[str, Any]:
    """Convert a batch of version 1; its units get the ids of their rows."""
    images = {"inputs": content["image_inputs"], "order": content["image_order"]}
    return {
        "inputs": {
            "tokens": content["token_inputs"],
            "media": {"image": images},
            **{name: content[name] for name in ("layout", "segment", "row_position")},
        },
        "targets": {
            "ids": content["target_ids"],
            "row_ids": content["response_rows"],
            **{name: content[name] for name in ("row", "position", "response", "lengths")},
        },
        "scores": content["scores"],
        "pairs": {
            "indices": torch.stack([content["chosen"], content["rejected"]], 1),
            "weight": content["pair_weight"],
            "source": content["pair_source"],
            "ids": content["pair_rows"],
            "row_ids": content["pair_rows"],
            "domains": content["pair_domains"],
        },
        "responses": {
            "indices": content["targets"].unsqueeze(1),
            "weight": content["target_weight"],
            "source": torch.zeros_like(content["targets"]),  # no loss reads it
            "ids": content["target_rows"],
            "row_ids": content["target_rows"],
            "domains": content["target_domains"],
        },
        "sources": content["sources"],
        "cache_keys": {"responses": content["response_keys"], "images": content["image_digests"]},
    }

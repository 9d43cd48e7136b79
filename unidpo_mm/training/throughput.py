"""The speed of a run: units, tokens and images per second, padding, and use of the device.

Everything is counted on the host, where batches are made, and summed over processes once per
optimizer step together with the number of units.
"""

import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..data.collate import COUNTS
from ..kernels.last_layer import decoder_layers
from ..modeling.logp_model import LogpModel, unwrap_peft
from ..modeling.references.cached import CachedReference
from ..modeling.references.kinds import Reference
from ..modeling.shared_layers import SharedLayers

__all__ = ["Flops", "Throughput", "model_flops", "peak_flops"]

PEAK_TFLOPS = {
    "B200": 2250.0,
    "H200": 989.4,
    "H100 NVL": 835.0,
    "H100 PCIe": 756.0,
    "H100": 989.4,
    "A100": 312.0,
    "L40S": 362.0,
    "L40": 181.0,
    "L4": 121.0,
    "RTX 4090": 165.2,
    "MI300X": 1307.4,
}
"""Part of a device's name -> its peak in 16 bits without sparsity, in teraFLOPS, as its vendor
states it. The first part that the name contains is used, so "L40" stands before "L4"."""

NAMES = ("units", *COUNTS)

FORWARD = 2
"""Operations per weight and token: a multiplication and an addition."""


@dataclass(frozen=True)
class Flops:
    """Floating-point operations that a step needs, without recomputation and without padding.

    Attributes:
        per_token: Operations of the decoder layers per token.
        per_target: Operations of the output head per response token.
    """

    per_token: float
    per_target: float


def model_flops(
    logp_model: LogpModel, reference: Reference | None, shared: SharedLayers | None
) -> Flops:
    """Return the operations of policy and reference, by arithmetic.

    Each weight of a decoder layer is used once per token: in the forward passes of policy and
    reference, in the backward pass for the gradient of its input, and, if it is trained, for its
    own gradient. Products of queries, keys and values, embeddings, and vision towers are not
    counted, so this is less than what the device computes.

    Args:
        logp_model: The policy.
        reference: The reference; it costs nothing if there is none or its log-probs are cached.
        shared: The layers that run once for both, and have no backward pass.
    """
    model: Any = unwrap_peft(logp_model.model)
    config = model.config.get_text_config()
    passes = 1 if reference is None or isinstance(reference, CachedReference) else 2
    once = {id(layer) for layer in shared.layers} if shared else set()
    total = 0.0
    for layer in decoder_layers(model):
        weights, trained = _weights(layer, config)
        if id(layer) in once:
            total += FORWARD * weights
        else:
            total += FORWARD * (weights * (passes + 1) + trained)
    head, head_trained = _weights(model.get_output_embeddings(), config)
    return Flops(total, FORWARD * (head * (passes + 1) + head_trained))


def _weights(module: nn.Module, config: Any) -> tuple[float, float]:
    """Return the number of weights that a token uses, and how many of them are trained."""
    used = trained = 0.0
    share = _active_experts(config)
    for name, part in module.named_modules():
        matrices = [p for p in part.parameters(recurse=False) if p.ndim >= 2]
        size = sum(p.numel() for p in matrices)
        if hasattr(part, "in_features") and hasattr(part, "out_features") and matrices:
            size = part.in_features * part.out_features  # quantized weights have fewer elements
        size *= share if "experts" in name.split(".") else 1.0
        used += size
        trained += size if any(p.requires_grad for p in matrices) else 0
    return used, trained


def _active_experts(config: Any) -> float:
    """Return the share of the experts that a token uses; 1 for models without experts."""
    active = getattr(config, "num_experts_per_tok", None)
    names = ("num_local_experts", "num_experts", "n_routed_experts")
    total = next((getattr(config, name) for name in names if getattr(config, name, None)), None)
    return float(active) / total if active and total else 1.0


def peak_flops(
    stated_tflops: float | None, device: torch.device, dtype: torch.dtype
) -> float | None:
    """Return the peak of a device in operations per second; `None` if it is not known.

    Args:
        stated_tflops: What the user states, in teraFLOPS.
        device: The device.
        dtype: The number format in which the model computes; only 16 bits are in the table.
    """
    if stated_tflops is not None:
        return stated_tflops * 1e12
    if device.type != "cuda" or dtype.itemsize != 2:
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak * 1e12 for part, peak in PEAK_TFLOPS.items() if part in name), None)


class Throughput:
    """A meter of the speed between logs, and of the time left at the average pace.

    Args:
        flops: The operations of the model; `None` if the peak is not known.
        peak: Operations per second of all devices together.
    """

    def __init__(self, flops: Flops | None = None, peak: float | None = None) -> None:
        self.flops, self.peak = flops, peak
        self._sums: Tensor | float = 0.0
        self._began: float | None = None
        self._first_step = 0
        self._last = 0.0

    def start_step(self, step: int) -> None:
        """Record the beginning of a step; the first one starts the clock."""
        if self._began is None:
            self._began = self._last = time.perf_counter()
            self._first_step = step

    def count(self, sums: Tensor) -> None:
        """Add units and `COUNTS` of a step, summed over all processes; `measure` reads them."""
        self._sums = self._sums + sums

    def measure(self, step: int, max_steps: int, unit: str) -> dict[str, float]:
        """Return the speed since the last call and the seconds left, and reset the counts."""
        if self._began is None:
            return {}
        now = time.perf_counter()
        seconds = max(now - self._last, 1e-9)
        values = self._sums.tolist() if isinstance(self._sums, Tensor) else [0.0] * len(NAMES)
        sums = dict(zip(NAMES, values, strict=True))
        self._sums, self._last = 0.0, now
        logs = {f"{unit}s_per_second": round(sums["units"] / seconds, 3)}
        if sums["positions"]:
            logs["tokens_per_second"] = round(sums["tokens"] / seconds, 1)
            logs["padding"] = round(1 - sums["tokens"] / sums["positions"], 4)
        if sums["images"]:
            logs["images_per_second"] = round(sums["images"] / seconds, 3)
        if self.flops is not None and self.peak:
            operations = self.flops.per_token * sums["tokens"]
            operations += self.flops.per_target * sums["targets"]
            logs["mfu"] = round(operations / seconds / self.peak, 4)
        done = step - self._first_step
        left = (now - self._began) / done * (max_steps - step) if done > 0 else 0.0
        return {**logs, "seconds_left": round(left, 1)}

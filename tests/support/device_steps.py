"""Training steps on a simulated CUDA device, compared with the CPU and counted."""

import copy
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))  # if it is run as a program

from builders import (
    IMAGE_TYPES,
    build_reference,
    encoded,
    load_tiny,
    logp_model_of,
    mixed_rows,
    relative_difference,
    tiny_checkpoint,
)
from support.simulated_cuda import SimulatedCuda
from torch import Tensor

from unidpo_mm.adapter import tower_inputs
from unidpo_mm.cache.feature_store import FeatureStore
from unidpo_mm.cache.reference_store import ReferenceStore
from unidpo_mm.config.sections import LoraOptions
from unidpo_mm.data.collate import collate
from unidpo_mm.kernels.packing import enable_packing
from unidpo_mm.modeling.lora_layers import use_fast_lora
from unidpo_mm.modeling.parts import add_lora, disable_dropout, freeze_parts, keep_in_float32
from unidpo_mm.modeling.placement import place_batch
from unidpo_mm.modeling.references.cached import CachedReference
from unidpo_mm.training.configured_loss import configure_loss
from unidpo_mm.training.ledger_recorder import LedgerRecorder
from unidpo_mm.training.metrics import MetricSums
from unidpo_mm.training.step import StepOutput, preference_step

__all__ = ["CASES", "LISTED", "PARTS", "DeviceCase", "Measured", "listed_counts", "measure"]

LISTED = Path(__file__).with_name("device_counts.json")
"""The waits and launches of each case, which may only become fewer."""

PARTS = ("move", "step", "metrics", "ledger", "backward", "log")


@dataclass(frozen=True)
class DeviceCase:
    """A training step.

    Attributes:
        model_type: A type of `builders.tiny_checkpoint`.
        layout: The layout of the batch.
        lora: Whether a LoRA adapter trains, or the language model.
        reference: Whether the reference runs, or its log-probs are read from a cache.
        features: Whether image features are read from a cache.
        bf16: Whether it runs under bfloat16 autocast.
    """

    model_type: str
    layout: Literal["plain", "packed", "joined"]
    lora: bool = True
    reference: Literal["live", "cached"] = "live"
    features: bool = False
    bf16: bool = False

    def __str__(self) -> str:
        trained = "LoRA" if self.lora else "full"
        store = ", features" if self.features else ""
        number_format = ", bf16" if self.bf16 else ""
        text = f"{self.model_type}, {self.layout}, {trained}, {self.reference}"
        return text + store + number_format


CASES = (
    DeviceCase("llama", "plain"),
    DeviceCase("llama", "packed", lora=False, reference="cached"),
    DeviceCase("llama", "joined"),
    DeviceCase("llava", "plain"),
    DeviceCase("llava", "packed", lora=False),
    DeviceCase("llava", "joined"),
    DeviceCase("llava", "joined", reference="cached", features=True),
    DeviceCase("llava", "joined", bf16=True),
    DeviceCase("qwen2_5_vl", "plain"),
    DeviceCase("qwen2_5_vl", "packed", lora=False, reference="cached"),
    DeviceCase("qwen2_5_vl", "joined"),
    DeviceCase("qwen2_vl", "joined"),
    DeviceCase("qwen3_vl", "joined"),
    DeviceCase("idefics3", "joined"),
)
"""Every value of every field with every type of model, but not all combinations."""


@dataclass(frozen=True)
class Measured:
    """The results of a step.

    Attributes:
        losses: Loss of each unit, on the CPU and on the device.
        gradients: Gradients by name, of both.
        metrics: Means of the metrics, of both.
        waits: Part of the step -> reason and place -> waits for the device.
        launches: Part of the step -> number of kernels.
    """

    losses: tuple[Tensor, Tensor]
    gradients: tuple[dict[str, Tensor], dict[str, Tensor]]
    metrics: tuple[dict[str, float], dict[str, float]]
    waits: dict[str, Counter[str]]
    launches: dict[str, int]

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """Number of waits and launches of each part."""
        return {
            "waits": {part: self.waits[part].total() for part in PARTS},
            "launches": {part: self.launches[part] for part in PARTS},
        }

    @property
    def gradient_difference(self) -> float:
        """The relative difference of the gradients."""
        return relative_difference(*self.gradients)

    def places(self) -> str:
        """Describe where the host waited."""
        lines = [
            f"{part}: {count} x {place}"
            for part in PARTS
            for place, count in self.waits[part].most_common()
        ]
        return "\n".join(lines)


class _Run:
    """A model with everything that a step needs."""

    def __init__(self, case: DeviceCase, folder: Path, cache: Path) -> None:
        torch.manual_seed(0)
        loaded = load_tiny(folder)
        family, model = loaded.family, cast(Any, loaded.model)
        enable_packing(model)
        if case.lora:
            model = add_lora(model, family, LoraOptions(r=4, dropout=0.0))
            use_fast_lora(model)
            for name, weight in model.named_parameters():
                if "lora_B" in name:
                    torch.nn.init.normal_(weight, std=0.05)
        else:
            freeze_parts(model, family, family.default_freeze)
        if case.bf16:
            model.to(torch.bfloat16)
        keep_in_float32(model)
        disable_dropout(model)
        self.case, self.adapter = case, loaded.adapter
        loaded = copy.copy(loaded)
        object.__setattr__(loaded, "model", model)
        self.policy = logp_model_of(loaded)
        kind = "lora_off" if case.lora else "frozen_copy"
        self.reference = build_reference(kind, self.policy, self.adapter)
        if case.reference == "cached":
            store = ReferenceStore("a" * 64, {}, cache=cache)
            self.reference = CachedReference(self.reference, store)
        self.features = FeatureStore("b", limit_bytes=10**8, cache=cache) if case.features else None
        self.settings = configure_loss("uni_dpo", {"tau_good": 3.0})
        rows = mixed_rows(images=case.model_type in IMAGE_TYPES or family.name == "image_text")
        self.batch = collate(
            encoded(loaded, rows),
            pad_token_id=self.adapter.pad_token_id,
            layout=case.layout,
            media_once=self.policy.takes_features,
            keyed=True,
            tower_inputs=tower_inputs(self.adapter),
        )

    def step(
        self, device: str, part: Callable[[str], Any]
    ) -> tuple[StepOutput, MetricSums, dict[str, float]]:
        """Run a step with its backward pass and metrics."""
        self.policy.zero_grad()
        sums = MetricSums(self.settings.loss, device)
        with part("move"):
            batch = self.batch.pin_memory() if device == "cuda" else self.batch
            batch = place_batch(batch, self.policy, self.adapter, device)
        with part("step"), torch.autocast(device, torch.bfloat16, enabled=self.case.bf16):
            output = preference_step(
                self.policy,
                batch,
                adapter=self.adapter,
                settings=self.settings,
                reference=self.reference,
                features=self.features,
            )
            loss = output.loss_sum / 6
        with part("metrics"):
            sums.on_step(batch, output)
        with part("ledger"):
            LedgerRecorder(self.settings.loss, {}, rank=0, output_dir=None).on_step(batch, output)
        with part("backward"):
            loss.backward()
        with part("log"):
            means = sums.means()
        return output, sums, means

    def gradients(self) -> dict[str, Tensor]:
        """Return the gradients, on the CPU."""
        named = self.policy.named_parameters()
        return {name: p.grad.detach().cpu() for name, p in named if p.grad is not None}


def measure(case: DeviceCase, folder: Path, cache: Path) -> Measured:
    """Run a step on the CPU, which fills the caches, and on the simulated device.

    Args:
        case: The step.
        folder: The checkpoint.
        cache: A directory for cached log-probs and features.
    """
    run = _Run(case, folder, cache)
    on_cpu = run.step("cpu", _uncounted)
    losses, gradients = [on_cpu[0].loss.per_unit.detach()], [run.gradients()]
    waits: dict[str, Counter[str]] = {}
    launches: dict[str, int] = {}
    with SimulatedCuda() as device:
        run.policy.to("cuda")
        for kind in (run.reference, getattr(run.reference, "source", None)):
            if hasattr(kind, "logp_model"):  # a frozen copy would move in its first step
                kind.logp_model.to("cuda")

        @contextmanager
        def counted(name: str) -> Iterator[None]:
            device.reset()
            yield
            waits[name], launches[name] = device.waits.copy(), device.launches.total()

        on_device = run.step("cuda", counted)
        losses.append(on_device[0].loss.per_unit.detach().cpu())
        gradients.append(run.gradients())
    return Measured(
        (losses[0], losses[1]),
        (gradients[0], gradients[1]),
        (on_cpu[2], on_device[2]),
        waits,
        launches,
    )


@contextmanager
def _uncounted(name: str) -> Iterator[None]:
    yield


def listed_counts() -> dict[str, Any]:
    """Return the listed waits and launches by case."""
    counts: dict[str, Any] = json.loads(LISTED.read_text(encoding="utf-8"))
    return counts


def main(names: Sequence[str]) -> int:
    """Measure cases and update the list; refuse numbers that have become greater.

    python tests/support/device_steps.py [CASE ...]
    """
    risen: list[str] = []
    folders: dict[str, Path] = {}
    for case in CASES:
        name = str(case)
        if names and name not in names:
            continue
        if case.model_type not in folders:
            folder = Path(tempfile.mkdtemp())
            folders[case.model_type] = tiny_checkpoint(folder, case.model_type)
        with tempfile.TemporaryDirectory() as cache:
            measured = measure(case, folders[case.model_type], Path(cache))
        print(f"{name}: {measured.counts}\n{measured.places()}", flush=True)  # noqa: T201
        listed = listed_counts() if LISTED.is_file() else {}
        totals = zip(
            _totals(measured.counts), _totals(listed.get(name, measured.counts)), strict=True
        )
        if any(now > before for now, before in totals):
            risen.append(name)
            continue
        listed[name] = measured.counts
        listed_names = [str(case) for case in CASES if str(case) in listed]
        lines = [f" {json.dumps(n)}: {json.dumps(listed[n])}" for n in listed_names]
        LISTED.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    if risen:
        print(f"more waits or launches than listed: {'; '.join(risen)}")  # noqa: T201
    return 1 if risen else 0


def _totals(counts: dict[str, dict[str, int]]) -> tuple[int, int]:
    return sum(counts["waits"].values()), sum(counts["launches"].values())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

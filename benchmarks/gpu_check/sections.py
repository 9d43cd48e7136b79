"""The sections of the check; each yields its measurements one at a time."""

import contextlib
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from arithmetic import SHAPES, Shape, step_tflop
from models import LORA, build, pairs_of, rows_of, tiny
from torch import Tensor

__all__ = ["SECTIONS", "Settings"]

LAYOUTS = ("plain", "packed", "joined")
ROUNDS = 3


@dataclass(frozen=True)
class Settings:
    """The settings of a run.

    Attributes:
        device: ``cuda`` or ``cpu``; on a CPU, models are tiny and the numbers mean nothing.
        groups: Number of prompts per micro-batch.
        output: A directory for what trainers write.
    """

    device: str
    groups: int
    output: str

    @property
    def on_gpu(self) -> bool:
        """Whether this is a measurement."""
        return self.device == "cuda"

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """The cases."""
        return SHAPES if self.on_gpu else tuple(map(tiny, SHAPES[::3]))


Measurement = tuple[str, str, str, float | str, str]
"""Case, contender, quantity, value and unit."""


def machine(settings: Settings) -> Iterator[Measurement]:
    """The speed of the device: products of the size of a layer, and copies from the host."""
    size = 8192 if settings.on_gpu else 256
    left, right = (
        torch.randn(size, size, device=settings.device, dtype=torch.bfloat16) for _ in range(2)
    )
    seconds = clock(lambda: left @ right, settings, rounds=10)
    yield "products", "bfloat16", "speed", 2 * size**3 / seconds / 1e12, "TFLOP/s"
    pixels = torch.empty(size * size // 2)
    if settings.on_gpu:
        yield "copy", "pageable", "speed", _copied(pixels, settings), "GB/s"
        yield "copy", "pinned", "speed", _copied(pixels.pin_memory(), settings), "GB/s"


def _copied(tensor: Tensor, settings: Settings) -> float:
    seconds = clock(lambda: tensor.to(settings.device, non_blocking=True), settings, rounds=5)
    return tensor.nbytes / seconds / 1e9


def correctness(settings: Settings) -> Iterator[Measurement]:
    """Losses and gradients of every layout in float32 and bfloat16, against plain float32 rows.

    The models have two layers. No layout should be further off than plain bfloat16 rows.
    """
    for shape in {shape.model: shape for shape in settings.shapes}.values():
        expected: tuple[float, Tensor] | None = None
        for bf16 in (False, True):
            for layout in LAYOUTS:
                trainer = our_trainer(shape, settings, layout=layout, bf16=bf16, layers=2)
                _move_lora(trainer)
                loss, gradient = _loss_and_gradient(trainer)
                expected = expected or (loss, gradient)
                who = f"{layout}, {'bfloat16' if bf16 else 'float32'}"
                difference = float((gradient - expected[1]).norm() / expected[1].norm())
                yield shape.name, who, "loss", loss, ""
                yield shape.name, who, "loss differs by", abs(loss - expected[0]), ""
                yield shape.name, who, "gradient differs by", difference, "relative"
                del trainer
                _free(settings)


@torch.no_grad()
def _move_lora(trainer: Any) -> None:
    """Move the LoRA adapter away from zero, where the loss would not depend on it."""
    generator = torch.Generator().manual_seed(1)
    for name, weight in trainer.model.named_parameters():
        if "lora_B" in name:
            weight.copy_(0.02 * torch.randn(weight.shape, generator=generator))


def _loss_and_gradient(trainer: Any) -> tuple[float, Tensor]:
    loss = _prepared_step(trainer)()
    gradients = [p.grad.flatten().float() for p in trainer.model.parameters() if p.grad is not None]
    return float(loss), torch.cat(gradients)


def steps(settings: Settings) -> Iterator[Measurement]:
    """Time, memory, waits, launches and share of the bound of our step, with and without caches."""
    speed = _speed_of_products(settings)
    for shape in settings.shapes:
        for cached, checkpointed in ((False, True), (True, False)):
            who = f"ours, {'cached' if cached else 'live'}"
            who += ", checkpointing" if checkpointed else ""
            try:
                trainer = our_trainer(
                    shape, settings, layout="joined", cached=cached, checkpointed=checkpointed
                )
                step = _prepared_step(trainer)
                yield from _measured(step, shape, who, settings)
                seconds = clock(step, settings)
                tflop = settings.groups * step_tflop(
                    shape, shared=True, cached=cached, checkpointed=checkpointed
                )
                yield shape.name, who, "time", seconds, "s"
                yield shape.name, who, "pairs", settings.groups * shape.pairs / seconds, "1/s"
                yield shape.name, who, "share of the bound", tflop / seconds / speed, ""
            except torch.OutOfMemoryError as error:
                yield shape.name, who, "failed", str(error)[:120], ""
            trainer = step = None  # also after an error, before the next model is built
            _free(settings)


def _measured(
    step: Callable[[], Any], shape: Shape, who: str, settings: Settings
) -> Iterator[Measurement]:
    """Yield the first time, peak memory, waits and launches of a step."""
    start = time.perf_counter()
    step()
    _finish(settings)
    yield shape.name, who, "first time", time.perf_counter() - start, "s"
    if not settings.on_gpu:
        return
    torch.cuda.reset_peak_memory_stats()
    step()
    yield shape.name, who, "peak memory", torch.cuda.max_memory_allocated() / 2**30, "GiB"
    torch.cuda.set_sync_debug_mode("warn")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        step()
    torch.cuda.set_sync_debug_mode("default")
    waits = sum("synchroniz" in str(warning.message) for warning in caught)
    yield shape.name, who, "waits", waits, ""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as recorded:
        step()
        _finish(settings)
    events = recorded.key_averages()
    launches = sum(event.count for event in events if "aunchKernel" in event.key)
    yield shape.name, who, "launches", launches, ""


def peers(settings: Settings) -> Iterator[Measurement]:
    """The same pairs with TRL, one row per response, if it is installed."""
    installed = _version("trl")
    if installed is None:
        yield "all", "TRL", "skipped", "trl is not installed", ""
    else:
        for shape in settings.shapes:
            for checkpointed in (True, False):
                who = f"TRL {installed}{', checkpointing' if checkpointed else ''}"
                try:
                    step = their_step(shape, settings, checkpointed=checkpointed)
                    step()
                    seconds = clock(step, settings)
                    yield shape.name, who, "time", seconds, "s"
                    pairs = settings.groups * shape.pairs / seconds
                    yield shape.name, who, "pairs", pairs, "1/s"
                except Exception as error:  # another shape may work
                    yield shape.name, who, "failed", f"{type(error).__name__}: {error}"[:200], ""
                step = None
                _free(settings)
    if _version("ms-swift") is None:
        yield "all", "ms-swift", "skipped", "ms-swift is not installed", ""
    else:  # its templates belong to checkpoints of the hub, and these models are not among them
        yield "all", "ms-swift", "skipped", "it has no template for a random model", ""


SECTIONS = {
    "machine": machine,
    "correctness": correctness,
    "steps": steps,
    "peers": peers,
}


def our_trainer(
    shape: Shape,
    settings: Settings,
    *,
    layout: str,
    bf16: bool = True,
    cached: bool = False,
    checkpointed: bool = False,
    layers: int | None = None,
) -> Any:
    """Return a trainer of this project for a case."""
    from peft import LoraConfig

    from unidpo_mm import UniDPOConfig, UniDPOTrainer

    dtype = torch.bfloat16 if bf16 and settings.on_gpu else torch.float32
    model, processor = build(shape, settings.device, dtype, layers=layers)
    args = UniDPOConfig(
        **_arguments(settings, shape, bf16=bf16, checkpointed=checkpointed),
        loss_type="sigmoid",
        layout=layout,
        eval_generations=0,
        reference="cached" if cached else "auto",
        reference_build="first_epoch",
        use_cpu=not settings.on_gpu,
    )
    lora = LoraConfig(**LORA)
    rows = rows_of(shape, settings.groups)
    return UniDPOTrainer(
        model, args, train_dataset=rows, processing_class=processor, peft_config=lora
    )


def their_step(shape: Shape, settings: Settings, *, checkpointed: bool) -> Callable[[], Any]:
    """Return a step of TRL on the same pairs."""
    from datasets import Dataset
    from peft import LoraConfig
    from trl import DPOConfig, DPOTrainer

    model, processor = build(
        shape, settings.device, torch.bfloat16 if settings.on_gpu else torch.float32
    )
    args = DPOConfig(
        **_arguments(settings, shape, bf16=True, checkpointed=checkpointed),
        max_length=None,
        use_cpu=not settings.on_gpu,
    )
    lora = LoraConfig(**LORA)
    pairs = Dataset.from_list(pairs_of(rows_of(shape, settings.groups)))
    trainer = DPOTrainer(
        model, args=args, train_dataset=pairs, processing_class=processor, peft_config=lora
    )
    return _prepared_step(trainer)


def _arguments(
    settings: Settings, shape: Shape, *, bf16: bool, checkpointed: bool
) -> dict[str, Any]:
    return {
        "output_dir": settings.output,
        "per_device_train_batch_size": settings.groups * shape.pairs,
        "max_steps": 1,
        "learning_rate": 0.0,  # every step starts from the same weights
        "bf16": bf16,
        "report_to": "none",
        "save_strategy": "no",
        "logging_strategy": "no",
        "disable_tqdm": True,
        "beta": 0.1,
        "activation_checkpointing": checkpointed,
    }


def _prepared_step(trainer: Any) -> Callable[[], Tensor]:
    """Return a step of a trainer on its first batch: loss, metrics and backward pass."""
    model = trainer.model
    if trainer.args.activation_checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    model.to(trainer.args.device).train()
    trainer.model_wrapped = model
    batch = next(iter(trainer.get_train_dataloader()))

    def step() -> Tensor:
        if hasattr(trainer, "watch"):  # ours keeps the batches of a step, to report them
            trainer.watch.start_step()
        model.zero_grad()
        loss: Tensor = trainer.compute_loss(model, batch)
        loss.backward()
        return loss.detach()

    return step


def clock(compute: Callable[[], Any], settings: Settings, *, rounds: int = ROUNDS) -> float:
    """Return the median of seconds; the host waits for the device at both ends."""
    compute()
    times = []
    for _ in range(rounds):
        _finish(settings)
        start = time.perf_counter()
        compute()
        _finish(settings)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _speed_of_products(settings: Settings) -> float:
    """Return the measured TFLOP/s of large products, the bound of this device."""
    return next(float(value) for case, _, _, value, _ in machine(settings) if case == "products")


def _finish(settings: Settings) -> None:
    if settings.on_gpu:
        torch.cuda.synchronize()


def _free(settings: Settings) -> None:
    import gc

    gc.collect()
    if settings.on_gpu:
        with contextlib.suppress(RuntimeError):
            torch.cuda.empty_cache()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None

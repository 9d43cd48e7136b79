"""One model on one benchmark: prompts, predictions and their score."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from unidpo_mm.adapter import AdapterOptions
from unidpo_mm.distributed.processes import processes
from unidpo_mm.inference.batches import first_prompt, generate_all, generate_individually
from unidpo_mm.inference.checkpoint import LoadedCheckpoint
from unidpo_mm.inference.decoding import Decoding
from unidpo_mm.inference.local_model import LocalModel, prompt_style
from unidpo_mm.inference.progress import ProgressCallback, no_progress
from unidpo_mm.inference.prompts import Prompt
from unidpo_mm.reasoning import opens_reasoning

from ..benchmarks import Benchmark
from ..data.dataset import Dataset
from ..data.predictions import OPENED, read_predictions
from ..protocols import PromptProfile, Protocol, load_prompts
from ..results.grading import grade_predictions
from ..results.result import Result, write_result
from .prompts import build_prompts, shuffle_images
from .store import PredictionStore

PACKAGES = ("unidpo-mm", "torch", "transformers")


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """Settings of all benchmarks of a run."""

    protocol: Protocol  # Prompts, decoding, image size limits, and the scorer
    prompt: str | None = None  # Name of a prompt profile that replaces the protocol's
    # ``chat`` uses the chat template, ``raw`` does not, ``auto`` if there is one
    style: str = "auto"
    batch_size: int = 8  # Maximum number of prompts per batch
    max_new_tokens: int | None = None  # Replaces the protocol's
    images: Path | None = None  # Directory of image files
    # Seed of the control with shuffled images; `None` for no control
    shuffle_images: int | None = None
    # Variables for the chat template, such as ``enable_thinking``
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    overwrite: bool = False  # Remove existing predictions

    def decoding(self, benchmark: Benchmark) -> Decoding:
        """Return how responses to a benchmark are generated."""
        decoding = self.protocol.decoding_of(benchmark.name)
        if self.max_new_tokens is None:
            return decoding
        return Decoding(**asdict(decoding) | {"max_new_tokens": self.max_new_tokens})

    def prompts(
        self, benchmark: Benchmark, data: Dataset, family: str, *, raw: bool = False
    ) -> tuple[PromptProfile, list[Prompt]]:
        """Return the prompt profile for a model family, and the prompts of a benchmark."""
        profile = load_prompts(self.prompt or self.protocol.prompt_of(family))
        if self.shuffle_images is not None:
            data = shuffle_images(data, self.shuffle_images)
        return profile, build_prompts(benchmark, data, profile, images=self.images, raw=raw)

    def manifest(
        self, benchmark: Benchmark, data: Dataset, profile: PromptProfile, style: str
    ) -> dict[str, Any]:
        """Return what predictions record of the settings.

        Results that differ in the overrides are not compared. A profile that the protocol uses for
        another family is not an override.
        """
        profiles = self.protocol.prompt.values()
        return {
            "protocol": self.protocol.label,
            "prompt": profile.label,
            "style": style,
            "overrides": {
                "prompt": None if self.prompt in (None, *profiles) else self.prompt,
                "style": self.style,
                "max_new_tokens": self.max_new_tokens,
            },
            "benchmark": benchmark.name,
            "data_sha256": data.sha256,
            "rows": len(data.samples),
            "shuffled_images": self.shuffle_images,
            "decoding": asdict(self.decoding(benchmark)),
        }


@dataclass(frozen=True, kw_only=True)
class EvalRun:
    """A model and the prompts of one benchmark."""

    benchmark: Benchmark
    data: Dataset
    model: Any  # A `LocalModel` or `served.ServedModel`
    prompts: Sequence[Prompt]  # In the order of the data
    manifest: Mapping[str, Any]  # How the predictions are made

    @property
    def ids(self) -> list[str]:
        """Ids of all samples."""
        return [prompt.id for prompt in self.prompts]


def prepare_run(
    loaded: LoadedCheckpoint, benchmark: Benchmark, data: Dataset, settings: RunSettings
) -> EvalRun:
    """Build the prompts of a benchmark for a model; the manifest describes the settings only."""
    style = prompt_style(loaded.processor, settings.style)
    pixels = settings.protocol.pixels_of(loaded.family.name, benchmark.name)
    options = AdapterOptions(
        prompt_style=style,
        image_min_size=_with_unit(pixels.min_pixels),
        image_max_size=_with_unit(pixels.max_pixels),
        chat_template_kwargs=settings.chat_template_kwargs,
    )
    raw = style == "raw"
    profile, prompts = settings.prompts(benchmark, data, loaded.family.name, raw=raw)
    decoding = settings.decoding(benchmark)
    model = LocalModel(loaded.model, loaded.adapter(options), decoding, loaded.device)
    first = first_prompt(model, prompts)
    manifest = {
        **settings.manifest(benchmark, data, profile, style),
        "pixels": asdict(pixels),
        "batch_size": settings.batch_size,
        "images": None if settings.images is None else str(settings.images),
        "first_prompt": first,
    }
    if opens_reasoning(first.get("text", "")):
        manifest[OPENED] = True
    if any(prompt.row is not None and prompt.row.videos for prompt in prompts):
        manifest["frames"] = {"fps": options.video_fps, "maximum": options.video_max_frames}
    return EvalRun(benchmark=benchmark, data=data, model=model, prompts=prompts, manifest=manifest)


def checkpoint_run(
    loaded: LoadedCheckpoint, benchmark: Benchmark, data: Dataset, settings: RunSettings
) -> EvalRun:
    """Build the prompts of a benchmark for a checkpoint, with the complete manifest."""
    run = prepare_run(loaded, benchmark, data, settings)
    manifest = {
        **loaded.manifest(settings.chat_template_kwargs),
        "backend": f"transformers {version('transformers')}",
        **run.manifest,
        "versions": versions(),
    }
    return replace(run, manifest=manifest)


def versions(packages: Sequence[str] = PACKAGES) -> dict[str, str]:
    """Return the versions of Python and of some packages."""
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


def generate_predictions(
    run: EvalRun, path: Path, settings: RunSettings, on_progress: ProgressCallback = no_progress
) -> None:
    """Generate the predictions of a checkpoint that do not exist yet, and merge all into a file."""
    state, name, total = processes(), run.benchmark.name, len(run.prompts)
    rank, world_size = state.process_index, state.num_processes
    store = PredictionStore(path, run.manifest, rank=rank, overwrite=settings.overwrite)

    def work() -> None:
        generate_all(
            run.model,
            run.prompts,
            store,
            batch_size=settings.batch_size,
            rank=rank,
            world_size=world_size,
            on_progress=lambda count: on_progress(name, count * world_size, total),
        )

    store.complete(run.ids, work)
    on_progress(name, total, total)


def _with_unit(pixels: int | None) -> str | None:
    """Return a number of pixels with its unit."""
    return None if pixels is None else f"{pixels} pixels"


def score_predictions(run: EvalRun, path: Path, protocol: Protocol) -> Result:
    """Score a file of predictions and write the result next to it."""
    result = grade_predictions(run.benchmark, run.data, read_predictions(path), protocol)
    write_result(result, path.with_suffix(".json"))
    return result


def verify_batching(run: EvalRun, path: Path, count: int) -> tuple[int, list[str]]:
    """Regenerate some responses individually.

    The `count` responses are spread over the data.

    Returns:
        The number of responses, and the ids of those that differ.
    """
    predictions = read_predictions(path).by_id
    valid = [p for p in run.prompts if p.row is not None and not predictions[p.id].error]
    step = max(len(valid) // max(count, 1), 1)
    single = generate_individually(run.model, valid[::step][:count])
    return len(single), [key for key, text in single.items() if predictions[key].response != text]

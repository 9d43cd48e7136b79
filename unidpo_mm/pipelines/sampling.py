"""The second stage: sample responses, from a model in this process or from another program.

In this process, batches are settled before the first one runs, from the data and from the number of
responses that the finished file has. Every response has noise of its own, see `inference/noise.py`.
So neither an interruption nor the number of processes changes a response.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ..adapter import AdapterOptions
from ..config.recipe import ModelSection
from ..distributed.processes import processes
from ..errors import Problem, RecipeError
from ..inference.checkpoint import Checkpoint, find_checkpoint, load_checkpoint
from ..inference.decoding import Decoding
from ..inference.generation import GeneratedResponse
from ..inference.local_model import LocalModel
from ..inference.memory import run_in_parts
from ..inference.noise import noise_key
from ..inference.prompts import Prompt, prompt_of
from ..inference.samples import Sampler
from ..records import EncodedGroup
from .files import Files, ResponseFile, Share, json_values, sampled_id, sampling_settings
from .load import Making
from .prompt_set import MadePrompt, Prompts
from .recipe import SampleSection
from .timing import Timing

__all__ = ["sample_all", "sampling_fingerprint"]

NUMBER = "n"
"""Key of the manifest with the number of responses per prompt, which may grow."""
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Batch:
    """Responses that are generated together.

    Attributes:
        prompts: Indices of the prompts.
        numbers: Numbers of the responses of each of them.
    """

    prompts: tuple[int, ...]
    numbers: range


def sample_all(
    making: Making,
    files: Files,
    prompts: Prompts,
    share: Share,
    on_progress: Progress,
    timing: Timing,
) -> ResponseFile:
    """Sample the responses that do not exist yet; return the file, in which they can be read."""
    sample = making.recipe.sample
    store = ResponseFile(files.responses, _manifest(making, prompts), rank=share.index)
    finished = int(store.final_manifest().get(NUMBER, 0))
    store.manifest[NUMBER] = count = max(finished, sample.n)
    ids = [sampled_id(item.id, k) for item in prompts.items for k in range(count)]
    program = _program(making, store)
    if program is not None:
        store.manifest |= json_values(program.manifest())

    def work() -> None:
        with timing.stage("sample") as store.stopwatch:
            if program is not None:
                program.request_missing(prompts.items, store, share, on_progress)
            else:
                _generate(making, prompts, store, share, (finished, count), on_progress)

    store.complete(ids, work, merge=share.merges)
    return store


def sampling_fingerprint(prompts: Prompts, making: Making) -> str:
    """Return a hash of everything that the sampled responses depend on, except their number."""
    manifest = {k: v for k, v in _manifest(making, prompts).items() if k not in IGNORED}
    text = json.dumps(manifest, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


IGNORED = ResponseFile.unstable


def _manifest(making: Making, prompts: Prompts) -> dict[str, Any]:
    recipe, sample = making.recipe, making.recipe.sample
    manifest: dict[str, Any] = {
        "prompts": prompts.fingerprint,
        "sampling": sampling_settings(sample),
        NUMBER: sample.n,
        "batch_size": sample.batch_size,
    }
    if recipe.served_model is not None:
        return manifest | {"model": f"served {recipe.served_model}"}
    assert recipe.model is not None  # checked with the recipe
    settings = recipe.model.model_dump(mode="json", exclude_unset=True)
    settings.pop("lora", None)
    return manifest | {"model": settings, "weights": _checkpoint(recipe.model).weights}


class Program(Protocol):
    """Another program that generates the responses: a server, or one that reads batch files."""

    def manifest(self) -> Mapping[str, Any]:
        """Return what the manifest of the responses records of it and of the requests."""

    def request_missing(
        self,
        prompts: Sequence[MadePrompt],
        store: ResponseFile,
        share: Share,
        on_progress: Progress,
    ) -> None:
        """Add the responses that the store does not have."""


def _program(making: Making, store: ResponseFile) -> Program | None:
    """Return the program that generates the responses; `None` if this process does."""
    recipe = making.recipe
    if recipe.sample.server is not None:
        from .served import ServedSampling

        return ServedSampling(recipe, recipe.sample.server, store)
    if recipe.sample.batch_files is not None:
        from .batch_files import BatchSampling

        return BatchSampling(recipe, recipe.sample.batch_files)
    return None


def _checkpoint(model: ModelSection) -> Checkpoint:
    return find_checkpoint(model.name_or_path)


# ---- in this process ----


def batches_of(prompts: Sequence[Prompt], numbers: range, batch_size: int) -> list[Batch]:
    """Return the batches: the largest prompts first, so that a lack of memory shows at once.

    Args:
        prompts: The prompts.
        numbers: Numbers of the responses to generate for each of them.
        batch_size: Maximum number of responses of a batch.
    """
    order = sorted(range(len(prompts)), key=lambda n: (-prompts[n].area, -prompts[n].length, n))
    together = max(batch_size // max(len(numbers), 1), 1)
    blocks = [numbers[n : n + batch_size] for n in range(0, len(numbers), batch_size)]
    return [
        Batch(tuple(order[start : start + together]), block)
        for start in range(0, len(order), together)
        for block in blocks
    ]


def _generate(
    making: Making,
    prompts: Prompts,
    store: ResponseFile,
    share: Share,
    numbers: tuple[int, int],
    on_progress: Progress,
) -> None:
    """Generate the missing responses of this share.

    Args:
        making: The recipe.
        prompts: The prompts.
        store: Where the responses are stored.
        share: The share of this process.
        numbers: Number of responses per prompt in the finished file, and in the next one.
        on_progress: Called after each batch.
    """
    finished, count = numbers
    size = making.recipe.sample.batch_size
    described = [prompt_of(item.question) for item in prompts.items]
    final = store.final_ids()

    def ids_of(batch: Batch) -> list[str]:
        return [sampled_id(described[n].id, k) for n in batch.prompts for k in batch.numbers]

    batches = [  # with an error in the finished file, they are repeated
        batch
        for batch in batches_of(described, range(finished), size)
        if not final.issuperset(ids_of(batch))
    ]
    batches += batches_of(described, range(finished, count), size)
    total = sum(len(batch.prompts) * len(batch.numbers) for batch in batches)
    model: _Model | None = None
    for batch in share.of(batches):
        ids = ids_of(batch)
        if not all(name in store.done for name in ids):
            if model is None:
                model = _Model(making)
                store.loaded()
            records = model.records([described[n] for n in batch.prompts], batch.numbers)
            store.add([record for record in records if record["id"] not in store.done])
        on_progress("sample", len(ids) * share.count, total)


class _Model:
    """The model of a recipe, which generates responses to batches of prompts."""

    def __init__(self, making: Making) -> None:
        recipe = making.recipe
        model, sample = recipe.model, recipe.sample
        assert model is not None
        self.sample: SampleSection = sample
        loaded = load_checkpoint(_checkpoint(model), dtype=model.dtype, device=processes().device)
        options = AdapterOptions(
            prompt_style=model.prompt_style,
            image_min_size=model.image_min_size,
            image_max_size=model.image_max_size,
            video_max_pixels=model.video_max_pixels,
            chat_template_kwargs=model.chat_template_kwargs or {},
        )
        decoding = Decoding(max_new_tokens=sample.max_new_tokens, stop=tuple(sample.stop))
        self.local = LocalModel(loaded.model, loaded.adapter(options), decoding, loaded.device)
        self.sampler = Sampler(
            loaded.model,
            self.local.reasoning_adapter,
            decoding,
            sampling=sample.sampling,
            device=loaded.device,
        )
        limit = getattr(loaded.config.get_text_config(), "max_position_embeddings", None)
        self.max_length = None if limit is None else limit - sample.max_new_tokens
        if self.max_length is not None and self.max_length < 1:
            text = f"the model takes {limit:,} tokens, so that none is left for prompts"
            remedy = f"Use fewer than {limit:,}"
            raise RecipeError(Problem("sample.max_new_tokens", text, remedy))

    def records(self, prompts: Sequence[Prompt], numbers: range) -> list[dict[str, Any]]:
        """Return the records of the responses with some numbers to a batch of prompts."""
        encoded = [self._encode(prompt) for prompt in prompts]
        valid = [
            (prompt, item)
            for prompt, item in zip(prompts, encoded, strict=True)
            if isinstance(item, EncodedGroup)
        ]
        runner = self._runner(numbers)
        generated = iter(run_in_parts(runner, valid, lambda item: None) if valid else ())
        records = []
        for prompt, item in zip(prompts, encoded, strict=True):
            responses = next(generated) if isinstance(item, EncodedGroup) else item
            for position, number in enumerate(numbers):
                record: dict[str, Any] = {"id": sampled_id(prompt.id, number), "response": ""}
                if responses is None:
                    record["error"] = "out of memory for a single prompt"
                elif isinstance(responses, str):
                    record |= {"fault": "prompt", "message": responses}
                else:
                    response = responses[position]
                    record |= {
                        "response": response.text,
                        "finish_reason": response.finish_reason,
                        "new_tokens": response.new_tokens,
                    }
                records.append(record)
        return records

    def _runner(
        self, numbers: range
    ) -> Callable[[Sequence[tuple[Prompt, EncodedGroup]]], list[list[GeneratedResponse] | None]]:
        def run(
            items: Sequence[tuple[Prompt, EncodedGroup]],
        ) -> list[list[GeneratedResponse] | None]:
            seed = self.sample.seed
            keys = [[noise_key(seed, prompt.id, k) for k in numbers] for prompt, _ in items]
            return [*self.sampler.generate([item for _, item in items], keys)]

        return run

    def _encode(self, prompt: Prompt) -> EncodedGroup | str:
        assert prompt.row is not None
        encoded = self.local.encode(prompt.row)
        if isinstance(encoded, EncodedGroup) and self.max_length is not None:
            length = encoded.prompt_ids.numel()
            if length > self.max_length:
                return (
                    f"the prompt has {length:,} tokens, and the model takes {self.max_length:,} "
                    f"in addition to {self.sample.max_new_tokens:,} new ones"
                )
        return encoded

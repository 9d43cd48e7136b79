"""The flow of `eval run`: a checkpoint answers benchmarks, and what it said is scored."""

import hashlib
import json
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from unidpo_mm.adapter import AdapterOptions
from unidpo_mm.errors import Problem, RecipeError
from unidpo_mm.plugins import suggestion
from unidpo_mm.reasoning import opens_reasoning
from unidpo_mm.records import EncodedGroup

from ..benchmarks import Benchmark
from ..data.dataset import DataSet
from ..data.predictions import OPENED, read_predictions
from ..models.checkpoint import LoadedCheckpoint
from ..models.processes import processes
from ..models.template_variables import variables_of
from ..prompts import PromptProfile, load_prompts
from ..protocols import Protocol
from ..results.grading import score
from ..results.result import Result, write_result
from .generate import Local, answer_all, one_by_one
from .progress import Told
from .prompts import Question, questions_of, shuffled_pictures
from .store import PredictionStore

__all__ = [
    "PACKAGES",
    "Asking",
    "Settings",
    "Style",
    "answer_benchmark",
    "asking",
    "check_batches",
    "first_prompt",
    "processor_hash",
    "score_run",
    "style_of",
]

STYLES = ("auto", "chat", "raw")
Style = Literal["chat", "raw"]
PACKAGES = ("unidpo-mm", "torch", "transformers")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What holds for all benchmarks of a run.

    Attributes:
        protocol: Prompts, decoding, limits of pictures, and the rules.
        prompt: Name of a prompt profile in place of the protocol's.
        style: ``chat`` uses the chat template, ``raw`` does not, ``auto`` where there is one.
        batch_size: Most questions of a batch.
        max_new_tokens: In place of the protocol's.
        images: Folder of pictures that data name.
        shuffle_pictures: Seed of the control in which every picture is another's; None for none.
        chat_template_kwargs: Variables for the chat template, as ``enable_thinking``.
        overwrite: Whatever is there is removed first.
    """

    protocol: Protocol
    prompt: str | None = None
    style: str = "auto"
    batch_size: int = 8
    max_new_tokens: int | None = None
    images: Path | None = None
    shuffle_pictures: int | None = None
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    overwrite: bool = False

    def overrides(self) -> dict[str, Any]:
        """Returns what is not as the protocol says; results that differ in it are not compared.

        Of a prompt profile that the protocol has for another family it knows.
        """
        own = self.prompt is None or self.prompt in self.protocol.prompt.values()
        return {
            "prompt": None if own else self.prompt,
            "style": self.style,
            "max_new_tokens": self.max_new_tokens,
        }


@dataclass(frozen=True, kw_only=True)
class Asking:
    """A model and the questions of one benchmark.

    Attributes:
        benchmark, data: The benchmark.
        local: The model with its adapter and decoding, or the server.
        questions: In the order of the data.
        manifest: How the predictions are made.
    """

    benchmark: Benchmark
    data: DataSet
    local: Any
    questions: Sequence[Question]
    manifest: Mapping[str, Any]


def asking(
    loaded: LoadedCheckpoint, benchmark: Benchmark, data: DataSet, settings: Settings
) -> Asking:
    """Returns a model and the questions of a benchmark, with the fingerprint of its answers.

    Args:
        loaded: The model.
        benchmark: The benchmark.
        data: Its samples, with pictures.
        settings: What holds for the run.
    """
    protocol, family = settings.protocol, loaded.family.name
    profile = load_prompts(settings.prompt or protocol.prompt_of(family))
    decoding = protocol.decoding_of(benchmark.name)
    if settings.max_new_tokens is not None:
        decoding = type(decoding)(**asdict(decoding) | {"max_new_tokens": settings.max_new_tokens})
    pixels = protocol.pixels_of(family, benchmark.name)
    style = style_of(loaded.processor, settings.style)
    adapter = loaded.adapter(
        AdapterOptions(
            prompt_style=style,
            image_min_pixels=pixels.min_pixels,
            image_max_pixels=pixels.max_pixels,
            chat_template_kwargs=settings.chat_template_kwargs,
        )
    )
    asked = data
    if settings.shuffle_pictures is not None:
        asked = shuffled_pictures(data, settings.shuffle_pictures)
    questions = questions_of(benchmark, asked, profile, images=settings.images, raw=style == "raw")
    local = Local(loaded.model, adapter, decoding, loaded.device)
    manifest = _manifest(loaded, benchmark, data, settings, profile, style)
    manifest |= {"decoding": asdict(decoding), "pixels": asdict(pixels)}
    manifest["first_prompt"] = first_prompt(local, questions)
    if opens_reasoning(manifest["first_prompt"].get("text", "")):
        manifest[OPENED] = True
    manifest |= variables_of(loaded.checkpoint, settings.chat_template_kwargs)
    return Asking(
        benchmark=benchmark, data=data, local=local, questions=questions, manifest=manifest
    )


def answer_benchmark(
    asked: Asking, path: Path, settings: Settings, told: Told = lambda name, more, whole: None
) -> Path:
    """Answers what is not answered yet and returns the file of predictions, merged.

    Args:
        asked: The model and the questions.
        path: Where the file goes.
        settings: What holds for the run.
        told: Is told how far it is.
    """
    state = processes()
    store = PredictionStore(
        path, asked.manifest, rank=state.process_index, overwrite=settings.overwrite
    )
    state.wait_for_everyone()  # what is removed is removed before anybody reads
    store.open()
    whole = len(asked.questions)
    if store.finished:
        told(f"{asked.benchmark.name}, answered before", whole, whole)
    else:
        answer_all(
            asked.local,
            asked.questions,
            store,
            batch_size=settings.batch_size,
            rank=state.process_index,
            world=state.num_processes,
            told=lambda more: told(asked.benchmark.name, more * state.num_processes, whole),
        )
    state.wait_for_everyone()
    if state.is_main_process and not store.finished:
        store.merge([one.id for one in asked.questions])
    state.wait_for_everyone()
    return path


def score_run(asked: Asking, path: Path, protocol: Protocol) -> Result:
    """Scores a file of predictions and writes the result beside it."""
    result = score(asked.benchmark, asked.data, read_predictions(path), protocol)
    write_result(result, path.with_suffix(".json"))
    return result


def check_batches(asked: Asking, path: Path, count: int) -> tuple[int, list[str]]:
    """Asks some questions alone; returns how many, and the ids with another answer than before.

    Args:
        asked: The model and the questions.
        path: The file of predictions.
        count: How many to ask, spread over the data.
    """
    said = read_predictions(path).by_id
    good = [one for one in asked.questions if one.row is not None and not said[one.id].error]
    step = max(len(good) // max(count, 1), 1)
    alone = one_by_one(asked.local, good[::step][:count])
    return len(alone), [own for own, text in alone.items() if said[own].response != text]


def _manifest(
    loaded: LoadedCheckpoint,
    benchmark: Benchmark,
    data: DataSet,
    settings: Settings,
    profile: PromptProfile,
    style: str,
) -> dict[str, Any]:
    checkpoint = loaded.checkpoint
    return {
        "model": checkpoint.name,
        "weights": checkpoint.weights,
        "family": loaded.family.name,
        "processor": processor_hash(loaded.processor),
        "dtype": str(next(loaded.model.parameters()).dtype).removeprefix("torch."),
        "backend": f"transformers {version('transformers')}",
        "device": str(loaded.device).partition(":")[0],
        "protocol": settings.protocol.label,
        "prompt": profile.label,
        "style": style,
        "overrides": settings.overrides(),
        "batch_size": settings.batch_size,
        "benchmark": benchmark.name,
        "data_sha256": data.sha256,
        "rows": len(data.samples),
        "shuffled_pictures": settings.shuffle_pictures,
        "images": None if settings.images is None else str(settings.images),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in PACKAGES},
        },
    }


def style_of(processor: Any, style: str) -> Style:
    """Returns ``chat`` or ``raw``; of ``auto`` by whether there is a chat template.

    Raises:
        RecipeError: If there is no such style.
    """
    if style not in STYLES:
        found = f"there is no style '{style}'{suggestion(style, STYLES)}"
        raise RecipeError(Problem("--style", found, f"Choose one of {', '.join(STYLES)}"))
    if style == "chat":
        return "chat"
    if style == "raw":
        return "raw"
    tokenizer = getattr(processor, "tokenizer", processor)
    template = getattr(processor, "chat_template", None) or tokenizer.chat_template
    return "chat" if template else "raw"


def processor_hash(processor: Any) -> str:
    """Returns a hash of how a processor cuts pictures and renders conversations."""
    tokenizer = getattr(processor, "tokenizer", processor)
    pictures = getattr(processor, "image_processor", None)
    said = {
        "class": type(processor).__name__,
        "vocabulary": len(tokenizer),
        "template": getattr(processor, "chat_template", None) or tokenizer.chat_template,
        "pictures": None if pictures is None else pictures.to_dict(),
    }
    whole = json.dumps(said, sort_keys=True, default=str)
    return hashlib.sha256(whole.encode()).hexdigest()[:16]


def first_prompt(local: Local, questions: Sequence[Question]) -> dict[str, Any]:
    """Returns the first prompt that can be asked: as text with its special tokens, and as ids."""
    tokenizer = getattr(local.adapter.processor, "tokenizer", local.adapter.processor)
    for question in questions:
        encoded = local.encode(question)
        if isinstance(encoded, EncodedGroup):
            ids = encoded.prompt_ids.tolist()
            return {
                "id": question.id,
                "text": _shown(tokenizer.decode(ids), encoded, tokenizer),
                "ids": ids,
            }
    return {}


def _shown(text: str, encoded: EncodedGroup, tokenizer: Any) -> str:
    """Returns the text with the many tokens of a picture written as one and their number."""
    if encoded.image_token_id is None:
        return text
    token = re.escape(str(tokenizer.decode([encoded.image_token_id])))
    return re.sub(rf"(?:{token}\s?)+", f"[{encoded.image_tokens} tokens of pictures]", text)

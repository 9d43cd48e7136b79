"""Open a conversation with one checkpoint, or with two that respond to the same messages."""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..adapter import AdapterOptions
from ..distributed.processes import processes
from ..errors import ModelError, Problem, RecipeError
from ..lora_directory import base_of, is_adapter_directory
from ..modeling.families import VISION
from ..modeling.load import ModelSource, load_adapter
from .checkpoint import Checkpoint, LoadedCheckpoint, find_checkpoint, load_checkpoint
from .conversation import Conversation
from .decoding import Decoding
from .local_model import LocalModel, prompt_style
from .template_variables import OPTION, trained_model_options

__all__ = ["ChatModel", "ChatOptions", "model_before", "open_chat"]

ENCODING = (
    "prompt_style",
    "chat_template_kwargs",
    "image_min_size",
    "image_max_size",
    "video_fps",
    "video_max_frames",
    "video_max_pixels",
)
"""Options of a run that affect how prompts are encoded."""
SAMPLING = ("video_fps", "video_max_frames")
"""Those that are never `None`."""


@dataclass(frozen=True, kw_only=True)
class ChatOptions:
    """Options of a chat.

    Attributes:
        max_new_tokens: Maximum number of tokens of a response.
        dtype: Number format of the weights; see `ModelSource`.
        device: ``auto``, or a device of torch.
        style: ``chat``, ``raw`` or ``auto``; `None` for the style of the training run.
        chat_template_kwargs: Variables for the chat template; they override those of the run.
        system: The system message; empty if there is none.
    """

    max_new_tokens: int = 512
    dtype: str = "auto"
    device: str = "auto"
    style: str | None = None
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    system: str = ""


@dataclass(frozen=True)
class ChatModel:
    """A checkpoint with its conversation.

    Attributes:
        conversation: The conversation.
        takes_images: Whether the model has a vision tower.
        description: Family, number format and device.
        run_options: Options that were read from the recipe of the run.
    """

    conversation: Conversation
    takes_images: bool
    description: str
    run_options: Mapping[str, Any]


def open_chat(path: str, options: ChatOptions, *, compare: str | None = None) -> list[ChatModel]:
    """Load a checkpoint, and optionally another one to compare it with.

    If the other one is the base model of a LoRA adapter, both share the weights.

    Args:
        path: Directory of a model, LoRA adapter or run; or a hub name.
        options: The options.
        compare: The other checkpoint; `None` if there is none.

    Returns:
        The models; the one to compare with comes first.

    Raises:
        ModelError: If a checkpoint cannot be loaded.
        RecipeError: If an option cannot be used.
    """
    device = _device(options.device)
    checkpoints = [_find(place) for place in ((path,) if compare is None else (compare, path))]
    checkpoint = checkpoints[-1]
    loaded = _load(checkpoint, options, device)
    recorded = _recorded(path)
    models = [_chat_model(loaded, options, recorded)]
    if compare is not None:
        first = _distinct(checkpoints[0], checkpoint)
        if _same_model(first, checkpoint.base) and _can_disable_lora(loaded.model):
            other = _without_lora(loaded, first)
        else:
            other = _load(first, options, device)
        if other.family.name == loaded.family.name:
            # a model without a recorded run gets the same prompts as the other one
            recorded = _recorded(compare) or recorded
        else:
            recorded = _recorded(compare)
        models.insert(0, _chat_model(other, options, recorded))
    return models


def model_before(path: str) -> str:
    """Return the model that training started from, as the recipe or the LoRA adapter records it.

    Raises:
        ModelError: If neither is recorded.
    """
    recorded = str(trained_model_options(Path(path)).get("name_or_path") or "")
    if recorded and Path(recorded).is_dir():
        return recorded
    if is_adapter_directory(path):
        return base_of(path)
    if not recorded:
        problem = f"'{path}' does not record which model its training started from"
        remedy = "Use --compare with the directory or hub name of that model"
        raise ModelError(Problem("--before", problem, remedy))
    return recorded


class _WithoutLora:
    """A model whose LoRA adapter is disabled while it generates."""

    def __init__(self, model: Any) -> None:
        self._model = model

    @property
    def generation_config(self) -> Any:
        return self._model.generation_config

    def generate(self, **inputs: Any) -> Any:
        with self._model.disable_adapter():
            return self._model.generate(**inputs)


def _find(path: str) -> Checkpoint:
    if Path(path).exists() and not Path(path).is_dir():
        remedy = "Use the directory that contains it"
        raise ModelError(Problem("FOLDER", f"'{path}' is a file", remedy))
    with _reported_as(path):
        return find_checkpoint(path, with_hash=False)


def _load(checkpoint: Checkpoint, options: ChatOptions, device: torch.device) -> LoadedCheckpoint:
    with _reported_as(str(checkpoint.lora or checkpoint.base)):
        return load_checkpoint(checkpoint, dtype=options.dtype, device=device)


@contextlib.contextmanager
def _reported_as(path: str) -> Iterator[None]:
    """In problems of loading a checkpoint, refer to its path instead of a key of a recipe."""
    try:
        yield
    except ModelError as error:
        where = f"checkpoint '{path}'"
        raise ModelError(
            dataclasses.replace(problem, where=where)
            if problem.where.startswith("model.")
            else problem
            for problem in error.problems
        ) from error


def _recorded(path: str) -> dict[str, Any]:
    """Return the options in the recipe of a run that affect how prompts are encoded, if set."""
    recorded = trained_model_options(Path(path))
    defaults = {"prompt_style": "auto"}
    return {
        name: recorded[name]
        for name in ENCODING
        if recorded.get(name) and recorded[name] != defaults.get(name)
    }


def _chat_model(
    loaded: LoadedCheckpoint, options: ChatOptions, recorded: Mapping[str, Any]
) -> ChatModel:
    style = prompt_style(
        loaded.processor, options.style or str(recorded.get("prompt_style", "auto"))
    )
    name = loaded.checkpoint.name
    if style == "raw":
        for option, value in (("--system", options.system), (OPTION, options.chat_template_kwargs)):
            if value:
                problem = f"the prompts of '{name}' do not use a chat template"
                raise RecipeError(Problem(option, problem, "Remove it, or use --style chat"))
    variables = {**recorded.get("chat_template_kwargs", {}), **options.chat_template_kwargs}
    adapter = loaded.adapter(
        AdapterOptions(
            prompt_style=style,
            image_min_size=recorded.get("image_min_size"),
            image_max_size=recorded.get("image_max_size"),
            video_max_pixels=recorded.get("video_max_pixels"),
            **{name: recorded[name] for name in SAMPLING if name in recorded},
            chat_template_kwargs=variables,
        )
    )
    decoding = Decoding(max_new_tokens=options.max_new_tokens)
    limit = getattr(loaded.config.get_text_config(), "max_position_embeddings", None)
    parameter = next(iter(_unwrapped(loaded.model).parameters()))
    dtype = str(parameter.dtype).removeprefix("torch.")
    return ChatModel(
        Conversation(
            name,
            LocalModel(loaded.model, adapter, decoding, loaded.device),
            style,
            max_length=limit if isinstance(limit, int) else None,
            system=options.system,
        ),
        takes_images=VISION in loaded.family.parts,
        description=f"{loaded.family.name}, {dtype}, {loaded.device}",
        run_options=recorded,
    )


def _unwrapped(model: Any) -> Any:
    return model._model if isinstance(model, _WithoutLora) else model


def _without_lora(loaded: LoadedCheckpoint, checkpoint: Checkpoint) -> LoadedCheckpoint:
    """Return the base model of a loaded LoRA adapter, with its own processor."""
    source = ModelSource(name_or_path=checkpoint.processor)
    adapter = load_adapter(source, AdapterOptions(), config=loaded.config, family=loaded.family)
    return dataclasses.replace(
        loaded,
        checkpoint=checkpoint,
        model=_WithoutLora(loaded.model),
        processor=adapter.processor,
    )


def _can_disable_lora(model: Any) -> bool:
    """Return whether disabling the LoRA adapter restores the base model.

    It does not if biases were trained: they stay changed.
    """
    configs = getattr(model, "peft_config", {}).values()
    return bool(configs) and all(getattr(config, "bias", "none") == "none" for config in configs)


def _same_model(checkpoint: Checkpoint, base: str) -> bool:
    if checkpoint.lora is not None:
        return False
    left, right = Path(checkpoint.base), Path(base)
    if left.is_dir() and right.is_dir():
        return left.samefile(right)
    return checkpoint.base == base


def _distinct(checkpoint: Checkpoint, other: Checkpoint) -> Checkpoint:
    """Return a checkpoint whose name differs from that of the other one."""
    if checkpoint.name != other.name:
        return checkpoint
    return dataclasses.replace(checkpoint, name=str(checkpoint.lora or checkpoint.base))


def _device(name: str) -> torch.device:
    """Return a device.

    Raises:
        RecipeError: If it does not exist.
    """
    if name == "auto":
        device: torch.device = processes().device
        return device
    try:
        device = torch.device(name)
    except RuntimeError as error:
        remedy = "Use auto, cpu, cuda, cuda:N or mps"
        raise RecipeError(Problem("--device", f"'{name}' is not a device", remedy)) from error
    if device.type == "cpu":
        return device
    available = (
        torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    )
    count = torch.accelerator.device_count()
    if available is None or available.type != device.type or (device.index or 0) >= count:
        problem = f"this machine has no device '{name}'"
        raise RecipeError(Problem("--device", problem, "Use auto or cpu"))
    return device

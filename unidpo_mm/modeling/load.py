"""Load a checkpoint: its configuration, processor and weights."""

import logging
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from torch import nn

from ..adapter import Adapter, AdapterFamily, AdapterOptions, check_processor
from ..errors import ModelError, Problem, ProcessorError, counted
from ..lora_directory import base_of, is_adapter_directory, processor_directory
from .adapter_base import check_base_type
from .checkpoint_names import adapter_with_model_names
from .families import family_for
from .model_parts import with_model_parts
from .peft_models import check_supported, deprecated_name_ignored
from .quantization import keep_quantized_weights, only_language_model

__all__ = [
    "LoadedModel",
    "ModelSource",
    "load_adapter",
    "load_family_and_adapter",
    "load_model",
    "load_processor",
    "reload_weights",
]

if TYPE_CHECKING:  # it imports TrainingArguments and, with it, models
    from ..config.python import UniDPOConfig

logger = logging.getLogger(__name__)

UNREADABLE = (OSError, ValueError, KeyError, RuntimeError, SafetensorError)
"""Errors of weights that are damaged or belong to another model, whose sizes differ."""

INSTALL = re.compile(r"pip install `?([\w.\[\]-]+(?: [\w.\[\]-]+)*)")
"""The command for a missing package in the messages of transformers."""

DTYPES = ("auto", "bfloat16", "float16", "float32")


@dataclass(frozen=True, kw_only=True)
class ModelSource:
    """A model and how to load it.

    Attributes:
        name_or_path: A local directory of a model or a LoRA adapter, or the name of a model on the
            hub.
        dtype: ``auto`` (as saved), ``bfloat16``, ``float16`` or ``float32``.
        adapter: Name of the family; `None` to detect it from the model type.
        attn_implementation: The attention kernel of transformers; `None` for its default.
        trust_remote_code: Whether code that comes with the checkpoint may run.
        init_kwargs: Further arguments of `from_pretrained`.
        base_name_or_path: Base model of a LoRA adapter; `None` for the one in its configuration.
        base_key: The setting that `base_name_or_path` comes from, for messages; `None` if the user
            cannot set it.
    """

    name_or_path: str
    dtype: str = "auto"
    adapter: str | None = None
    attn_implementation: str | None = None
    trust_remote_code: bool = False
    init_kwargs: Mapping[str, Any] = field(default_factory=dict)
    base_name_or_path: str | None = None
    base_key: str | None = "model.base_name_or_path"

    @property
    def model_name(self) -> str:
        """The path or hub name of the weights: of a LoRA adapter, those of its base model.

        Raises:
            ModelError: If the base model of a LoRA adapter does not exist.
        """
        if is_adapter_directory(self.name_or_path):
            return base_of(self.name_or_path, self.base_name_or_path, key=self.base_key)
        if self.base_name_or_path is not None:
            problem = f"it is set, and '{self.name_or_path}' is not a LoRA adapter directory"
            raise ModelError(Problem(str(self.base_key), problem, "Remove it"))
        return self.name_or_path

    @classmethod
    def of(cls, model: str | nn.Module, args: "UniDPOConfig") -> "ModelSource":
        """Return the source of a model's files; for a loaded model, that of its processor."""
        name = model if isinstance(model, str) else str(getattr(model.config, "_name_or_path", ""))
        init_kwargs = dict(args.model_init_kwargs or {})
        return cls(
            name_or_path=name,
            dtype=str(init_kwargs.pop("dtype", "auto")).removeprefix("torch."),
            adapter=args.adapter,
            attn_implementation=init_kwargs.pop("attn_implementation", None),
            trust_remote_code=init_kwargs.pop("trust_remote_code", False),
            init_kwargs=init_kwargs,
            base_name_or_path=args.base_name_or_path,
        )


@dataclass(frozen=True)
class LoadedModel:
    """A model with its adapter and the family that serves it, with the parts of this model."""

    model: nn.Module
    family: AdapterFamily
    adapter: Adapter


def load_model(
    source: ModelSource, options: AdapterOptions, *, processor: Any = None
) -> LoadedModel:
    """Load a checkpoint: its weights, its adapter, and its processor unless one is passed.

    Raises:
        ModelError: If the checkpoint cannot be read or no family serves it.
    """
    config = load_config(source)
    family = family_for(config, source.adapter)
    adapter = load_adapter(source, options, config=config, family=family, processor=processor)
    model = load_weights(source, family)
    return LoadedModel(model, with_model_parts(family, model), adapter)


def load_config(source: ModelSource) -> Any:
    """Return the configuration of a checkpoint, or of the base model of a LoRA adapter.

    Raises:
        ModelError: If it cannot be read, or the adapter was trained on a model of another type.
    """
    from transformers import AutoConfig

    name = source.model_name
    try:
        config = AutoConfig.from_pretrained(name, trust_remote_code=source.trust_remote_code)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise _cannot_read(source, error) from error
    if is_adapter_directory(source.name_or_path):
        key = source.base_key
        check_base_type(source.name_or_path, name, config.model_type, key=key)
    return config


def load_adapter(
    source: ModelSource,
    options: AdapterOptions,
    *,
    config: Any,
    family: AdapterFamily,
    processor: Any = None,
) -> Adapter:
    """Return the adapter of a checkpoint; load its processor unless one is passed.

    Raises:
        ModelError: If the processor does not fit the model, or cannot encode an image.
    """
    is_argument = processor is not None
    if processor is None:
        processor = load_processor(source, family)
    if family.needs_processor and not hasattr(processor, "tokenizer"):
        raise ModelError(
            Problem(
                "processing_class",
                f"a model of the family '{family.name}' needs a processor, and "
                f"{type(processor).__name__} is not a processor",
                "Pass AutoProcessor.from_pretrained(...), or save the processor with the model",
            )
        )
    try:
        adapter = family.create(processor, config, options)
        check_processor(adapter)
    except ProcessorError as error:
        if is_argument:
            raise ProcessorError(map(_of_argument, error.problems)) from error
        raise
    return adapter


def _of_argument(problem: Problem) -> Problem:
    """Return the problem of a processor that was passed."""
    remedy = f"Pass the processor of the model, or remove the argument. {problem.remedy}"
    return Problem("processing_class", problem.message, remedy)


def load_family_and_adapter(
    model: str | nn.Module, args: "UniDPOConfig", processing_class: Any = None
) -> tuple[AdapterFamily, Adapter]:
    """Return the family of a model, which is passed by name or as an object, and its adapter."""
    source = ModelSource.of(model, args)
    config: Any = load_config(source) if isinstance(model, str) else model.config
    family = family_for(config, args.adapter)
    options = AdapterOptions(
        max_length=args.max_length,
        length_policy=args.length_policy,
        prompt_style=args.prompt_style,
        chat_template_kwargs=args.chat_template_kwargs or {},
        image_min_size=args.image_min_size,
        image_max_size=args.image_max_size,
        video_fps=args.video_fps,
        video_max_frames=args.video_max_frames,
        video_max_pixels=args.video_max_pixels,
    )
    adapter = load_adapter(
        source, options, config=config, family=family, processor=processing_class
    )
    return family, adapter


def load_processor(source: ModelSource, family: AdapterFamily) -> Any:
    """Return the processor or tokenizer of a checkpoint.

    A LoRA adapter has its own if it was saved in its directory, else that of its base model.
    """
    from transformers import AutoProcessor, AutoTokenizer

    path = source.name_or_path
    if is_adapter_directory(path):
        needs = family.needs_processor
        path = processor_directory(path, source.model_name, needs_processor=needs)
    loader = AutoProcessor if family.needs_processor else AutoTokenizer
    try:
        return loader.from_pretrained(path, trust_remote_code=source.trust_remote_code)
    except Exception as error:  # tokenizers raise `Exception` if a file is damaged
        raise _cannot_read(source, error) from error


def load_weights(
    source: ModelSource, family: AdapterFamily, *, is_trainable: bool = True
) -> nn.Module:
    """Return the model with its weights, a LoRA adapter on its base model."""
    import transformers

    if source.dtype not in DTYPES:
        problem = f"'{source.dtype}' is not a number format of weights"
        raise ModelError(Problem("model.dtype", problem, f"Choose one of {', '.join(DTYPES)}"))
    kwargs: dict[str, Any] = {"dtype": source.dtype, **source.init_kwargs}
    if source.attn_implementation is not None:
        kwargs["attn_implementation"] = source.attn_implementation
    auto_class = getattr(transformers, family.auto_class)
    if kwargs.get("quantization_config") is not None:
        kwargs["quantization_config"] = only_language_model(
            kwargs["quantization_config"], family, partial(_empty_model, source, family)
        )
        # one line per product of 8-bit weights, about a conversion that is always made
        logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    kwargs |= {"trust_remote_code": source.trust_remote_code, "output_loading_info": True}
    allows_mismatch = bool(kwargs.get("ignore_mismatched_sizes"))
    kwargs["ignore_mismatched_sizes"] = True  # the error of transformers names no tensor
    model: nn.Module
    try:
        model, report = auto_class.from_pretrained(source.model_name, **kwargs)
    except torch.OutOfMemoryError:
        raise
    except (*UNREADABLE, ImportError, TypeError) as error:
        raise _cannot_read(source, error) from error
    if not allows_mismatch and (text := _mismatch(report)):
        raise _cannot_read(source, ValueError(text))
    parameters = dict(model.named_parameters())  # buffers may be computed
    if missing := sorted(parameters.keys() & report["missing_keys"]):  # now they are random
        text = f"{counted(len(missing), 'tensor is', 'tensors are')} missing, such as {missing[0]}"
        raise _cannot_read(source, ValueError(text))
    keep_quantized_weights(model)
    if is_adapter_directory(source.name_or_path):
        model = _with_adapter(model, source, is_trainable=is_trainable)
    return model


def _mismatch(report: Mapping[str, Any]) -> str:
    """Return which tensors of a checkpoint have a wrong shape, or an empty string."""
    if not report["mismatched_keys"]:
        return ""
    mismatched = sorted(report["mismatched_keys"])
    name, in_file, in_model = mismatched[0]
    text = counted(len(mismatched), "tensor has", "tensors have")
    shapes = f"{list(in_file)} in the file and {list(in_model)} in the model"
    return f"{text} another shape than the configuration says, such as {name}: {shapes}"


def _empty_model(source: ModelSource, family: AdapterFamily) -> nn.Module:
    """Return the model of a checkpoint without its weights."""
    import transformers

    auto_class = getattr(transformers, family.auto_class)
    with torch.device("meta"):
        model: nn.Module = auto_class.from_config(
            load_config(source), trust_remote_code=source.trust_remote_code
        )
    return model


def _with_adapter(model: Any, source: ModelSource, *, is_trainable: bool) -> nn.Module:
    """Return a base model with the adapter of a directory.

    Raises:
        ModelError: If the adapter does not fit the model. PEFT only warns about missing weights,
            and ignores weights of other layers.
    """
    from peft import PeftModel, get_peft_model_state_dict
    from peft.utils import load_peft_weights

    try:
        with (
            adapter_with_model_names(model, source.name_or_path) as directory,
            warnings.catch_warnings(),
            deprecated_name_ignored(),
        ):
            warnings.filterwarnings("error", message=".*missing adapter keys.*")
            policy: nn.Module = PeftModel.from_pretrained(
                model, directory, is_trainable=is_trainable
            )
        saved = load_peft_weights(source.name_or_path, device="cpu")
        places = sum(".lora_" in key for key in get_peft_model_state_dict(policy))
        if sum(".lora_" in key for key in saved) > places:
            raise ValueError("it has weights for layers that the model does not have")
    except (*UNREADABLE, TypeError, UserWarning) as error:
        text = " ".join(str(error).split())[:200].rstrip(".")
        problem = f"the adapter does not fit its base model '{source.model_name}' ({text})"
        remedy = f"Set {source.base_key or 'the base'} to the model that it was trained on"
        raise ModelError(Problem(source.name_or_path, problem, remedy)) from error
    check_supported(policy, source.name_or_path)
    return policy


def reload_weights(model: Any, folder: str | Path) -> None:
    """Load the weights of a checkpoint into a model, in place.

    This uses `from_pretrained`, because names in files may differ from those of the parameters: for
    some vision-language models, the trainer of transformers would load no weight and only warn.

    Raises:
        ModelError: If the directory contains no checkpoint of such a model.
    """
    source = ModelSource(name_or_path=str(folder))
    try:
        saved, report = type(model).from_pretrained(
            folder,
            config=model.config,
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # the error of transformers names no tensor
        )
    except UNREADABLE as error:
        raise _cannot_read(source, error) from error
    if text := _mismatch(report):
        raise _cannot_read(source, ValueError(text))
    if wrong := sorted({*report["missing_keys"], *report["unexpected_keys"]}):
        raise _cannot_read(source, KeyError(f"its weights do not fit, for example {wrong[0]}"))
    model.load_state_dict(saved.state_dict())


def _cannot_read(source: ModelSource, error: Exception) -> ModelError:
    """Return the error of a checkpoint that cannot be loaded, with the remedy for its cause."""
    text = " ".join(str(error).split())
    command = INSTALL.search(text)
    if isinstance(error, ImportError) and (command or getattr(error, "name", None)):
        packages = command[1] if command else str(error.name).partition(".")[0]
        problem = f"'{source.name_or_path}' needs a Python package that is not installed"
        problem, remedy = f"{problem} ({packages})", f"Run pip install {packages}"
    elif "trust_remote_code" in text:
        problem = f"'{source.name_or_path}' needs code of its checkpoint, which may not run"
        remedy = (
            "If you trust its source, set model.trust_remote_code to true, or choose a model whose "
            "code is in transformers"
        )
    else:
        first = str(error).strip().splitlines()[0] if text else type(error).__name__
        problem = f"'{source.name_or_path}' cannot be loaded ({first.rstrip('.')})"
        remedy = "Use an existing directory, or the name of a model on a hub that can be reached"
        if Path(source.name_or_path).is_dir():
            remedy = "Use a directory written by save_pretrained, with its config and processor"
    return ModelError(Problem("model.name_or_path", problem, remedy))

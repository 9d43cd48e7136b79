"""Merge a LoRA adapter into its base model and save a model that needs no PEFT."""

import contextlib
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..adapter import AdapterFamily
from ..atomic import umask
from ..errors import ModelError, Problem
from ..lora_directory import is_adapter_directory
from .families import family_for
from .load import ModelSource, load_config, load_processor, load_weights
from .peft_models import adapter_tensors, is_peft_model

__all__ = ["MergedModel", "check_output", "merge_adapter"]

PROBE_TOKENS = 8
TOLERANCE = 1e-4
HALF_TOLERANCE = 0.1
"""Maximum relative difference of the logits before and after; half precision rounds the sum."""


@dataclass(frozen=True)
class MergedModel:
    """A merged model on disk.

    Attributes:
        directory: Its directory.
        base: The base model.
        auto_class: The transformers class that loads it.
        dtype: The number format of its weights.
        difference: Maximum difference of the logits of adapter and merged model.
    """

    directory: Path
    base: str
    auto_class: str
    dtype: str
    difference: float


def merge_adapter(source: ModelSource, output: Path) -> MergedModel:
    """Merge an adapter into its base model; save model, processor and generation settings.

    All files are written to a temporary directory next to the output, which is renamed at the end,
    so the output is complete or does not exist.

    Args:
        source: An adapter directory.
        output: A path that does not exist, or an empty directory.

    Raises:
        ModelError: If the adapter cannot be merged, or the results of the merged model differ.
    """
    check_output(output)
    if not is_adapter_directory(source.name_or_path):
        problem = "it is not a LoRA adapter directory: it needs an adapter_config.json"
        remedy = "Use the output directory of a LoRA run, or one of its checkpoints"
        raise ModelError(Problem(source.name_or_path, problem, remedy))
    config = load_config(source)
    if getattr(config, "quantization_config", None) is not None:
        problem = f"its base model '{source.model_name}' is quantized"
        remedy = "Set --base to the same model without quantization"
        raise ModelError(Problem(source.name_or_path, problem, remedy))
    family = family_for(config, source.adapter)
    processor = load_processor(source, family)
    merged, difference = merged_model(load_weights(source, family, is_trainable=False), source)
    dtype = str(next(merged.parameters()).dtype).removeprefix("torch.")
    logits = _probe(merged)
    with _complete_or_absent(output) as directory:
        merged.save_pretrained(directory)
        processor.save_pretrained(directory)
        del merged  # before the second copy is loaded
        _check_saved(logits, ModelSource(name_or_path=str(directory), dtype=dtype), family, source)
    return MergedModel(output, source.model_name, family.auto_class, dtype, difference)


def merged_model(policy: Any, source: ModelSource) -> tuple[Any, float]:
    """Return the merged model and the maximum difference of the logits."""
    assert is_peft_model(policy)
    if not hasattr(policy, "merge_and_unload"):
        problem = f"adapters of the type {policy.peft_type} cannot be merged"
        raise ModelError(Problem(source.name_or_path, problem, "Use the adapter with PEFT"))
    before = _probe(policy)
    untied = _untie(policy)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about tied weights, which `_untie` handles
            merged = policy.merge_and_unload(safe_merge=True)
    except (ValueError, NotImplementedError, AttributeError) as error:
        problem = f"the adapter cannot be merged ({' '.join(str(error).split()).rstrip('.')})"
        raise ModelError(Problem(source.name_or_path, problem, "Train it again")) from error
    if untied:
        _tie_if_equal(merged)
    after = _probe(merged)
    difference = float((before - after).abs().max())
    half = next(merged.parameters()).dtype in (torch.bfloat16, torch.float16)
    limit = (HALF_TOLERANCE if half else TOLERANCE) * max(1.0, float(before.abs().max()))
    if not difference <= limit:
        problem = f"the merged model's logits differ by {difference:.3g} from base and adapter"
        remedy = "Use --dtype float32, or the adapter with PEFT"
        raise ModelError(Problem(source.name_or_path, problem, remedy))
    return merged, difference


def check_output(output: Path) -> None:
    """Raise ModelError unless the output does not exist or is an empty directory."""
    where = "--output"
    if output.is_dir():
        if any(output.iterdir()):
            problem = f"'{output}' is not empty"
            raise ModelError(Problem(where, problem, "Choose another directory, or delete it"))
    elif output.exists() or output.is_symlink():
        problem = f"'{output}' already exists and is not a directory"
        raise ModelError(Problem(where, problem, "Choose another directory"))


@torch.no_grad()
def _probe(model: Any) -> torch.Tensor:
    """Return the logits of a few tokens, in float32."""
    vocabulary = model.get_input_embeddings().weight.shape[0]
    ids = torch.arange(PROBE_TOKENS) * 7919 % max(1, min(vocabulary, 1000))
    logits: torch.Tensor = model.eval()(input_ids=ids[None], use_cache=False).logits
    return logits.float()


def _check_saved(
    logits: torch.Tensor, saved: ModelSource, family: AdapterFamily, source: ModelSource
) -> None:
    """Raise ModelError if the saved model, loaded without PEFT, has other logits."""
    difference = float((_probe(load_weights(saved, family)) - logits).abs().max())
    if not difference <= TOLERANCE * max(1.0, float(logits.abs().max())):
        problem = f"the merged model's logits differ by {difference:.3g} after saving"
        remedy = "Use the adapter with PEFT, and report this as a bug"
        raise ModelError(Problem(source.name_or_path, problem, remedy))


def _untie(policy: Any) -> bool:
    """Untie output head and embeddings if the adapter changes one of them; return whether it did.

    With tied weights PEFT would merge a change of one into both.
    """
    model = policy.get_base_model()
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    tied = getattr(model.config.get_text_config(), "tie_word_embeddings", False)
    if not tied or head is None:
        return False
    adapted = {path for _, path, _ in adapter_tensors(model)}
    names = [name for name, module in model.named_modules() if module in (embeddings, head)]
    if not any(path.startswith(f"{name}.") for path in adapted for name in names):
        return False
    layer = _plain_layer(head)
    layer.weight = nn.Parameter(layer.weight.detach().clone(), requires_grad=False)
    return True


def _tie_if_equal(model: Any) -> None:
    """Tie head and embeddings again if they are still equal, else save both."""
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    equal = torch.equal(embeddings.weight, head.weight)
    for config in (model.config, model.config.get_text_config()):
        config.tie_word_embeddings = equal
    if equal:
        head.weight = embeddings.weight
    else:
        model.all_tied_weights_keys = {}


def _plain_layer(module: Any) -> Any:
    """Return the module of the base model inside the wrappers of PEFT."""
    for name in ("base_layer", "original_module"):
        if hasattr(module, name):
            return _plain_layer(getattr(module, name))
    return module


@contextlib.contextmanager
def _complete_or_absent(output: Path) -> Iterator[Path]:
    """Yield a temporary directory that becomes `output` if the body succeeds."""
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        directory = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
        directory.chmod(0o777 & ~umask())
    except OSError as error:
        raise _not_written(output, error) from error
    try:
        yield directory
        check_output(output)
        directory.replace(output)
    except OSError as error:
        raise _not_written(output, error) from error
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _not_written(output: Path, error: OSError) -> ModelError:
    problem = f"'{output}' cannot be written ({error.strerror or error})"
    return ModelError(Problem("--output", problem, "Choose a writable directory with space"))

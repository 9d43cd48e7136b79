"""The identity of a run, recorded in every checkpoint and compared when training resumes.

A resumed run must not silently become another run. There are three kinds of changed options:
changes without an effect on the trained weights (`HARMLESS`), changes that are logged and take
effect from the next step on (`HONORED`), and all others, which are refused unless the user allows
them by name.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..adapter import Adapter
from ..cache.keys import weights_fingerprint
from ..config.loss_aliases import LossAliases, resolve_loss
from ..config.options import OnResume, options_with
from ..config.python import UniDPOConfig
from ..data.digest import DataDigest, difference
from ..errors import Problem, RecipeError
from ..modeling.peft_models import REFERENCE_ADAPTER
from ..records import PreferenceRow
from .checkpoints import IDENTITY_FILE

__all__ = [
    "ALLOW_ALL",
    "HARMLESS",
    "HONORED",
    "Change",
    "compare",
    "compare_options",
    "describe_model",
    "read_identity",
    "recorded_options",
    "refuse_changes",
]

HARMLESS = frozenset(
    """
    auto_find_batch_size average_tokens_across_devices batch_eval_metrics bf16_full_eval
    dataloader_in_order dataloader_multiprocessing_context dataloader_num_workers
    dataloader_persistent_workers dataloader_pin_memory dataloader_prefetch_factor ddp_timeout debug
    disable_tqdm do_eval do_predict do_train enable_jit_checkpoint eval_accumulation_steps
    eval_delay eval_do_concat_batches eval_on_start eval_steps eval_strategy eval_use_gather_object
    fp16_full_eval greater_is_better hub_always_push hub_model_id hub_private_repo hub_revision
    hub_strategy hub_token include_for_metrics include_num_input_tokens_seen label_names
    length_column_name load_best_model_at_end local_rank log_level log_level_replica
    log_on_each_node logging_first_step logging_nan_inf_filter logging_steps logging_strategy
    metric_for_best_model output_dir per_device_eval_batch_size prediction_loss_only project
    push_to_hub ref_model_mixup_alpha ref_model_sync_steps remove_unused_columns report_to
    restore_callback_states_from_checkpoint resume_from_checkpoint run_name save_on_each_node
    save_only_model save_steps save_strategy save_total_limit skip_memory_metrics
    torch_empty_cache_steps trackio_bucket_id trackio_space_id trackio_static_space_id use_cache
    """.split()
) | options_with(OnResume.HARMLESS)
"""Options that do not affect the trained weights, or only through the rows and the model, whose
contents are compared instead."""

HONORED = frozenset(
    """
    activation_checkpointing activation_checkpointing_kwargs adam_beta1 adam_beta2 adam_epsilon
    ddp_backend ddp_broadcast_buffers ddp_bucket_cap_mb ddp_find_unused_parameters ddp_static_graph
    gradient_checkpointing gradient_checkpointing_kwargs learning_rate max_grad_norm max_steps
    num_train_epochs torch_compile torch_compile_backend torch_compile_mode use_cpu weight_decay
    """.split()
) | options_with(OnResume.HONORED)
"""Options whose new value is used from the next step on."""

BATCH = ("per_device_train_batch_size", "gradient_accumulation_steps", "processes")
"""Options that determine the pairs of an optimizer step. It has the same pairs if the batch size
and the product of the other two are unchanged."""

ALLOW_ALL = "all"


@dataclasses.dataclass(frozen=True)
class Change:
    """One difference between a checkpoint and the run that resumes from it.

    Attributes:
        name: Name of the option, or ``data``, ``model``, ``processes``.
        text: Description of the change.
        honored: Whether the new value takes effect without permission.
        path: For an option that is a mapping, the key inside it, for example ``.beta``.
    """

    name: str
    text: str
    honored: bool
    path: str = ""


def recorded_options(args: UniDPOConfig) -> dict[str, Any]:
    """Return the options that may affect the trained weights, as JSON values.

    The loss is recorded once, under whichever of its names it was set.
    """
    aliases = {field.name for field in dataclasses.fields(LossAliases)}
    recorded = {
        field.name: _as_json(getattr(args, field.name))
        for field in dataclasses.fields(args)
        if field.init and field.name not in HARMLESS | aliases
    }
    name, parameters = resolve_loss(args)
    return {**recorded, "loss": _as_json({"name": name, **parameters})}


def describe_model(model: nn.Module, adapter: Adapter) -> dict[str, Any]:
    """Return digests of a model before its first step and of how rows are encoded for it.

    The model is the policy with or without PEFT, its weights not sharded.
    """
    config: Any = model.config
    settings = {
        key: value
        for key, value in config.to_dict().items()
        if key not in ("_name_or_path", "transformers_version", "dtype", "torch_dtype")
        and not key.startswith("_")
    }
    peft_config = getattr(model, "peft_config", None) or {}
    return {
        "class": type(model).__name__,
        "weights": weights_fingerprint(_initial_weights(model), {}),
        "config": _digest(settings),
        "lora": {
            name: _lora_settings(value)
            for name, value in sorted(peft_config.items())
            if name != REFERENCE_ADAPTER
        },
        "encoding": _encoding(adapter),
    }


def compare_options(
    recorded: Mapping[str, Any], current: Mapping[str, Any], *, processes: tuple[int, int]
) -> list[Change]:
    """Return the differences between options, and between numbers of processes.

    Args:
        recorded: The `recorded_options` of the checkpoint.
        current: The `recorded_options` of this run.
        processes: The numbers of processes of the checkpoint and of this run.
    """
    before = {**recorded, "processes": processes[0]}
    now = {**current, "processes": processes[1]}
    same_steps = _pairs_per_step(before) == _pairs_per_step(now) and (
        before.get(BATCH[0]) == now.get(BATCH[0])
    )
    changes = []
    for name in sorted({*before, *now}):
        honored = name in HONORED or (same_steps and name in BATCH)
        if name == "learning_rates":  # with other parts, the optimizer has other parameter groups
            honored = _keys(before.get(name)) == _keys(now.get(name))
        old, new = dict(_leaves(before.get(name))), dict(_leaves(now.get(name)))
        for path in dict.fromkeys((*old, *new)):
            if old.get(path) != new.get(path):
                text = f"{_as_text(old.get(path))} -> {_as_text(new.get(path))}"
                changes.append(Change(name, text, honored, path))
    return changes


def compare(
    recorded: Mapping[str, Any],
    current: Mapping[str, Any],
    rows: Mapping[str, Sequence[PreferenceRow]],
) -> list[Change]:
    """Return every difference between a recorded identity and the current one.

    Args:
        recorded: The identity of the checkpoint.
        current: That of this run.
        rows: The rows of this run, by the key of their digest in an identity.
    """
    changes = compare_options(
        recorded["options"],
        current["options"],
        processes=(recorded["processes"], current["processes"]),
    )
    for key, text in MODEL_TEXTS.items():
        if recorded["model"].get(key) != current["model"].get(key):
            changes.append(Change("model", text, honored=False))
    for key, honored in (("data", False), ("eval_data", True)):
        changes += [
            Change(key, text, honored)
            for text in _data_changes(recorded[key], current[key], rows[key])
        ]
    if recorded["versions"] != current["versions"]:
        before, now = recorded["versions"], current["versions"]
        texts = [
            f"{name} {before.get(name)} -> {now.get(name)}"
            for name in sorted({*before, *now})
            if before.get(name) != now.get(name)
        ]
        changes.append(Change("versions", ", ".join(texts), honored=True))
    return changes


MODEL_TEXTS = {
    "class": "the model is of another class",
    "weights": "the initial weights of the model have changed",
    "config": "the configuration of the model has changed",
    "lora": "the LoRA settings have changed",
    "encoding": "the tokenizer, processor or chat template encodes the rows differently",
}


def _data_changes(recorded: Any, current: Any, rows: Sequence[PreferenceRow]) -> list[str]:
    if recorded is None or current is None:
        if recorded == current:
            return []
        return ["there were no rows before" if recorded is None else "there are no more rows"]
    return difference(DataDigest.from_json(recorded), DataDigest.from_json(current), rows)


def read_identity(folder: Path) -> dict[str, Any] | None:
    """Return the identity recorded in a checkpoint; `None` if there is none or it is damaged."""
    try:
        recorded = json.loads((folder / IDENTITY_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return recorded if isinstance(recorded, dict) and "options" in recorded else None


def refuse_changes(
    changes: Iterable[Change],
    allowed: Iterable[str],
    *,
    checkpoint: Path,
    names: Mapping[str, str],
) -> list[str]:
    """Check that all changes are allowed, and return their descriptions.

    Args:
        changes: Every difference between the checkpoint and this run.
        allowed: Names that the user allows.
        checkpoint: For messages.
        names: Field of `UniDPOConfig` -> its name in a recipe, if that differs.

    Raises:
        RecipeError: If changes are neither honored nor allowed; lists all of them.
    """
    changes = list(changes)
    by_user_name = {user_name: field for field, user_name in names.items()}
    allowed_fields = {by_user_name.get(name, name) for name in allowed}
    refused = [c for c in changes if not (c.honored or allowed_fields & {c.name, ALLOW_ALL})]
    if refused:
        listed = ",".join(dict.fromkeys(names.get(c.name, c.name) for c in refused))
        option = names.get("allow_changes", "allow_changes")
        remedy = (
            f"Undo the change, use another output directory, start from scratch with "
            f"{names.get('start_anew', 'resume_from_checkpoint=None')}, or allow the change with "
            f"{option}=[{listed}]"
        )
        texts = "; ".join(_described(change, names) for change in refused)
        problem = f"{checkpoint} belongs to another run ({texts})"
        raise RecipeError(Problem(option, problem, remedy))
    return [_described(change, names) for change in changes]


def _described(change: Change, names: Mapping[str, str]) -> str:
    space = "" if change.path or "->" in change.text else ":"
    return f"{names.get(change.name, change.name)}{change.path}{space} {change.text}"


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the single values of an option with the path of keys that leads to each."""
    if not isinstance(value, Mapping):
        yield path, value
        return
    for key, item in value.items():
        yield from _leaves(item, f"{path}.{key}")


def _keys(value: Any) -> list[str]:
    return sorted(value or {})


def _pairs_per_step(options: Mapping[str, Any]) -> Any:
    return options.get("gradient_accumulation_steps", 1) * options["processes"]


def _initial_weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield the weights with their names in the plain model, without a LoRA adapter that is zero.

    A new LoRA adapter is random, but its product is zero before the first step.
    """
    named: Mapping[str, Tensor] = model.state_dict(keep_vars=True)
    adds = any(".lora_B." in name and bool(tensor.any()) for name, tensor in named.items())
    for name, tensor in named.items():
        if f".{REFERENCE_ADAPTER}." in f"{name}.":
            continue
        if adds or ".lora_" not in name:
            plain = name.removeprefix("base_model.model.")
            yield plain.replace(".base_layer", ""), tensor


def _lora_settings(config: Any) -> Any:
    settings = config.to_dict() if hasattr(config, "to_dict") else dict(config)
    skipped = ("base_model_name_or_path", "revision", "inference_mode", "peft_version")
    return _as_json({key: value for key, value in settings.items() if key not in skipped})


def _encoding(adapter: Adapter) -> str:
    """Return a digest of how a fixed short row is encoded, and of the chat template."""
    processor: Any = adapter.processor
    tokenizer = getattr(processor, "tokenizer", processor)
    group = adapter.filler()
    content = {
        "template": str(getattr(processor, "chat_template", None) or tokenizer.chat_template),
        "tokens": len(tokenizer),
        "ids": [ids.tolist() for ids in (group.prompt_ids, *group.response_ids)],
        "images": {name: list(t.shape) for name, t in sorted(group.images.inputs.items())},
    }
    return _digest(content)


def _digest(value: Any) -> str:
    text = json.dumps(_as_json(value), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _as_json(value: Any) -> Any:
    """Convert a value as a round trip through JSON does; other types become text."""
    if isinstance(value, Enum):
        return _as_json(value.value)
    if isinstance(value, Mapping):
        return {str(key): _as_json(item) for key, item in sorted(value.items(), key=str)}
    if isinstance(value, set | frozenset):
        return sorted(map(str, value))
    if isinstance(value, list | tuple):
        return [_as_json(item) for item in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    return str(value)


def _as_text(value: Any) -> str:
    return "not set" if value is None else json.dumps(value)

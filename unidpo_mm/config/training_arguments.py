"""The arguments of `transformers.TrainingArguments`, and whether they are honored or refused.

The trainer replaces parts of transformers' loop (data loading, loss, evaluation). An argument that
only those parts read would silently have no effect, so it is refused unless it has its default
value. `arguments_page.py` writes the table as docs/training_arguments.md.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from ..errors import Problem

__all__ = [
    "ARGUMENTS",
    "REMOVED",
    "Argument",
    "refused_values",
    "training_arguments",
]


@dataclass(frozen=True)
class Argument:
    """The treatment of an argument.

    Attributes:
        note: The difference from transformers, or the reason why it is refused.
        remedy: What to do instead of setting a refused argument, starting with a verb.
        refused: Whether every value but the default is refused.
        accepted: Further values that are accepted because they request the actual behavior.
    """

    note: str = ""
    remedy: str = ""
    refused: bool = False
    accepted: tuple[Any, ...] = ()


def _honored(names: str, note: str = "") -> dict[str, Argument]:
    return {name: Argument(note) for name in names.split()}


def _refused(names: str, note: str, remedy: str = "Remove it") -> dict[str, Argument]:
    return {name: Argument(note, remedy, refused=True) for name in names.split()}


ORDER = "each micro-batch is filled with complete prompt groups in a shuffled order"
EVALUATION = "evaluation adds up sums and counts and keeps no predictions"
GROUP_REMEDY = "Remove it; data.group_by_prompt joins rows that share a prompt"

ARGUMENTS: dict[str, Argument] = {
    **_honored("output_dir"),
    **_honored("per_device_train_batch_size", "counts pairs (responses for `sft`)"),
    **_honored("num_train_epochs max_steps learning_rate"),
    **_honored("lr_scheduler_type lr_scheduler_kwargs"),
    **_honored("warmup_steps", "a value below 1 is a share of all steps"),
    **_honored("optim optim_args weight_decay adam_beta1 adam_beta2 adam_epsilon"),
    **_honored("optim_target_modules", "only together with a GaLore or APOLLO optimizer"),
    **_honored("gradient_accumulation_steps max_grad_norm"),
    **_refused(
        "average_tokens_across_devices",
        "the loss of a step is always the mean over all units on all processes",
    ),
    **_refused(
        "label_smoothing_factor",
        "it smooths the labels of a language-modeling loss",
        "Remove it; loss.label_smoothing smooths preferences (dpo, robust)",
    ),
    **_honored("bf16 fp16 tf32"),
    **_refused(
        "bf16_full_eval fp16_full_eval",
        "evaluation runs in the precision of training, so that its log-probs are comparable",
        "Remove it; bf16 or fp16 applies to training and evaluation",
    ),
    **_honored(
        "activation_checkpointing activation_checkpointing_kwargs",
        "checkpoints are never reentrant",
    ),
    **_honored(
        "gradient_checkpointing gradient_checkpointing_kwargs",
        "older name of `activation_checkpointing` and its `_kwargs`",
    ),
    **_refused(
        "torch_compile torch_compile_backend torch_compile_mode",
        "micro-batches change their shape and attention runs in pieces, so that a compiled model "
        "would be compiled again for nearly every batch",
    ),
    **_refused(
        "use_liger_kernel liger_kernel_config",
        "its kernels replace the loss of a plain model, which is not computed here",
        "Remove it; logps_chunk_size limits the logits that exist at a time",
    ),
    **_refused("use_cache", "training never reads a key-value cache"),
    **_refused(
        "neftune_noise_alpha",
        "noise on the embeddings would differ between policy and reference, and between the "
        "responses of a pair",
    ),
    **_honored("torch_empty_cache_steps"),
    **_refused(
        "auto_find_batch_size",
        "a smaller batch size in mid-run would change how prompt groups are packed",
        "Remove it; train.memory: auto fits activations into the available memory",
    ),
    **_honored("logging_strategy logging_steps logging_first_step log_on_each_node"),
    **_honored("logging_nan_inf_filter", "false by default, so that a NaN loss is logged as NaN"),
    "include_num_input_tokens_seen": Argument(
        "a micro-batch holds groups, whose tokens transformers cannot count",
        "Remove it; logs show pairs per second",
        refused=True,
        accepted=(False,),
    ),
    **_honored("log_level log_level_replica disable_tqdm report_to run_name project"),
    **_honored(
        "trackio_space_id trackio_bucket_id trackio_static_space_id", "for `report_to: trackio`"
    ),
    **_honored("eval_strategy eval_steps eval_delay per_device_eval_batch_size eval_on_start"),
    **_refused(
        "prediction_loss_only eval_do_concat_batches eval_use_gather_object "
        "eval_accumulation_steps include_for_metrics batch_eval_metrics",
        EVALUATION,
    ),
    **_honored("save_only_model save_strategy save_steps save_on_each_node save_total_limit"),
    **_refused(
        "enable_jit_checkpoint",
        "SIGTERM already saves a checkpoint at the end of the step",
    ),
    **_honored(
        "push_to_hub hub_token hub_private_repo hub_model_id hub_strategy hub_always_push "
        "hub_revision"
    ),
    **_honored("load_best_model_at_end"),
    **_honored(
        "metric_for_best_model greater_is_better",
        "any metric of an evaluation, for example `rewards/accuracies`",
    ),
    **_honored("ignore_data_skip restore_callback_states_from_checkpoint"),
    **_honored("full_determinism seed"),
    **_honored("data_seed", "in a recipe: `data.seed`"),
    **_honored("use_cpu", "several processes without a GPU use the CPU in any case"),
    **_honored(
        "accelerator_config",
        "`split_batches`, `dispatch_batches`, `even_batches` and `use_seedable_sampler` keep "
        "their defaults",
    ),
    **_refused(
        "parallelism_config",
        "rows are not split over devices: context, sequence and tensor parallelism are not "
        "supported",
        "Remove it; fsdp and deepspeed shard the weights",
    ),
    **_refused("dataloader_drop_last", f"{ORDER}, and every row is used once per epoch"),
    **_honored("dataloader_num_workers dataloader_pin_memory dataloader_prefetch_factor"),
    **_honored("dataloader_persistent_workers"),
    **_refused("dataloader_multiprocessing_context", "workers start with Python's default method"),
    **_refused("dataloader_in_order", "batches out of order would make runs irreproducible"),
    "remove_unused_columns": Argument(
        "rows keep their columns until the model's family encodes them, so that both values have "
        "the same effect"
    ),
    **_refused("label_names", "labels are made from the responses of each row"),
    **_refused("train_sampling_strategy", ORDER, GROUP_REMEDY),
    **_refused("length_column_name", ORDER, GROUP_REMEDY),
    **_honored(
        "ddp_find_unused_parameters ddp_bucket_cap_mb ddp_broadcast_buffers ddp_static_graph "
        "ddp_backend ddp_timeout"
    ),
    **_honored("fsdp fsdp_config", "needs several processes with a GPU each"),
    **_honored("deepspeed", "needs the package deepspeed"),
    **_honored("debug", "`underflow_overflow` only"),
    **_honored("skip_memory_metrics"),
    "do_train": Argument("training is what the trainer does", accepted=(True,)),
    **_honored("do_eval", "only together with `eval_strategy`"),
    **_refused(
        "do_predict",
        "training makes no predictions",
        "Remove it; unidpo-mm eval run evaluates a checkpoint",
    ),
    **_refused(
        "resume_from_checkpoint",
        "transformers does not read it either",
        "Pass resume_from_checkpoint to train(), or set run.resume in a recipe",
    ),
    **_refused(
        "local_rank",
        "the launcher tells each process its rank",
        "Remove it; start with torchrun or accelerate launch",
    ),
}
"""All arguments of the supported versions of transformers."""

REMOVED: dict[str, str] = {
    "evaluation_strategy": "Use eval_strategy",
    "warmup_ratio": "Use warmup_steps; a value below 1 is a share of all steps",
    "no_cuda": "Use use_cpu",
    "use_mps_device": "Remove it; the device is detected",
    "overwrite_output_dir": "Use run.resume=never to start from scratch",
    "logging_dir": "Set the environment variable TENSORBOARD_LOGGING_DIR",
    "group_by_length": GROUP_REMEDY,
    "adafactor": "Use optim: adafactor",
    "per_gpu_train_batch_size": "Use per_device_train_batch_size",
    "per_gpu_eval_batch_size": "Use per_device_eval_batch_size",
    "push_to_hub_token": "Log in with hf auth login, or set HF_TOKEN",
    "push_to_hub_model_id": "Use hub_model_id",
    "push_to_hub_organization": "Use hub_model_id with the organization in front",
    "predict_with_generate": "Use eval_generations, the number of prompts to generate for",
    "generation_max_length": "Use eval_max_new_tokens",
    "generation_num_beams": "Remove it; generation is greedy",
    "split_batches": "Remove it; batch sizes count pairs per process",
    "dispatch_batches": "Remove it; every process loads its own batches",
    "include_inputs_for_metrics": "Remove it; evaluation keeps no inputs",
    "include_tokens_per_second": "Remove it; logs show pairs per second",
    "use_ipex": "Remove it; torch uses the instructions of the processor by itself",
    "jit_mode_eval": "Remove it; evaluation uses the model that trains",
    "torchdynamo": "Remove it; models are not compiled",
    "past_index": "Remove it; no past state is kept",
    "mp_parameters": "Remove it; start with torchrun or accelerate launch",
    "tpu_num_cores": "Remove it; start with torchrun or accelerate launch",
    "sharded_ddp": "Use fsdp",
    "fsdp_min_num_params": "Use fsdp_config: {min_num_params: ...}",
    "fsdp_transformer_layer_cls_to_wrap": (
        "Use fsdp_config: {transformer_layer_cls_to_wrap: [...]}"
    ),
    "save_safetensors": "Remove it; checkpoints are always safetensors",
    "half_precision_backend": "Use bf16 or fp16",
    "fp16_backend": "Use fp16",
    "fp16_opt_level": "Use fp16",
    "ray_scope": "Remove it; unidpo-mm sweep compares settings",
}
"""Arguments of other versions of transformers, and what to do instead."""


@cache
def training_arguments() -> dict[str, Any]:
    """Return the arguments that the installed transformers accepts, with their defaults."""
    from transformers import TrainingArguments  # takes seconds

    return {
        field.name: (
            field.default
            if field.default_factory is dataclasses.MISSING
            else field.default_factory()
        )
        for field in dataclasses.fields(TrainingArguments)
        if field.init
    }


def refused_values(values: Mapping[str, Any], *, prefix: str = "") -> list[Problem]:
    """Return a problem for every argument whose value would have no effect.

    Args:
        values: Argument -> value; names that transformers does not have are skipped.
        prefix: Prefix of the argument in each problem, for example ``train.``.
    """
    problems = []
    for name, value in values.items():
        argument = ARGUMENTS.get(name)
        if argument is None or not argument.refused:
            continue
        default = training_arguments().get(name)
        if value is None or value == default or value in argument.accepted:
            continue
        problems.append(
            Problem(f"{prefix}{name}", f"not supported: {argument.note}", argument.remedy)
        )
    return problems

"""Invalid recipes, command lines and environments, each of which must end with one clear message.

Every case runs the real `unidpo_mm.cli.main.main` in a forked child of this process, which has
already imported torch and transformers. `run_all` returns a table for `make faults`:

    python tests/faults/bad_inputs.py [PART OF A NAME]
"""

import json
import os
import re
import resource
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.path[:0] = [str(Path(__file__).parents[1])]

from support.forked import Finished, run_forked

__all__ = [
    "CASES",
    "Case",
    "Row",
    "compare_all",
    "compare_commands",
    "make_world",
    "preload",
    "run_all",
    "run_case",
    "table",
    "verdict_of",
]

RECIPE = """\
model: {name_or_path: WORLD/model}
data: {sources: [{path: WORLD/pairs.jsonl}]}
loss: {name: dpo}
train:
  output_dir: out
  max_steps: 1
  per_device_train_batch_size: 2
  use_cpu: true
  report_to: none
  save_strategy: "no"
  logging_steps: 1
  eval_generations: 0
"""
"""A valid recipe; WORLD is the directory of model and data."""

STARTED = ("optimizer step of about", "optimizer steps of about", " done in")
"""Parts of the output of a run that has read data and model."""

LAUNCHER = (
    "WORLD_SIZE RANK LOCAL_RANK LOCAL_WORLD_SIZE MASTER_ADDR MASTER_PORT ACCELERATE_USE_CPU "
    "ACCELERATE_MIXED_PRECISION ACCELERATE_USE_FSDP CUDA_VISIBLE_DEVICES HF_HOME UNIDPO_MM_CACHE "
    "HF_HUB_CACHE HF_ENDPOINT HF_TOKEN"
).split()
"""Variables of this process that no case inherits."""

Prepare = Callable[[Path, Path], None]
"""A function that writes the files of a case, called with the directories HERE and WORLD."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One bad input.

    Attributes:
        name: Unique name.
        kind: ``recipe`` (overrides), ``text`` (a recipe file), ``command`` or ``environment``.
        expects: Texts that the message must contain: the key or option, and words of the remedy.
        arguments: The command line; WORLD and HERE are placeholders for directories.
        text: Content of `recipe.yaml`, for the kind ``text``.
        env: Changes of the environment.
        prepare: A function that writes further files.
        file_limit: Maximum size in bytes of a file that the child may write, like a full disk.
        code: The exit code.
        late: Whether the problem is only detected after reading data or model.
        trains: Whether the problem is in weights or steps, which `data check` does not read.
    """

    name: str
    kind: str
    expects: tuple[str, ...]
    arguments: tuple[str, ...] = ()
    text: bytes | None = None
    env: dict[str, str | None] = field(default_factory=dict)
    prepare: Prepare | None = None
    file_limit: int | None = None
    code: int = 2
    late: bool = False
    trains: bool = False

    @property
    def in_both_commands(self) -> bool:
        """Whether `data check` and `train --dry-run` must report the same problems."""
        return self.arguments[0] == "train" and self.kind != "command" and not self.trains


@dataclass(frozen=True)
class Row:
    """The outcome of a case; its verdict is ``ok`` or a description of the problem."""

    name: str
    kind: str
    code: int | None
    verdict: str
    message: str
    seconds: float


def recipe(name: str, overrides: str | Sequence[str], *expects: str, **fields: object) -> Case:
    """Return a case with overrides of the recipe; a string is split at spaces."""
    words = overrides.split() if isinstance(overrides, str) else list(overrides)
    arguments = ("train", "WORLD/recipe.yaml", *words)
    return Case(name=name, kind="recipe", expects=expects, arguments=arguments, **fields)


def text(name: str, content: str | bytes, *expects: str, **fields: object) -> Case:
    """Return a case with a recipe file."""
    data = content.encode() if isinstance(content, str) else content
    arguments = ("train", "HERE/recipe.yaml")
    return Case(name=name, kind="text", expects=expects, arguments=arguments, text=data, **fields)


def command(name: str, line: str, *expects: str, **fields: object) -> Case:
    """Return a case with a command line."""
    return Case(name=name, kind="command", expects=expects, arguments=tuple(line.split()), **fields)


def environment(name: str, env: dict[str, str | None], *expects: str, **fields: object) -> Case:
    """Return a case with environment variables."""
    overrides = fields.pop("overrides", "")
    arguments = ("train", "WORLD/recipe.yaml", *str(overrides).split())
    return Case(
        name=name, kind="environment", expects=expects, arguments=arguments, env=env, **fields
    )


def write(name: str, content: str = "") -> Prepare:
    """Return a function that writes a file into the directory of the case."""

    def prepare(here: Path, world: Path) -> None:
        path = here / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content.replace("WORLD", str(world)), encoding="utf-8")

    return prepare


def directory(name: str) -> Prepare:
    """Return a function that creates a directory in that of the case."""
    return lambda here, world: (here / name).mkdir(parents=True)


LATE: dict[str, bool] = {"late": True, "trains": True}
"""Fields of cases that are only detected from the weights or the number of steps."""

PACKAGES = [
    recipe(
        "report_to tensorboard",
        "train.report_to=tensorboard",
        "train.report_to",
        "pip install tensorboard",
    ),
    recipe("report_to wandb", "train.report_to=wandb", "train.report_to", "pip install wandb"),
    recipe("report_to list", "train.report_to=[mlflow]", "train.report_to", "pip install mlflow"),
    recipe(
        "report_to unknown",
        "train.report_to=tensorbord",
        "train.report_to",
        "did you mean 'tensorboard'?",
    ),
    recipe(
        "optim bitsandbytes",
        "train.optim=adamw_bnb_8bit",
        "train.optim",
        "pip install bitsandbytes",
    ),
    recipe(
        "optim paged", "train.optim=paged_adamw_32bit", "train.optim", "pip install bitsandbytes"
    ),
    recipe(
        "optim galore",
        "train.optim=galore_adamw train.optim_target_modules=[q_proj]",
        "train.optim",
        "pip install galore-torch",
    ),
    recipe("optim lomo", "train.optim=lomo", "train.optim", "pip install lomo-optim"),
    recipe(
        "optim schedule_free",
        "train.optim=schedule_free_adamw",
        "train.optim",
        "pip install schedulefree",
    ),
    recipe("optim apex", "train.optim=adamw_apex_fused", "train.optim", "apex"),
    recipe("optim torchao", "train.optim=adamw_torch_8bit", "train.optim", "torchao"),
    recipe("optim unknown", "train.optim=adamw_torc", "train.optim", "did you mean 'adamw_torch'?"),
    recipe(
        "attention flash",
        "model.attn_implementation=flash_attention_2",
        "model.attn_implementation",
        "pip install flash-attn",
    ),
    recipe(
        "attention unknown",
        "model.attn_implementation=flash",
        "model.attn_implementation",
        "Use one of eager",
    ),
    recipe(
        "init_kwargs unknown",
        "model.init_kwargs={foo: 1}".split("\n"),
        "model.init_kwargs.foo",
        "Remove it",
    ),
    recipe(
        "init_kwargs misspelled",
        "model.init_kwargs.revison=main",
        "model.init_kwargs.revison",
        "did you mean 'revision'?",
    ),
    recipe(
        "init_kwargs tensor parallel",
        "model.init_kwargs.tp_size=2",
        "model.init_kwargs.tp_size",
        "train.fsdp",
    ),
    recipe(
        "deepspeed not installed",
        ["train.deepspeed={zero_optimization: {stage: 2}}"],
        "train.deepspeed",
        "pip install deepspeed",
    ),
    recipe(
        "deepspeed file missing",
        "train.deepspeed=absent.json",
        "train.deepspeed",
        "'absent.json' does not exist",
    ),
    recipe("push_to_hub offline", "train.push_to_hub=true", "train.push_to_hub", "HF_HUB_OFFLINE"),
    recipe(
        "callback unknown",
        ["run.callbacks={benchmark: {}}"],
        "run.callbacks.benchmark",
        "did you mean 'benchmarks'?",
    ),
]

OPTIMIZER = [
    recipe(
        "optim_args form",
        "train.optim=sgd train.optim_args=momentum",
        "train.optim_args",
        "name=value",
    ),
    recipe(
        "optim_args value",
        "train.optim=sgd train.optim_args=momentum=abc",
        "train.optim_args",
        "abc",
    ),
    recipe(
        "optim_args not read",
        "train.optim=adamw_torch train.optim_args=foo=1",
        "train.optim_args",
        "Remove it",
    ),
    recipe(
        "optim_target_modules",
        "train.optim_target_modules=[q_proj]",
        "train.optim_target_modules",
        "GaLore",
    ),
    recipe(
        "scheduler unknown",
        "train.lr_scheduler_type=cosin",
        "train.lr_scheduler_type",
        "did you mean 'cosine'?",
    ),
    recipe(
        "scheduler without its setting",
        "train.lr_scheduler_type=cosine_with_min_lr",
        "train.lr_scheduler_type",
        "min_lr",
    ),
    recipe(
        "scheduler kwargs",
        ["train.lr_scheduler_kwargs={foo: 1}"],
        "train.lr_scheduler_kwargs",
        "foo",
    ),
    recipe(
        "scheduler end above start",
        ["train.lr_scheduler_type=polynomial", "train.lr_scheduler_kwargs={lr_end: 1.0}"],
        "train.lr_scheduler_kwargs",
        "lr_end",
    ),
    recipe(
        "plateau without evaluation",
        "train.lr_scheduler_type=reduce_lr_on_plateau",
        "train.lr_scheduler_type",
        "eval",
    ),
    recipe("learning_rate negative", "train.learning_rate=-1e-6", "train.learning_rate", "from 0"),
    recipe("learning_rate infinite", "train.learning_rate=.inf", "train.learning_rate", "finite"),
    recipe("learning_rate nan", "train.learning_rate=.nan", "train.learning_rate", "finite"),
    recipe(
        "learning_rate text", "train.learning_rate='1e-6'", "train.learning_rate", "Use a number"
    ),
    recipe(
        "learning_rates negative",
        ["train.learning_rates={language_model: -1}"],
        "train.learning_rates.language_model",
        "greater than or equal to 0",
    ),
    recipe("weight_decay negative", "train.weight_decay=-0.1", "train.weight_decay", "from 0"),
    recipe("weight_decay infinite", "train.weight_decay=.inf", "train.weight_decay", "finite"),
    recipe("adam_beta1 one", "train.adam_beta1=1.0", "train.adam_beta1", "up to"),
    recipe("adam_beta2 negative", "train.adam_beta2=-0.1", "train.adam_beta2", "from 0"),
    recipe("adam_epsilon zero", "train.adam_epsilon=0", "train.adam_epsilon", "from 1e-30"),
    recipe(
        "max_grad_norm negative", "train.max_grad_norm=-1", "train.max_grad_norm", "no clipping"
    ),
    recipe("max_grad_norm nan", "train.max_grad_norm=.nan", "train.max_grad_norm", "finite number"),
    recipe("warmup negative", "train.warmup_steps=-1", "train.warmup_steps", "share of all steps"),
    recipe("warmup nan", "train.warmup_steps=.nan", "train.warmup_steps", "finite number"),
    recipe(
        "warmup fraction of a step",
        "train.warmup_steps=1.5",
        "train.warmup_steps",
        "share of all steps",
    ),
    recipe("warmup_ratio", "train.warmup_ratio=0.1", "train.warmup_ratio", "warmup_steps"),
]

NUMBERS = [
    recipe("tau_good infinite", "loss.name=uni_dpo loss.tau_good=.inf", "loss.tau_good", "finite"),
    recipe("tau_good nan", "loss.name=uni_dpo loss.tau_good=.nan", "loss.tau_good", "finite"),
    recipe("beta too large", "loss.beta=1e38", "loss.beta", "from 1e-6 to 10000"),
    recipe("beta too small", "loss.beta=1e-300", "loss.beta", "from 1e-6 to 10000"),
    recipe("gamma too large", "loss.name=uni_dpo loss.gamma=1e30", "loss.gamma", "to 1000000"),
    recipe("label_smoothing nan", "loss.label_smoothing=.nan", "loss.label_smoothing", "finite"),
    recipe("score_scale infinite", "data.score_scale=[0,.inf]", "data.score_scale.1", "finite"),
    recipe("feature cache infinite", "data.feature_cache_gb=.inf", "feature_cache_gb", "finite"),
    recipe(
        "feature cache of a byte",
        "data.feature_cache_gb=1e-9",
        "data.feature_cache_gb",
        "0 for no cache",
    ),
    recipe("worker timeout tiny", "data.worker_timeout=1e-9", "data.worker_timeout", "no limit"),
    recipe("max_length of 24 digits", "data.max_length=1" + "0" * 23, "data.max_length", "smaller"),
    recipe("memory of a byte", "train.memory=1e-9", "train.memory", "1e-06 or more"),
    recipe("memory nan", "train.memory=.nan", "train.memory", "finite number"),
    recipe(
        "scheduler kwargs infinite",
        ["train.lr_scheduler_kwargs={num_cycles: .inf}", "train.lr_scheduler_type=cosine"],
        "train.lr_scheduler_kwargs.num_cycles",
        "finite number",
    ),
    recipe(
        "init_kwargs nan",
        "model.init_kwargs.initializer_range=.nan",
        "model.init_kwargs.initializer_range",
        "finite number",
    ),
    recipe(
        "template variable nan",
        ["model.chat_template_kwargs={a: [1, .nan]}"],
        "model.chat_template_kwargs.a.1",
        "finite number",
    ),
    recipe("learning_rate overflows", "train.learning_rate=1e38", "train.learning_rate", "to 100"),
    recipe(
        "learning rate of a part overflows",
        ["train.learning_rates={language_model: 1e38}"],
        "train.learning_rates.language_model",
        "to 100",
    ),
    recipe("weight_decay overflows", "train.weight_decay=1e38", "train.weight_decay", "to 1000"),
    recipe(
        "weight_decay turns signs",
        "train.weight_decay=500 train.learning_rate=1e-2",
        "train.weight_decay",
        "below 100",
    ),
    recipe("adam_epsilon overflows", "train.adam_epsilon=1e38", "train.adam_epsilon", "1e-8"),
    recipe("adam_epsilon vanishes", "train.adam_epsilon=1e-60", "train.adam_epsilon", "1e-8"),
    recipe("max_grad_norm tiny", "train.max_grad_norm=1e-300", "train.max_grad_norm", "1e-6"),
    recipe("epochs endless", "train.num_train_epochs=1e9", "train.num_train_epochs", "100000"),
    recipe("max_steps endless", "train.max_steps=1000000000000", "train.max_steps", "1000000000"),
    recipe(
        "warmup longer than max_steps",
        "train.warmup_steps=10 train.max_steps=4",
        "train.warmup_steps",
        "10 steps of warmup in a run of 4 steps",
        "up to 4",
    ),
    recipe(
        "warmup longer than the epochs",
        "train.warmup_steps=5 train.max_steps=-1 train.num_train_epochs=1",
        "train.warmup_steps",
        "5 steps of warmup in a run of 4 steps",
        **LATE,
    ),
    recipe(
        "optim_args that sgd ignores",
        "train.optim=sgd train.optim_args=momentum=0.9,betas=0.9",
        "train.optim_args",
        "does not read 'betas'",
        "'sgd' reads momentum",
    ),
    recipe(
        "optim_args that adagrad ignores",
        "train.optim=adagrad train.optim_args=momentum=0.9",
        "train.optim_args",
        "'adagrad' reads weight_decay",
    ),
    recipe(
        "optim_args infinite",
        "train.optim=sgd train.optim_args=momentum=inf",
        "train.optim_args",
        "up to 1000000",
    ),
    recipe(
        "adam_beta1 with sgd",
        "train.optim=sgd train.adam_beta1=0.5",
        "train.adam_beta1",
        "its default, 0.9",
    ),
    recipe("lora rank too large", ["model.lora={r: 1000}"], "model.lora.r", "at most 32", **LATE),
    recipe(
        "score_scale of other scores",
        "loss.name=uni_dpo data.sources.0.path=scored.jsonl data.score_scale=[100,200]",
        "data.score_scale",
        "they range from 3 to 8",
        prepare=write(
            "scored.jsonl",
            '{"prompt":"a","chosen":"b","rejected":"c","score_chosen":8,"score_rejected":3}\n',
        ),
        late=True,
    ),
]

STEPS = [
    recipe("seed negative", "train.seed=-1", "train.seed", "from 0"),
    recipe("seed too large", "train.seed=4294967296", "train.seed", "4294967295"),
    recipe("seed fraction", "train.seed=1.5", "train.seed", "whole number"),
    recipe("data seed negative", "data.seed=-1", "data.seed", "greater than or equal to 0"),
    recipe("data_seed has another key", "train.data_seed=1", "train.data_seed", "data.seed"),
    recipe(
        "batch size zero",
        "train.per_device_train_batch_size=0",
        "train.per_device_train_batch_size",
        "from 1 to",
    ),
    recipe(
        "batch size negative",
        "train.per_device_train_batch_size=-1",
        "train.per_device_train_batch_size",
        "from 1 to",
    ),
    recipe(
        "batch size text",
        "train.per_device_train_batch_size=two",
        "train.per_device_train_batch_size",
        "whole number",
    ),
    recipe(
        "eval batch size zero",
        "train.per_device_eval_batch_size=0",
        "train.per_device_eval_batch_size",
        "from 1 to",
    ),
    recipe(
        "accumulation zero",
        "train.gradient_accumulation_steps=0",
        "train.gradient_accumulation_steps",
        "from 1 to",
    ),
    recipe(
        "accumulation negative",
        "train.gradient_accumulation_steps=-2",
        "train.gradient_accumulation_steps",
        "from 1 to",
    ),
    recipe(
        "epochs negative",
        "train.num_train_epochs=-1 train.max_steps=-1",
        "train.num_train_epochs",
        "larger than 0",
    ),
    recipe(
        "epochs zero",
        "train.num_train_epochs=0 train.max_steps=-1",
        "train.num_train_epochs",
        "larger than 0",
    ),
    recipe("epochs nan", "train.num_train_epochs=.nan", "train.num_train_epochs", "finite"),
    recipe(
        "epochs infinite", "train.num_train_epochs=.inf", "train.num_train_epochs", "finite number"
    ),
    recipe("max_steps zero", "train.max_steps=0", "train.max_steps", "-1"),
    recipe("max_steps negative", "train.max_steps=-2", "train.max_steps", "-1"),
    recipe(
        "workers negative",
        "train.dataloader_num_workers=-1",
        "train.dataloader_num_workers",
        "at least 0",
    ),
    recipe(
        "workers fraction",
        "train.dataloader_num_workers=1.5",
        "train.dataloader_num_workers",
        "whole number",
    ),
    recipe(
        "prefetch without workers",
        "train.dataloader_prefetch_factor=2",
        "train.dataloader_prefetch_factor",
        "dataloader_num_workers",
    ),
    recipe(
        "persistent without workers",
        "train.dataloader_persistent_workers=true",
        "train.dataloader_persistent_workers",
        "dataloader_num_workers",
    ),
    recipe(
        "save_steps zero",
        "train.save_strategy=steps train.save_steps=0",
        "train.save_steps",
        "at least 1",
    ),
    recipe(
        "save_steps fraction",
        "train.save_strategy=steps train.save_steps=1.5",
        "train.save_steps",
        "whole number",
    ),
    recipe(
        "save_strategy unknown",
        "train.save_strategy=sometimes",
        "train.save_strategy",
        "one of",
    ),
    recipe(
        "save_total_limit zero", "train.save_total_limit=0", "train.save_total_limit", "at least 1"
    ),
    recipe("logging_steps zero", "train.logging_steps=0", "train.logging_steps", "at least 1"),
    recipe("logging_steps negative", "train.logging_steps=-1", "train.logging_steps", "at least 1"),
    recipe(
        "eval_steps without evaluation", "train.eval_steps=5", "train.eval_steps", "eval_strategy"
    ),
    recipe(
        "evaluation without held-out rows",
        "train.eval_strategy=steps",
        "train.eval_strategy",
        "data.eval_fraction",
    ),
    recipe(
        "eval_on_start without held-out rows",
        "train.eval_on_start=true",
        "train.eval_on_start",
        "data.eval_fraction",
    ),
    recipe("eval_delay negative", "train.eval_delay=-1", "train.eval_delay", "0 or larger"),
    recipe(
        "best model, other strategy",
        "train.load_best_model_at_end=true train.save_strategy=epoch train.eval_strategy=steps "
        "data.eval_fraction=0.2",
        "train.load_best_model_at_end",
        "match",
    ),
    recipe(
        "best model between two saves",
        "train.load_best_model_at_end=true train.save_strategy=steps train.save_steps=3 "
        "train.eval_strategy=steps train.eval_steps=2 data.eval_fraction=0.3",
        "train.load_best_model_at_end",
        "such as 4",
    ),
    recipe(
        "best model, a share and a number",
        "train.load_best_model_at_end=true train.save_strategy=steps train.save_steps=3 "
        "train.eval_strategy=steps train.eval_steps=0.5 data.eval_fraction=0.3",
        "train.load_best_model_at_end",
        "such as 0.5",
    ),
    recipe(
        "best model without evaluation",
        "train.load_best_model_at_end=true",
        "train.load_best_model_at_end",
        "eval_strategy",
    ),
    recipe(
        "save_strategy best without a metric",
        "train.save_strategy=best train.eval_strategy=epoch data.eval_fraction=0.3",
        "train.metric_for_best_model",
        "for example to loss",
    ),
    recipe(
        "best model, unknown metric",
        "train.metric_for_best_model=rewards/accuracy train.eval_strategy=epoch "
        "data.eval_fraction=0.2",
        "train.metric_for_best_model",
        "did you mean 'rewards/accuracies'?",
    ),
    recipe("do_eval without strategy", "train.do_eval=true", "train.do_eval", "eval_strategy"),
]

DEVICES = [
    recipe("fp16 on a CPU", "train.fp16=true", "train.fp16", "needs a GPU"),
    recipe(
        "bf16 without a GPU",
        "train.bf16=true train.use_cpu=false",
        "train.bf16",
        "train.use_cpu=true",
        env={"CUDA_VISIBLE_DEVICES": "-1"},
    ),
    recipe("bf16 and fp16", "train.bf16=true train.fp16=true", "train.fp16", "one of the two"),
    recipe("tf32 on a CPU", "train.tf32=true", "train.tf32", "Remove it"),
    recipe("fsdp with one process", "train.fsdp=full_shard", "train.fsdp", "only process"),
    recipe(
        "fsdp_config without fsdp",
        ["train.fsdp_config={min_num_params: 1}"],
        "train.fsdp_config",
        "Set fsdp",
    ),
    recipe(
        "ddp_backend unknown", "train.ddp_backend=ncll", "train.ddp_backend", "did you mean 'nccl'?"
    ),
    recipe("ddp_timeout zero", "train.ddp_timeout=0", "train.ddp_timeout", "at least 1"),
    recipe(
        "checkpointing option unknown",
        [
            "train.activation_checkpointing=true",
            "train.activation_checkpointing_kwargs={use_reentrent: false}",
        ],
        "train.activation_checkpointing_kwargs.use_reentrent",
        "did you mean 'use_reentrant'?",
    ),
    recipe(
        "checkpointing options unused",
        ["train.activation_checkpointing_kwargs={preserve_rng_state: false}"],
        "train.activation_checkpointing_kwargs",
        "Set activation_checkpointing",
    ),
    recipe("torch_compile", "train.torch_compile=true", "train.torch_compile", "Remove it"),
    recipe(
        "accelerator_config split_batches",
        ["train.accelerator_config={split_batches: true}"],
        "train.accelerator_config.split_batches",
        "Remove it",
    ),
    recipe(
        "accelerator_config misspelled",
        ["train.accelerator_config={non_blockin: true}"],
        "train.accelerator_config.non_blockin",
        "did you mean 'non_blocking'?",
    ),
    recipe(
        "torch_empty_cache_steps zero",
        "train.torch_empty_cache_steps=0",
        "train.torch_empty_cache_steps",
        "at least 1",
    ),
    recipe("debug unknown", "train.debug=everything", "train.debug", "Use underflow_overflow, or"),
    recipe("debug for TPUs", "train.debug=tpu_metrics_debug", "train.debug", "or remove it"),
]

REFUSED = [
    recipe(f"refused {name}", f"train.{name}={value}", f"train.{name}", words)
    for name, value, words in (
        ("label_smoothing_factor", "0.1", "loss.label_smoothing"),
        ("neftune_noise_alpha", "5", "Remove it"),
        ("torch_compile", "true", "use_liger_kernel"),
        ("train_sampling_strategy", "group_by_length", "data.group_by_prompt"),
        ("dataloader_drop_last", "true", "Remove it"),
        ("auto_find_batch_size", "true", "train.memory: auto"),
        ("label_names", "[labels]", "Remove it"),
        ("include_for_metrics", "[inputs]", "Remove it"),
        ("batch_eval_metrics", "true", "Remove it"),
        ("eval_accumulation_steps", "2", "Remove it"),
        ("prediction_loss_only", "true", "Remove it"),
        ("bf16_full_eval", "true", "bf16 or fp16"),
        ("use_cache", "true", "Remove it"),
        ("average_tokens_across_devices", "false", "Remove it"),
        ("do_predict", "true", "unidpo-mm eval run"),
        ("local_rank", "0", "torchrun"),
        ("resume_from_checkpoint", "x", "run.resume"),
        ("group_by_length", "true", "data.group_by_prompt"),
        ("predict_with_generate", "true", "eval_generations"),
        ("past_index", "1", "Remove it"),
        ("jit_mode_eval", "true", "Remove it"),
        ("logging_dir", "logs", "TENSORBOARD_LOGGING_DIR"),
        ("overwrite_output_dir", "true", "run.resume=never"),
        ("evaluation_strategy", "steps", "eval_strategy"),
        ("hub_strategy", "never", "one of"),
        ("learning_rat", "1", "did you mean 'learning_rate'?"),
    )
]

PLACES = [
    recipe(
        "output_dir is a file",
        "train.output_dir=file",
        "train.output_dir",
        "'file' is a file",
        prepare=write("file"),
    ),
    recipe(
        "output_dir below a file",
        "train.output_dir=file/out",
        "train.output_dir",
        "is a file",
        prepare=write("file"),
    ),
    recipe(
        "output_dir read-only",
        "train.output_dir=/proc/unidpo-mm/out",
        "train.output_dir",
        "cannot be written to",
    ),
    recipe(
        "output_dir on a full disk",
        "train.output_dir=out",
        "train.output_dir",
        "free space",
        file_limit=3000,
    ),
    recipe("output_dir empty", "train.output_dir=''", "train.output_dir", "Use some text"),
    recipe("resume true", "run.resume=true", "run.resume", "Use auto"),
    recipe("resume false", "run.resume=false", "run.resume", "Use never"),
    recipe("output_dir true", "train.output_dir=true", "train.output_dir", "a directory"),
    recipe("images false", "data.sources.0.images=false", "data.sources.0.images", "or null"),
    recipe("model true", "model.name_or_path=true", "model.name_or_path", "hub name"),
    recipe(
        "benchmarks every 0 steps",
        ["run.callbacks={benchmarks: {every: 0, data: WORLD}}"],
        "run.callbacks.benchmarks.every",
        "found the number 0. Use a value greater than or equal to 1",
    ),
    recipe(
        "benchmarks without data",
        ["run.callbacks={benchmarks: {}}"],
        "run.callbacks.benchmarks.data",
        "'data' is missing. Add it",
    ),
    recipe(
        "benchmarks key misspelled",
        ["run.callbacks={benchmarks: {data: WORLD, evrey: 5}}"],
        "run.callbacks.benchmarks.evrey",
        "did you mean 'every'?",
    ),
    recipe(
        "benchmarks style and fraction",
        ["run.callbacks={benchmarks: {data: WORLD, style: chatml, clusters: 1.5}}"],
        "Use one of auto, chat, raw",
        "Use a whole number",
    ),
    recipe("resume from nowhere", "run.resume=absent", "run.resume", "'absent' does not exist"),
    recipe(
        "resume from a file",
        "run.resume=file",
        "run.resume",
        "directory of a checkpoint",
        prepare=write("file"),
    ),
    recipe("resume from a model", "run.resume=WORLD/model", "run.resume", "trainer_state.json"),
    recipe(
        "masked token", "model.init_kwargs.token='***'", "model.init_kwargs.token", "Set it again"
    ),
    recipe(
        "model missing",
        "model.name_or_path=absent",
        "model.name_or_path",
        "Use a directory",
    ),
    recipe(
        "model is a file",
        "model.name_or_path=WORLD/pairs.jsonl",
        "model.name_or_path",
        "Use the directory that contains it",
    ),
    recipe(
        "model without config",
        "model.name_or_path=empty",
        "model.name_or_path",
        "config.json",
        prepare=directory("empty"),
    ),
    recipe(
        "model config broken",
        "model.name_or_path=broken",
        "model.name_or_path",
        "broken",
        prepare=write("broken/config.json", "{"),
        late=True,
    ),
    recipe(
        "model type unknown",
        "model.name_or_path=strange",
        "model.name_or_path",
        "strange",
        prepare=write("strange/config.json", '{"model_type": "strange"}'),
        late=True,
    ),
    recipe(
        "model on a hub that cannot be reached",
        "model.name_or_path=org/absent-model",
        "model.name_or_path",
        "existing directory",
        late=True,
    ),
    recipe(
        "data missing", "data.sources.0.path=absent.jsonl", "data.sources.0.path", "absent.jsonl"
    ),
    recipe(
        "data directory empty",
        "data.sources.0.path=empty",
        "data.sources.0.path",
        "is empty",
        prepare=directory("empty"),
    ),
    recipe("images missing", "data.sources.0.images=absent", "data.sources.0.images", "absent"),
    recipe(
        "images is a file",
        "data.sources.0.images=WORLD/pairs.jsonl",
        "data.sources.0.images",
        "is not a directory",
    ),
    recipe("format unknown", "data.sources.0.format=alpaka", "format", "alpaca", late=True),
    recipe(
        "data file empty",
        "data.sources.0.path=none.jsonl",
        "none.jsonl",
        prepare=write("none.jsonl"),
        late=True,
    ),
    recipe(
        "data not JSON",
        "data.sources.0.path=bad.jsonl",
        "bad.jsonl",
        prepare=write("bad.jsonl", "{"),
        late=True,
    ),
    recipe("columns map nothing", ["data.sources.0.columns={chosen: good}"], "good", late=True),
]

MODEL_AND_DATA = [
    recipe("dtype unknown", "model.dtype=int8", "model.dtype", "one of"),
    recipe(
        "adapter unknown",
        "model.adapter=llavva",
        "model.adapter",
        "did you mean 'llava'?",
        late=True,
    ),
    recipe("layout unknown", "model.layout=packt", "model.layout", "did you mean 'packed'?"),
    recipe("prompt_style unknown", "model.prompt_style=chatml", "model.prompt_style", "one of"),
    recipe("freeze unknown part", "model.freeze=[tower]", "freeze", "tower", late=True),
    recipe("lora rank zero", ["model.lora={r: 0}"], "model.lora.r", "greater than or equal to 1"),
    recipe("lora dropout one", ["model.lora={dropout: 1.0}"], "model.lora.dropout", "less than 1"),
    recipe("lora key misspelled", ["model.lora={rank: 8}"], "model.lora.rank", "keys of"),
    # to be seen again once LoRA targets are checked by name: owner of LoRA targets
    recipe(
        "lora targets match nothing",
        ["model.lora={targets: [absent_proj]}"],
        "absent_proj",
        **LATE,
    ),
    recipe(
        "image pixels reversed",
        "model.image_min_size=9 model.image_max_size=4",
        "model.image_min_size",
        "not larger than the maximum",
    ),
    recipe(
        "image pixels zero",
        "model.image_max_size=0",
        "model.image_max_size",
        "a number, 1 or more",
    ),
    recipe("max_length zero", "data.max_length=0", "data.max_length", "greater than or equal to 1"),
    recipe("max_length too short for prompts", "data.max_length=1", "max_length", late=True),
    recipe("eval_fraction one", "data.eval_fraction=1.0", "data.eval_fraction", "less than 1"),
    recipe(
        "eval_fraction negative",
        "data.eval_fraction=-0.1",
        "data.eval_fraction",
        "greater than or equal to 0",
    ),
    recipe(
        "score_scale reversed", "data.score_scale=[10,0]", "data.score_scale", "below its upper end"
    ),
    recipe("score_scale of one number", "data.score_scale=[10]", "data.score_scale", "two numbers"),
    recipe(
        "source scale reversed",
        ["data.sources.0.scores={scale: [5, 0]}"],
        "data.sources.0.scores.scale",
        "below its upper end",
    ),
    recipe(
        "missing scores above one",
        ["data.sources.0.scores={missing: 2}"],
        "data.sources.0.scores.missing",
        "less than or equal to 1",
    ),
    recipe(
        "skipped fraction one",
        "data.images.max_skipped_fraction=1",
        "data.images.max_skipped_fraction",
        "less than 1",
    ),
    recipe(
        "image limit zero",
        "data.images.max_pixels=0",
        "data.images.max_pixels",
        "greater than or equal to 1",
    ),
    recipe(
        "feature cache negative",
        "data.feature_cache_gb=-1",
        "data.feature_cache_gb",
        "greater than or equal to 0",
    ),
    recipe("length_policy unknown", "data.length_policy=cut", "data.length_policy", "one of"),
    recipe(
        "pair_weighting unknown", "data.pair_weighting=prompt", "data.pair_weighting", "Use one of"
    ),
    recipe("no sources", "data.sources=[]", "data.sources", "at least 1"),
    recipe(
        "domain unknown",
        "data.sources.0.domain=maths",
        "data.sources.0.domain",
        "did you mean 'math'?",
    ),
    recipe("reference none", "train.reference=none", "train.reference", "auto", **LATE),
    recipe(
        "reference lora_off without LoRA",
        "train.reference=lora_off",
        "train.reference",
        "model.lora",
        **LATE,
    ),
    recipe("memory text", "train.memory=lots", "train.memory", "auto"),
    recipe("memory negative", "train.memory=-1", "train.memory", "Use auto, or gigabytes"),
    recipe(
        "learning_rates unknown part",
        ["train.learning_rates={projektor: 1e-3}"],
        "learning_rates",
        "projektor",
        late=True,
    ),
    recipe(
        "eval_generations negative",
        "train.eval_generations=-1",
        "train.eval_generations",
        "greater than or equal to 0",
    ),
]

LOSSES = [
    recipe("loss unknown", "loss.name=dpoo", "loss.name", "did you mean 'dpo'?"),
    recipe(
        "loss without pairs",
        "loss.name=kto train.image_preference={view: crop}",
        "train.image_preference",
        "has no pairs",
    ),
    recipe("beta negative", "loss.beta=-1", "loss.beta", "> 0"),
    recipe("beta infinite", "loss.beta=.inf", "loss.beta", "finite"),
    recipe("beta text", "loss.beta=high", "loss.beta", "Use a number"),
    recipe("parameter of another loss", "loss.gamma=3", "loss.gamma", "Choose from beta"),
    recipe(
        "switched loss, own parameter",
        "loss.name=simpo loss.tau_good=3",
        "loss.tau_good",
        "'simpo' has",
    ),
    recipe("loss file missing", "loss.name=./absent.py", "loss.name", "does not exist"),
    recipe(
        "loss file with a mistake",
        "loss.name=HERE/bad_loss.py",
        "loss.name",
        "line 1",
        prepare=write("bad_loss.py", "LOSS = ("),
    ),
    recipe(
        "loss file that raises",
        "loss.name=HERE/bad_loss.py",
        "loss.name",
        "NameError",
        prepare=write("bad_loss.py", "LOSS = absent"),
    ),
    recipe(
        "loss file without a loss",
        "loss.name=HERE/bad_loss.py",
        "loss.name",
        "docs/losses.md",
        prepare=write("bad_loss.py", "x = 1"),
    ),
]

TEXTS = [
    text("empty file", "", "'model' is missing", "'data' is missing"),
    text("a list", "- a\n- b\n", "the file is not a mapping with sections", "Start with 'model:'"),
    text(
        "a single word",
        "recipe\n",
        "the file is not a mapping with sections",
        "Start with 'model:'",
    ),
    text("duplicate key", RECIPE + "loss: {name: dpo}\n", "key 'loss'", "Remove one of the two"),
    text(
        "duplicate inner key",
        RECIPE.replace("{name: dpo}", "{name: dpo, name: ipo}"),
        "key 'loss.name'",
        "Remove one of the two",
    ),
    text("tab indentation", "model:\n\tname_or_path: x\n", "not valid YAML", "indentation"),
    text("bracket not closed", RECIPE + "run: {resume: auto\n", "not valid YAML", "brackets"),
    text("UTF-16", RECIPE.encode("utf-16"), "UTF-8", "YAML"),
    text("Latin-1", b"model: {name_or_path: na\xefve}\n", "UTF-8", "YAML"),
    text("binary file", bytes(range(256)), "recipe.yaml", "YAML"),
    text("control character", "model: {name_or_path: 'a\x00b'}\n", "recipe.yaml", "YAML"),
    text("unknown section", RECIPE + "optimizer: {lr: 1}\n", "optimizer", "model"),
    text(
        "section is a text", RECIPE.replace("{name: dpo}", "dpo"), "key 'loss'", "section with keys"
    ),
    text(
        "section is a list",
        RECIPE.replace("{name: dpo}", "[dpo]"),
        "key 'loss'",
        "section with keys",
    ),
    text("None for null", RECIPE.replace("{name: dpo}", "None"), "key 'loss'", "Use null"),
    text(
        "model missing from file", "data: {sources: [{path: x}]}\n", "'model' is missing", "Add it"
    ),
    text("data missing from file", "model: {name_or_path: x}\n", "'data' is missing", "Add it"),
    text(
        "key in the wrong section",
        RECIPE.replace("{name: dpo}", "{name: dpo, max_length: 5}"),
        "max_length",
        "loss",
    ),
    text("key is a number", RECIPE + "1: x\n", "'1'", "quotes"),
    text(
        "alias of itself", "model: &a\n  name_or_path: *a\n", "alias", "Replace it with its value"
    ),
    text("Python tag", "model: !!python/object:os.system {}\n", "tag", "Remove it"),
    text("two documents", RECIPE + "---\nmodel: {}\n", "recipe.yaml", "document"),
    text("a sweep", "recipe: x\narms: {a: []}\nseeds: [0]\n", "arms", "recipe"),
]

COMMANDS = [
    command("train without a recipe", "train", "Missing argument 'RECIPE'", "for help"),
    command("train absent recipe", "train absent.yaml", "absent.yaml", "Choose one of"),
    command("train a directory", "train WORLD/model", "model", "YAML"),
    command("train unknown option", "train WORLD/recipe.yaml --dry", "--dry", "for help"),
    command("override without a section", "train WORLD/recipe.yaml beta=1", "beta"),
    command(
        "override without a value",
        "train WORLD/recipe.yaml train.learning_rate",
        "override 'train.learning_rate'",
        "train.learning_rate=1e-6",
    ),
    command(
        "override with an empty part",
        "train WORLD/recipe.yaml train..x=1",
        "override 'train..x=1'",
        "section.key=value",
    ),
    command(
        "override beyond a list",
        "train WORLD/recipe.yaml data.sources.5.path=x",
        "data.sources",
        "0, or 1 to add an item",
    ),
    command("override into a value", "train WORLD/recipe.yaml train.seed.x=1", "train.seed.x=1"),
    command(
        "override of an unknown section",
        "train WORLD/recipe.yaml trian.seed=1",
        "trian",
        "did you mean 'train'?",
    ),
    command(
        "override that is not YAML",
        "train WORLD/recipe.yaml train.report_to=[a",
        "override 'train.report_to=[a'",
        "brackets",
    ),
    command("unknown command", "trian", "trian", "for help"),
    command("sweep without a file", "sweep", "SWEEP", "for help"),
    command("sweep absent file", "sweep absent.yaml", "absent.yaml", "Choose one of"),
    command("sweep of a recipe", "sweep WORLD/recipe.yaml", "recipe.yaml", "arms"),
    command(
        "sweep seeds not numbers",
        "sweep HERE/sweep.yaml --seeds a,b",
        "--seeds",
        "0,1,2",
        prepare=write(
            "sweep.yaml", "recipe: WORLD/recipe.yaml\nseeds: [0]\narms: {a: [loss.beta=1.0]}\n"
        ),
    ),
    command(
        "sweep seeds negative",
        "sweep HERE/sweep.yaml",
        "seeds",
        "greater than or equal to 0",
        prepare=write(
            "sweep.yaml", "recipe: WORLD/recipe.yaml\nseeds: [-1]\narms: {a: [loss.beta=1.0]}\n"
        ),
    ),
    command(
        "sweep arm with a wrong parameter",
        "sweep HERE/sweep.yaml",
        "arm 'a'",
        "did you mean 'beta'?",
        prepare=write(
            "sweep.yaml", "recipe: WORLD/recipe.yaml\nseeds: [0]\narms: {a: [loss.betta=1.0]}\n"
        ),
    ),
    command(
        "sweep arm with a bad range",
        "sweep HERE/sweep.yaml",
        "arm 'a'",
        "train.learning_rate",
        prepare=write(
            "sweep.yaml",
            "recipe: WORLD/recipe.yaml\nseeds: [0]\narms: {a: [train.learning_rate=-1]}\n",
        ),
    ),
    command(
        "sweep arm with a package that is missing",
        "sweep HERE/sweep.yaml",
        "arm 'a'",
        "pip install wandb",
        prepare=write(
            "sweep.yaml",
            "recipe: WORLD/recipe.yaml\nseeds: [0]\narms: {a: [train.report_to=wandb]}\n",
        ),
    ),
    command(
        "sweep with nothing held out",
        "sweep HERE/sweep.yaml",
        "data.eval_fraction",
        prepare=write(
            "sweep.yaml", "recipe: WORLD/recipe.yaml\nseeds: [0]\narms: {a: [loss.beta=1.0]}\n"
        ),
    ),
    command(
        "sweep runner unknown",
        "sweep HERE/sweep.yaml",
        "runner",
        "Use one of",
        prepare=write(
            "sweep.yaml",
            "recipe: WORLD/recipe.yaml\nrunner: x\nseeds: [0]\narms: {a: [loss.beta=1.0]}\n",
        ),
    ),
    command(
        "sweep of an absent recipe",
        "sweep HERE/sweep.yaml",
        "absent.yaml",
        prepare=write(
            "sweep.yaml", "recipe: absent.yaml\nseeds: [0]\narms: {a: [loss.beta=1.0]}\n"
        ),
    ),
    command(
        "sweep output is a file",
        "sweep HERE/sweep.yaml --output HERE/sweep.yaml",
        "--output",
        "is a file",
        prepare=write(
            "sweep.yaml",
            "recipe: WORLD/recipe.yaml\nseeds: [0]\narms: {a: [data.eval_fraction=0.5]}\n",
        ),
    ),
    command("migrate without a file", "migrate", "CONFIG", "for help"),
    command("migrate absent file", "migrate absent.yaml", "absent.yaml"),
    command("migrate a directory", "migrate WORLD/model", "model"),
    command(
        "migrate broken YAML", "migrate HERE/x.yaml", "x.yaml", prepare=write("x.yaml", "a: [")
    ),
    command("migrate an empty file", "migrate HERE/x.yaml", "x.yaml", prepare=write("x.yaml")),
    command("migrate a list", "migrate HERE/x.yaml", "x.yaml", prepare=write("x.yaml", "- a\n")),
    command(
        "migrate onto a file",
        "migrate WORLD/factory.yaml --output WORLD/recipe.yaml",
        "--output",
        "recipe.yaml",
    ),
    command(
        "migrate into an absent directory",
        "migrate WORLD/factory.yaml --output absent/recipe.yaml",
        "--output",
        "absent",
    ),
    command("list nothing", "list", "for help"),
    command("list unknown", "list optimizers", "optimizers", "models"),
    command("data without a subcommand's source", "data check", "SOURCE", "for help"),
    command("data check absent file", "data check absent.jsonl", "absent.jsonl"),
    command(
        "data check scale reversed", "data check WORLD/pairs.jsonl --scale 10,0", "--scale", "0,10"
    ),
    command(
        "data check scale text", "data check WORLD/pairs.jsonl --scale high", "--scale", "0,10"
    ),
    command(
        "data check column form",
        "data check WORLD/pairs.jsonl --column foo",
        "--column",
        "prompt=question",
    ),
    command(
        "data check unknown loss",
        "data check WORLD/pairs.jsonl --loss dpoo",
        "dpoo",
        "did you mean 'dpo'?",
    ),
    command(
        "data check report nowhere",
        "data check WORLD/pairs.jsonl --json absent/x.json",
        "--json",
        "absent",
    ),
    command(
        "data check report over its source",
        "data check WORLD/pairs.jsonl --json WORLD/pairs.jsonl",
        "--json",
        "input file",
    ),
    command(
        "data check rows negative",
        "data check WORLD/pairs.jsonl --weight-rows -1",
        "--weight-rows",
        "0",
    ),
    command(
        "data preview without a model", "data preview WORLD/pairs.jsonl", "--model", "for help"
    ),
    command(
        "data preview no rows",
        "data preview WORLD/pairs.jsonl --model WORLD/model --limit 0",
        "--limit",
        "1",
    ),
    command(
        "data preview beyond the end",
        "data preview WORLD/pairs.jsonl --model WORLD/model --start 99",
        "--start",
        "8 rows",
    ),
    command("data preview absent model", "data preview WORLD/pairs.jsonl --model absent", "absent"),
    command("data convert without out", "data convert WORLD/pairs.jsonl", "--output", "for help"),
    command(
        "data convert onto a file",
        "data convert WORLD/pairs.jsonl --output WORLD/pairs.jsonl",
        "--output",
    ),
    command(
        "data convert into a directory",
        "data convert WORLD/pairs.jsonl --output WORLD/model",
        "--output",
    ),
    command(
        "data convert unknown format",
        "data convert WORLD/pairs.jsonl --output x.jsonl --to csv",
        "--to",
        "native",
    ),
    command("cache unknown command", "cache clean", "clean", "for help"),
    command("cache prune negative", "cache prune --days -1", "--days"),
    command(
        "cache info of a file",
        "cache info --directory WORLD/pairs.jsonl",
        "--directory",
        "pairs.jsonl",
    ),
    command(
        "cache verify of an absent directory",
        "cache verify --directory absent",
        "--directory",
        "absent",
    ),
    command(
        "cache prune of a file",
        "cache prune --directory WORLD/pairs.jsonl",
        "--directory",
        "pairs.jsonl",
    ),
    command("eval unknown command", "eval rum", "rum", "for help"),
    command("eval run without data", "eval run WORLD/model", "--data", "for help"),
    command(
        "eval run unknown benchmark",
        "eval run WORLD/model --data WORLD --output HERE/o -b poope",
        "poope",
    ),
    command(
        "eval score absent file",
        "eval score -b pope --data absent.jsonl --predictions absent.jsonl --output HERE/o",
        "absent.jsonl",
    ),
    command("eval compare absent files", "eval compare absent.json other.json", "absent.json"),
    command("demo unknown option", "demo --fast-forward", "--fast-forward", "for help"),
]

ENVIRONMENTS = [
    environment("WORLD_SIZE alone", {"WORLD_SIZE": "2"}, "WORLD_SIZE", "MASTER_ADDR", "torchrun"),
    environment(
        "WORLD_SIZE without address",
        {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"},
        "WORLD_SIZE",
        "MASTER_ADDR",
    ),
    environment("WORLD_SIZE text", {"WORLD_SIZE": "two"}, "WORLD_SIZE", "whole number"),
    environment("WORLD_SIZE zero", {"WORLD_SIZE": "0"}, "WORLD_SIZE", "unset"),
    environment(
        "RANK out of range",
        {
            "WORLD_SIZE": "2",
            "RANK": "2",
            "LOCAL_RANK": "0",
            "MASTER_ADDR": "localhost",
            "MASTER_PORT": "1",
        },
        "RANK",
        "from 0 to 1",
    ),
    environment("RANK negative", {"WORLD_SIZE": "1", "RANK": "-1"}, "RANK", "from 0 to 0"),
    environment("RANK alone", {"RANK": "1"}, "RANK", "WORLD_SIZE"),
    environment(
        "LOCAL_RANK out of range",
        {"LOCAL_WORLD_SIZE": "2", "LOCAL_RANK": "5"},
        "LOCAL_RANK",
        "from 0 to 1",
    ),
    environment(
        "LOCAL_WORLD_SIZE too large",
        {"WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "4"},
        "LOCAL_WORLD_SIZE",
        "larger than",
    ),
    environment("MASTER_PORT text", {"MASTER_PORT": "auto"}, "MASTER_PORT", "whole number"),
    environment("MASTER_PORT too large", {"MASTER_PORT": "99999"}, "MASTER_PORT", "65535"),
    environment(
        "accelerate --cpu --num_processes 2",
        {
            "ACCELERATE_MIXED_PRECISION": "no",
            "ACCELERATE_USE_CPU": "True",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": "29500",
        },
        "accelerate launch --num_processes",
        "configs/accelerate/ddp_cpu.yaml",
    ),
    environment(
        "ACCELERATE_USE_CPU text",
        {"ACCELERATE_USE_CPU": "perhaps"},
        "ACCELERATE_USE_CPU",
        "true nor false",
    ),
    environment(
        "ACCELERATE_USE_FSDP, one process",
        {"ACCELERATE_USE_FSDP": "true"},
        "ACCELERATE_USE_FSDP",
        "only process",
    ),
    environment(
        "ACCELERATE_USE_FSDP on CPUs",
        {
            "ACCELERATE_USE_FSDP": "true",
            "WORLD_SIZE": "2",
            "RANK": "0",
            "LOCAL_RANK": "0",
            "MASTER_ADDR": "localhost",
            "MASTER_PORT": "1",
        },
        "ACCELERATE_USE_FSDP",
        "uses the CPU",
    ),
    environment(
        "ACCELERATE_USE_DEEPSPEED",
        {"ACCELERATE_USE_DEEPSPEED": "true"},
        "ACCELERATE_USE_DEEPSPEED",
        "pip install deepspeed",
    ),
    environment(
        "ACCELERATE_USE_MEGATRON_LM",
        {"ACCELERATE_USE_MEGATRON_LM": "true"},
        "ACCELERATE_USE_MEGATRON_LM",
        "fsdp2.yaml",
    ),
    environment(
        "mixed precision of the launcher",
        {"ACCELERATE_MIXED_PRECISION": "bf16"},
        "ACCELERATE_MIXED_PRECISION",
        "train.bf16=true",
    ),
    environment(
        "mixed precision in 8 bits",
        {"ACCELERATE_MIXED_PRECISION": "fp8"},
        "ACCELERATE_MIXED_PRECISION",
        "bf16",
    ),
    environment(
        "mixed precision unknown",
        {"ACCELERATE_MIXED_PRECISION": "int4"},
        "ACCELERATE_MIXED_PRECISION",
        "Use one of",
    ),
    environment(
        "accumulation of the launcher",
        {"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4"},
        "ACCELERATE_GRADIENT_ACCUMULATION_STEPS",
        "train.gradient_accumulation_steps",
    ),
    environment(
        "compilation by the launcher",
        {"ACCELERATE_DYNAMO_BACKEND": "INDUCTOR"},
        "ACCELERATE_DYNAMO_BACKEND",
        "Remove",
    ),
    environment(
        "CUDA_VISIBLE_DEVICES text", {"CUDA_VISIBLE_DEVICES": "abc"}, "CUDA_VISIBLE_DEVICES", "0,1"
    ),
    environment(
        "CUDA_VISIBLE_DEVICES twice",
        {"CUDA_VISIBLE_DEVICES": "0,0"},
        "CUDA_VISIBLE_DEVICES",
        "once",
    ),
    environment("HF_HOME is a file", {"HF_HOME": "WORLD/pairs.jsonl"}, "HF_HOME", "is a file"),
    environment(
        "HF_HOME unwritable", {"HF_HOME": "/proc/unidpo-mm"}, "HF_HOME", "cannot be written to"
    ),
    environment(
        "UNIDPO_MM_CACHE is a file",
        {"UNIDPO_MM_CACHE": "WORLD/pairs.jsonl"},
        "UNIDPO_MM_CACHE",
        "is a file",
    ),
    environment(
        "UNIDPO_MM_CACHE unwritable",
        {"UNIDPO_MM_CACHE": "/proc/unidpo-mm"},
        "UNIDPO_MM_CACHE",
        "cannot be written to",
    ),
    environment(
        "HOME is not a directory",
        {"HOME": "/dev/null"},
        "HOME",
        "UNIDPO_MM_CACHE",
        overrides="train.reference=cached",
    ),
    environment("TMPDIR missing", {"TMPDIR": "/absent"}, "TMPDIR", "does not exist"),
    environment(
        "TMPDIR is a file", {"TMPDIR": "WORLD/pairs.jsonl"}, "TMPDIR", "is not a directory"
    ),
    environment("OMP_NUM_THREADS zero", {"OMP_NUM_THREADS": "0"}, "OMP_NUM_THREADS", "at least 1"),
    environment(
        "OMP_NUM_THREADS text", {"OMP_NUM_THREADS": "all"}, "OMP_NUM_THREADS", "at least 1"
    ),
    environment("HF_ENDPOINT is not a URL", {"HF_ENDPOINT": "mirror"}, "HF_ENDPOINT", "URL"),
]

CASES: tuple[Case, ...] = (
    *PACKAGES,
    *OPTIMIZER,
    *NUMBERS,
    *STEPS,
    *DEVICES,
    *REFUSED,
    *PLACES,
    *MODEL_AND_DATA,
    *LOSSES,
    *TEXTS,
    *COMMANDS,
    *ENVIRONMENTS,
)


def make_world(folder: Path) -> Path:
    """Write a tiny model, eight pairs and the recipe that all cases modify."""
    from unidpo_mm.plugins import load_family

    load_family("text").tiny(folder / "model", model_type="llama")
    rows = [
        {"prompt": f"What is {n}?", "chosen": "Seven " + "x" * n, "rejected": "Eight"}
        for n in range(8)
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "pairs.jsonl").write_text(lines, encoding="utf-8")
    (folder / "recipe.yaml").write_text(RECIPE.replace("WORLD", str(folder)), encoding="utf-8")
    (folder / "factory.yaml").write_text(
        "model_name_or_path: a/b\nstage: dpo\ndataset: pairs\ntemplate: default\n", encoding="utf-8"
    )
    return folder


def preload() -> None:
    """Import what most cases need, so that children start with it."""
    import peft  # noqa: F401
    import transformers  # noqa: F401

    import unidpo_mm.training.run  # noqa: F401


def run_case(case: Case, world: Path) -> Finished:
    """Run a case in a new directory."""
    here = Path(tempfile.mkdtemp(prefix="bad-input-"))
    try:
        if case.text is not None:
            content = case.text.replace(b"WORLD", str(world).encode())
            (here / "recipe.yaml").write_bytes(content)
        if case.prepare is not None:
            case.prepare(here, world)
        places = {"WORLD": str(world), "HERE": str(here)}

        def placed(value: str) -> str:
            for name, path in places.items():
                value = value.replace(name, path) if not value.startswith(f"{name}_") else value
            return value

        arguments = [placed(word) for word in case.arguments]

        def run() -> None:
            from unidpo_mm.cli.main import main

            if case.file_limit is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (case.file_limit, case.file_limit))
            sys.argv = ["unidpo-mm", *arguments]
            main()

        env: dict[str, str | None] = dict.fromkeys(LAUNCHER)
        env |= {"HF_HUB_OFFLINE": "1", "COLUMNS": "200", "NO_COLOR": "1"}
        env |= {name: None if value is None else placed(value) for name, value in case.env.items()}
        return run_forked(run, env=env, cwd=here, timeout=60)
    finally:
        shutil.rmtree(here, ignore_errors=True)


def verdict_of(case: Case, done: Finished) -> str:
    """Return ``ok``, or a description of the problem with the end of a case."""
    output = done.output
    if done.timed_out:
        return "exceeded the time limit"
    if done.signal is not None:
        return f"ended by signal {done.signal}"
    if "Traceback (most recent call last)" in output:
        return "a traceback"
    if done.code != case.code:
        return f"exit code {done.code} instead of {case.code}"
    missing = [words for words in case.expects if words not in " ".join(output.split())]
    if missing:
        return f"the message lacks {missing[0]!r}"
    headlines = [line for line in output.splitlines() if line.lower().startswith("error: ")]
    if case.code == 2 and len(headlines) != 1:
        return f"{len(headlines)} messages instead of one"
    if not case.late and any(words in output for words in STARTED):
        return "only detected after the model was loaded"
    return "ok"


def compare_commands(case: Case, world: Path) -> str:
    """Return ``ok`` if `data check` and `train --dry-run` report the same, or the difference."""
    recipe, *overrides = case.arguments[1:]
    by_check = replace(case, arguments=("data", "check", recipe, *overrides))
    by_train = replace(case, arguments=("train", recipe, *overrides, "--dry-run"))
    done, other = run_case(by_check, world), run_case(by_train, world)
    if done.code != other.code:
        return f"data check exits with {done.code}, train --dry-run with {other.code}"
    problems, others = problems_of(done, case), problems_of(other, case)
    if problems != others or not problems:
        return f"data check: {sorted(problems)}; train --dry-run: {sorted(others)}"
    return "ok"


def problems_of(done: Finished, case: Case) -> set[str]:
    """Return the problems that a command printed, without the name of its temporary directory."""
    text = re.sub(r"/\S*/bad-input-[^/' ]*", "HERE", done.stderr)
    text = text[text.find("error: ") :] if "error: " in text else ""
    several = re.findall(r"^  - (.*)$", text, flags=re.MULTILINE)
    return set(several or [line for line in text.splitlines()[:1] if line])


def run_all(cases: Sequence[Case] = CASES) -> tuple[list[Row], list[Row]]:
    """Run cases and return all rows, and the rows that failed."""
    preload()
    with tempfile.TemporaryDirectory() as folder:
        world = make_world(Path(folder))
        rows = list(_rows(cases, world))
    return rows, [row for row in rows if row.verdict != "ok"]


def compare_all(cases: Sequence[Case] = CASES) -> tuple[int, dict[str, str]]:
    """Compare `data check` and `train --dry-run` on the recipes among some cases.

    Returns:
        The number of compared recipes, and name -> difference for those that differ.
    """
    preload()
    compared = [case for case in cases if case.in_both_commands]
    with tempfile.TemporaryDirectory() as folder:
        world = make_world(Path(folder))
        verdicts = {case.name: compare_commands(case, world) for case in compared}
    return len(compared), {name: text for name, text in verdicts.items() if text != "ok"}


def _rows(cases: Sequence[Case], world: Path) -> Iterator[Row]:
    for case in cases:
        done = run_case(case, world)
        message = done.stderr.strip() or done.stdout.strip()
        yield Row(case.name, case.kind, done.code, verdict_of(case, done), message, done.seconds)


def table(rows: Sequence[Row]) -> str:
    """Return the rows as lines of text: name, kind, exit code, verdict."""
    width = max(len(row.name) for row in rows)
    lines = [f"{row.name:<{width}}  {row.kind:<11}  {row.code!s:>4}  {row.verdict}" for row in rows]
    good = sum(row.verdict == "ok" for row in rows)
    return "\n".join([*lines, f"{good} of {len(rows)} bad inputs end with one clear message"])


if __name__ == "__main__":
    part = sys.argv[1] if len(sys.argv) > 1 else ""
    rows, failures = run_all([case for case in CASES if part in case.name])
    sys.stdout.write(table(rows) + "\n")
    for failure in failures:
        sys.stdout.write(f"\n--- {failure.name}: {failure.verdict}\n{failure.message[-1500:]}\n")
    sys.exit(bool(failures))

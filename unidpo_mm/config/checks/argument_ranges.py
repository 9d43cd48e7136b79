"""Check the ranges of training arguments, alone and in combination.

transformers checks only a few of them: it accepts a batch size of -1 and an infinite learning rate.
"""

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...encoding_choices import parse_image_size
from ...errors import Problem, counted
from ...plugins import suggestion
from ..problems import describe
from ..values import MAX_RATE

__all__ = [
    "loss_range_problems",
    "range_problems",
    "warmup_problem",
]

MAX_SEED = 2**32 - 1
"""Largest seed that NumPy accepts."""

BACKENDS = ("nccl", "gloo", "mpi", "xccl", "hccl", "cncl", "mccl", "tccl", "ccl", "ucc")
"""Backends of torch.distributed."""

CHECKPOINTING_OPTIONS = (
    "use_reentrant preserve_rng_state determinism_check debug early_stop context_fn "
    "every_n_layers offload"
).split()
"""Options of torch.utils.checkpoint and of transformers' activation checkpointing."""

LOADER_DEFAULTS = {
    "split_batches": (False, None),
    "dispatch_batches": (False, None),
    "even_batches": (False, True, None),
    "use_seedable_sampler": (True, None),
}
"""Option of `accelerator_config` that only affects accelerate's data loading -> accepted values."""

LOADER_OPTIONS = (
    *LOADER_DEFAULTS,
    "non_blocking",
    "gradient_accumulation_kwargs",
    "use_configured_state",
    "data_seed",
)
"""All options of `accelerator_config`."""

MAX_EPOCHS = 100_000
MAX_STEPS = 1_000_000_000
MAX_PER_STEP = 1_000_000
"""Largest batch size and largest number of accumulated micro-batches."""

MAX_LOSS_PARAMETER = 1e6

DEBUG_OPTIONS = ("underflow_overflow",)
"""Options of `debug`; the others of transformers are for TPUs."""

LAYERWISE = ("galore", "apollo")
"""Prefixes of the optimizers that use `optim_target_modules`."""

Rule = tuple[Callable[[Any], bool], str]
"""The condition on a value, and the remedy if it does not hold."""

ProblemParts = Iterator[tuple[str, str, str]]
"""Argument, message and remedy of each problem."""


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number(holds: Callable[[float], bool], remedy: str) -> Rule:
    # false for infinity and NaN; `math.isfinite` raises OverflowError for integers this large
    limit = sys.float_info.max
    return lambda value: _is_number(value) and abs(value) <= limit and holds(value), remedy


def _whole(low: int, high: int | None = None) -> Rule:
    text = f"of at least {low}" if high is None else f"from {low} to {high}"
    return (
        lambda value: type(value) is int and low <= value and (high is None or value <= high),
        f"Use a whole number {text}",
    )


def _steps_or_share(value: float) -> bool:
    return 0 < value < 1 or (value >= 1 and value == int(value))


SHARE = _number(lambda value: 0 <= value < 1, "Use a number from 0 up to, but not including, 1")
INTERVAL = _number(
    _steps_or_share,
    "Use a whole number of steps of at least 1, or a share of all steps between 0 and 1",
)

RANGES: dict[str, Rule] = {
    "per_device_train_batch_size": _whole(1, MAX_PER_STEP),
    "per_device_eval_batch_size": _whole(1, MAX_PER_STEP),
    "gradient_accumulation_steps": _whole(1, MAX_PER_STEP),
    "num_train_epochs": _number(
        lambda value: 0 < value <= MAX_EPOCHS,
        f"Use a number larger than 0 and up to {MAX_EPOCHS}; set max_steps to limit the steps",
    ),
    "max_steps": (
        lambda value: value == -1 or _whole(1, MAX_STEPS)[0](value),
        f"Use a whole number from 1 to {MAX_STEPS}, or -1 to train for num_train_epochs",
    ),
    "learning_rate": _number(
        lambda value: 0 <= value <= MAX_RATE,
        f"Use a number from 0 to {MAX_RATE}; 1e-7 to 1e-4 are common",
    ),
    "warmup_steps": _number(
        lambda value: value == 0 or _steps_or_share(value),
        "Use a whole number of steps, or a share of all steps below 1",
    ),
    "weight_decay": _number(
        lambda value: 0 <= value <= 1000, "Use a number from 0 to 1000; 0 to 0.1 are common"
    ),
    "adam_beta1": SHARE,
    "adam_beta2": SHARE,
    "adam_epsilon": _number(
        lambda value: 1e-30 <= value <= 1, "Use a number from 1e-30 to 1, such as 1e-8"
    ),
    "max_grad_norm": _number(
        lambda value: value == 0 or value >= 1e-6,
        "Use a finite number of at least 1e-6, or 0 for no clipping",
    ),
    "logging_steps": INTERVAL,
    "eval_steps": INTERVAL,
    "save_steps": INTERVAL,
    "eval_delay": _number(lambda value: value >= 0, "Use a finite number, 0 or larger"),
    "save_total_limit": _whole(1),
    "seed": _whole(0, MAX_SEED),
    "data_seed": _whole(0, MAX_SEED),
    "dataloader_num_workers": _whole(0),
    "dataloader_prefetch_factor": _whole(1),
    "torch_empty_cache_steps": _whole(1),
    "ddp_timeout": _whole(1),
    "ddp_bucket_cap_mb": _whole(1),
}
"""Argument -> the condition on its value, and the remedy. `None` is always accepted."""


def loss_range_problems(values: Mapping[str, Any], *, where: str = "loss") -> list[Problem]:
    """Return a problem for each loss parameter that is too large or too small for float32.

    Args:
        values: Parameter -> value, of the type that the loss declares.
        where: Prefix of the parameter in each problem.
    """
    problems = []
    limit = MAX_LOSS_PARAMETER
    for name, value in values.items():
        # tau_good is on the scale of the scores; the loss itself checks values of 0 and below
        if not _is_number(value) or name == "tau_good" or value <= 0:
            continue
        holds, remedy = value <= limit, f"Use a number from -{limit:.0f} to {limit:.0f}"
        if name == "beta":
            holds = 1e-6 <= value <= 1e4
            remedy = "Use a number from 1e-6 to 10000; 0.01 to 10 are common"
        if not holds:
            problems.append(Problem(f"{where}.{name}", f"found {describe(value)}", remedy))
    return problems


def range_problems(
    values: Mapping[str, Any], defaults: Mapping[str, Any], *, prefix: str = ""
) -> list[Problem]:
    """Return the problems with the values of training arguments, alone and in combination.

    Args:
        values: Argument -> value.
        defaults: The values of arguments that are not in `values`.
        prefix: Prefix of the argument in each problem, for example ``train.``.
    """
    problems = []
    wrong = set()
    for name, (holds, remedy) in RANGES.items():
        value = values.get(name)
        if name in values and value is not None and not holds(value):
            wrong.add(name)
            problems.append(Problem(f"{prefix}{name}", f"found {describe(value)}", remedy))
    merged = {**defaults, **{name: value for name, value in values.items() if name not in wrong}}
    for name, text, remedy in _joint_problems(merged, set(values) - wrong):
        problems.append(Problem(f"{prefix}{name}", text, remedy))
    return problems


def _joint_problems(values: Mapping[str, Any], explicit: set[str]) -> ProblemParts:
    yield from _loading(values)
    yield from _rates(values)
    yield from _evaluation(values, explicit)
    yield from _best_model(values)
    yield from _checkpointing(values)
    yield from _distributed(values)
    if values.get("bf16") and values.get("fp16"):
        yield "fp16", "bf16 and fp16 are both true", "Set one of the two"
    targets, optim = values.get("optim_target_modules"), _word(values.get("optim", ""))
    if targets is not None and not optim.startswith(LAYERWISE):
        yield (
            "optim_target_modules",
            f"the optimizer '{optim}' does not use it",
            "Remove it, or choose a GaLore or APOLLO optimizer",
        )


def _rates(values: Mapping[str, Any]) -> ProblemParts:
    rates: dict[str, Any] = {"learning_rate": values.get("learning_rate")}
    by_part = values.get("learning_rates")
    for part, rate in (by_part if isinstance(by_part, Mapping) else {}).items():
        rates[f"learning_rates.{part}"] = rate
    decay: Any = values.get("weight_decay")
    for name, rate in rates.items():
        if _is_number(rate) and _is_number(decay) and rate <= MAX_RATE and rate * decay >= 1:
            text = f"with {name} {rate:g} every step would flip the sign of the weights"
            yield "weight_decay", text, f"Use a number below {1 / rate:g}, such as 0.01"
            break
    warmup: Any = values.get("warmup_steps")
    steps: Any = values.get("max_steps")
    if _is_number(warmup) and isinstance(steps, int) and 0 < steps < warmup:
        yield "warmup_steps", *warmup_problem(warmup, steps)


def warmup_problem(warmup: float, steps: int) -> tuple[str, str]:
    """Return the problem and the remedy for a warmup that is longer than the run."""
    text = (
        f"the learning rate would still rise when the run ends: {counted(warmup, 'step')} of "
        f"warmup in a run of {counted(steps, 'step')}"
    )
    remedy = f"Use up to {steps} steps or a share of all steps such as 0.1, or train for more steps"
    return text, remedy


def _loading(values: Mapping[str, Any]) -> ProblemParts:
    if not values.get("dataloader_num_workers"):
        for name in ("dataloader_prefetch_factor", "dataloader_persistent_workers"):
            if values.get(name):
                remedy = "Set dataloader_num_workers to 1 or more, or remove it"
                yield name, "there are no worker processes", remedy
    sizes = [_image_size(values.get(name)) for name in ("image_min_size", "image_max_size")]
    if sizes[0] > sizes[1] > 0:
        remedy = "Use a minimum that is not larger than the maximum"
        yield "image_min_size", f"{sizes[0]} is larger than image_max_size, {sizes[1]}", remedy
    config = values.get("accelerator_config")
    for name, value in config.items() if isinstance(config, Mapping) else ():
        where = f"accelerator_config.{name}"
        if name not in LOADER_OPTIONS:
            yield _unknown(where, "key", str(name), LOADER_OPTIONS)
        elif value not in LOADER_DEFAULTS.get(name, (value,)):
            text = "not supported: every process loads its own batches of complete groups"
            yield where, text, "Remove it"


def _image_size(value: Any) -> int:
    """Return the number in the size of an image; 0 if there is none."""
    try:
        return parse_image_size(value)[0]
    except ValueError:
        return 0


def _unknown(
    where: str, noun: str, name: str, choices: Sequence[str], alternative: str = ""
) -> tuple[str, str, str]:
    text = f"unknown {noun} '{name}'{suggestion(name, choices)}"
    one_of = "one of " if len(choices) > 1 else ""
    return where, text, f"Use {one_of}{', '.join(choices)}{alternative}"


def _evaluation(values: Mapping[str, Any], explicit: set[str]) -> ProblemParts:
    evaluates = _word(values.get("eval_strategy", "no")) != "no"
    if values.get("do_eval") and not evaluates:
        yield "do_eval", "nothing is evaluated while eval_strategy is no", "Set eval_strategy"
    # if the strategy is set explicitly, for example by an override, evaluation is off on purpose
    if not evaluates and values.get("eval_steps") is not None and "eval_strategy" not in explicit:
        text = "nothing is evaluated while eval_strategy is no"
        yield "eval_steps", text, "Set eval_strategy to steps, or remove it"


def _best_model(values: Mapping[str, Any]) -> ProblemParts:
    needs = _word(values.get("save_strategy", "steps")) == "best"
    needs = needs or bool(values.get("load_best_model_at_end"))
    if needs and _word(values.get("eval_strategy", "no")) == "no":
        name = "load_best_model_at_end" if values.get("load_best_model_at_end") else "save_strategy"
        remedy = "Set eval_strategy (and the same save_strategy), or remove it"
        yield name, "the best model is chosen by evaluation, and eval_strategy is no", remedy
    elif values.get("load_best_model_at_end"):
        yield from _matching_steps(values)


def _matching_steps(values: Mapping[str, Any]) -> ProblemParts:
    """Yield a problem if the best model may be evaluated at a step at which nothing is saved."""
    where = "load_best_model_at_end"
    saves, evaluates = (_word(values.get(f"{name}_strategy", "steps")) for name in ("save", "eval"))
    if saves == "best":
        return
    if saves != evaluates:
        text = f"save_strategy '{saves}' and eval_strategy '{evaluates}' do not match"
        yield where, text, f"Set save_strategy to {evaluates}, or to best with a metric"
        return
    save: Any = values.get("save_steps", 500)
    evaluate: Any = values.get("eval_steps") or values.get("logging_steps", 500)
    if evaluates != "steps" or not (_is_number(save) and _is_number(evaluate)):
        return
    shares = save < 1, evaluate < 1
    scale = 10**6 if any(shares) else 1
    if evaluate <= 0 or (len(set(shares)) == 1 and not (save * scale) % (evaluate * scale)):
        return
    text = f"save_steps {save:g} is not a multiple of eval_steps {evaluate:g}"
    nearest = evaluate if any(shares) else math.ceil(save / evaluate) * evaluate
    yield where, text, f"Set save_steps to a multiple of it, such as {nearest:g}"


def _checkpointing(values: Mapping[str, Any]) -> ProblemParts:
    switches = [values.get(name) for name in ("activation_checkpointing", "gradient_checkpointing")]
    for name in ("activation_checkpointing_kwargs", "gradient_checkpointing_kwargs"):
        options = values.get(name)
        if not isinstance(options, Mapping) or not options:
            continue
        if not any(switches) and False not in switches:
            text = "it has no effect without activation_checkpointing"
            yield name, text, "Set activation_checkpointing to true, or remove it"
        if options.get("use_reentrant"):
            text = "not supported: checkpoints are never reentrant, which does not affect results"
            yield f"{name}.use_reentrant", text, "Remove it, or set it to false"
        for option in options:
            if option not in CHECKPOINTING_OPTIONS:
                yield _unknown(f"{name}.{option}", "option", str(option), CHECKPOINTING_OPTIONS)


def _distributed(values: Mapping[str, Any]) -> ProblemParts:
    debug: Any = values.get("debug") or ()
    options = debug.split() if isinstance(debug, str) else debug
    for option in options if isinstance(options, Sequence) else [options]:
        name = _word(option)
        if name not in DEBUG_OPTIONS:
            yield _unknown("debug", "option", name, DEBUG_OPTIONS, ", or remove it")
    backend = values.get("ddp_backend")
    if isinstance(backend, str) and backend not in BACKENDS:
        yield _unknown("ddp_backend", "backend", backend, BACKENDS, ", or null to detect it")
    for name, file in (("deepspeed", "a DeepSpeed configuration"), ("fsdp_config", "a JSON file")):
        config = values.get(name)
        if isinstance(config, str) and not config.startswith("{") and not _is_file(config):
            remedy = f"Use the path of {file}, or a section with its settings"
            yield name, f"the file '{config}' does not exist", remedy
    if values.get("deepspeed") and values.get("fsdp"):
        yield "fsdp", "deepspeed and fsdp are both set", "Set one of the two"
    if values.get("fsdp_config") and not values.get("fsdp"):
        yield "fsdp_config", "it has no effect without fsdp", "Set fsdp, or remove it"


def _is_file(path: str) -> bool:
    try:
        return Path(path).is_file()
    except (OSError, ValueError):  # for example, the name is too long
        return False


def _word(value: Any) -> str:
    """Return a value as text; for a member of an enumeration, its value."""
    return str(getattr(value, "value", value))

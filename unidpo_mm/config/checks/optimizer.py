"""Check the optimizer and the scheduler of a recipe by creating both for one small layer."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from ...errors import Problem
from ..training_arguments import training_arguments
from .launch import as_only_process

__all__ = ["one_line", "optimizer_problems", "scheduler_problems"]

OPTIMIZER_PACKAGES = {
    "apex": ("apex", "apex (from its source)"),
    "anyprecision": ("torchdistx", "torchdistx (from its source)"),
    "galore": ("galore_torch", "galore-torch"),
    "apollo": ("apollo_torch", "apollo-torch"),
    "lomo": ("lomo_optim", "lomo-optim"),
    "grokadamw": ("grokadamw", "grokadamw"),
    "schedule_free": ("schedulefree", "schedulefree"),
    "torch_4bit": ("torchao", "torchao"),
    "torch_8bit": ("torchao", "torchao"),
    "stable_adamw": ("optimi", "torch-optimi"),
    "8bit": ("bitsandbytes", "bitsandbytes"),
    "bnb": ("bitsandbytes", "bitsandbytes"),
    "paged": ("bitsandbytes", "bitsandbytes"),
    "lion": ("bitsandbytes", "bitsandbytes"),
    "ademamix": ("bitsandbytes", "bitsandbytes"),
}
"""Part of an optimizer's name -> module and package that it needs; the first match counts."""

OPTIMIZER_OPTIONS = ("adam_beta1", "adam_beta2", "adam_epsilon")
"""Training arguments that only some optimizers read."""

PROBES = ("0.37", "0.73", "3", "true")
"""Values that show whether an optimizer reads an argument: one of them changes its settings."""

OPTIM_ARGS = "momentum dampening nesterov weight_decay lr_decay alpha eps centered".split()
"""Options of `optim_args` that optimizers of torch read."""

MAX_OPTIM_ARG = 1e6

READ_FOR_OPTIMIZER = (
    "optim optim_args optim_target_modules learning_rate weight_decay adam_beta1 adam_beta2 "
    "adam_epsilon use_cpu"
).split()
"""Training arguments that affect the choice of an optimizer and its settings."""


def optimizer_problems(train: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield the problems of the optimizer and its options."""
    options = train.get("optim_args")
    name = str(train.get("optim") or "adamw_torch_fused")
    pieces = str(options).replace(" ", "").split(",") if options else []
    for piece in pieces:
        if piece.count("=") != 1 or not all(piece.split("=")):
            text = f"'{piece}' is not of the form name=value"
            yield Problem("train.optim_args", text, "Separate name=value pairs with commas")
            return
        if _is_beyond(piece.partition("=")[2]):
            text = f"the number of '{piece}' is infinite, not a number, or too large"
            yield Problem("train.optim_args", text, f"Use a number up to {MAX_OPTIM_ARG:.0f}")
            return
    if not any(key in train for key in ("optim", "optim_args", *OPTIMIZER_OPTIONS)):
        return
    for part, (module, package) in OPTIMIZER_PACKAGES.items():
        if part in name:
            if find_spec(module) is None:
                text = f"the optimizer '{name}' needs the package {module}, which is not installed"
                yield Problem("train.optim", text, f"Run pip install {package}, or use adamw_torch")
            return
    try:
        _construct(train)
    except Exception as error:  # the library of an optimizer may raise any error
        where = "train.optim_args" if options else "train.optim"
        remedy = "Correct it" if options else "Choose another optimizer, such as adamw_torch"
        text = f"the optimizer '{name}' cannot be created: {one_line(error)}"
        yield Problem(where, text, remedy)
    else:
        yield from _not_read(train, name, pieces)


def _construct(train: Mapping[str, Any]) -> None:
    import torch

    kind, settings = _optimizer(train)
    if isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer):
        kind(torch.nn.Linear(2, 2).parameters(), **settings)


def _is_beyond(text: str) -> bool:
    """Return whether a text is a number that no optimizer can use."""
    try:
        number = float(text)
    except ValueError:
        return False
    return not abs(number) <= MAX_OPTIM_ARG


def _not_read(train: Mapping[str, Any], optimizer: str, pieces: list[str]) -> Iterator[Problem]:
    """Yield a problem for each argument that does not change the settings of the optimizer."""
    for number, piece in enumerate(pieces):
        key, _, value = piece.partition("=")
        others = [*pieces[:number], *pieces[number + 1 :]]
        if not _reads(train, others, key, (value, *PROBES)):
            text = f"the optimizer '{optimizer}' does not read '{key}'"
            options = [name for name in OPTIM_ARGS if _reads(train, [], name, PROBES)]
            remedy = "Remove it; adam_beta1, adam_beta2, adam_epsilon and weight_decay may apply"
            if options:
                remedy = f"Remove it; '{optimizer}' reads {', '.join(options)}"
            yield Problem("train.optim_args", text, remedy)
    defaults = training_arguments()
    for name in OPTIMIZER_OPTIONS:
        if name in train and train[name] != defaults[name]:
            first, second = (_settings({**train, name: value}) for value in (0.37, 0.73))
            if first == second:
                text = f"the optimizer '{optimizer}' does not read it"
                remedy = f"Remove it, or set it to its default, {defaults[name]}"
                yield Problem(f"train.{name}", text, remedy)


def _reads(train: Mapping[str, Any], others: list[str], name: str, values: Sequence[str]) -> bool:
    """Return whether an option of `optim_args` changes the settings, next to the others."""
    without = _settings({**train, "optim_args": ",".join(others) or None})
    return any(
        _settings({**train, "optim_args": ",".join([*others, f"{name}={value}"])}) != without
        for value in values
    )


def _settings(train: Mapping[str, Any]) -> Any:
    """Return the class and settings of an optimizer, or the error if the arguments are invalid."""
    try:
        return _optimizer(train)
    except Exception as error:  # the library of an optimizer may raise any error
        return one_line(error)


def _optimizer(train: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Return the class and settings of the optimizer as transformers chooses them."""
    import torch
    from transformers import Trainer, TrainingArguments

    arguments = {name: train[name] for name in READ_FOR_OPTIMIZER if name in train}
    layer: Any = torch.nn.Linear(2, 2)
    with warnings.catch_warnings(), as_only_process():
        warnings.simplefilter("ignore")
        args = TrainingArguments(output_dir="unused", **arguments)
    return Trainer.get_optimizer_cls_and_kwargs(args, layer)


def scheduler_problems(train: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield the problems of the learning rate scheduler and its options."""
    if not train.get("lr_scheduler_kwargs") and not train.get("lr_scheduler_type"):
        return
    import torch
    from transformers import get_scheduler

    settings = train.get("lr_scheduler_kwargs") or {}
    if not isinstance(settings, Mapping):
        yield Problem("train.lr_scheduler_kwargs", "it is not a section", "Use {name: value}")
        return
    kind = train.get("lr_scheduler_type", "linear")
    rate = float(train.get("learning_rate", 1e-6))
    try:
        weight = torch.nn.Parameter(torch.zeros(1))
        optimizer = torch.optim.SGD([weight], lr=rate)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            scheduler = get_scheduler(
                kind,
                optimizer=optimizer,
                num_warmup_steps=1,
                num_training_steps=4,
                scheduler_specific_kwargs=dict(settings),
            )
            for _ in range(3):
                optimizer.step()
                if str(kind) not in ("reduce_lr_on_plateau", "greedy"):
                    scheduler.step()
    except Exception as error:  # a wrong keyword raises TypeError, a wrong value any error
        where = "train.lr_scheduler_kwargs" if settings else "train.lr_scheduler_type"
        text = f"the scheduler '{kind}' cannot be created: {one_line(error)}"
        yield Problem(where, text, "Correct lr_scheduler_kwargs, or choose another scheduler")


def one_line(error: BaseException) -> str:
    """Return the text of an error on one line."""
    text = " ".join(str(error).split()).rstrip(".")
    return text or type(error).__name__

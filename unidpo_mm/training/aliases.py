"""Accept TRL's and the official Uni-DPO code's names for fields of `UniDPOConfig`."""

from dataclasses import fields
from typing import Any

from ..errors import Problem, RecipeError, counted
from ..plugins import LOSSES, load_loss, plugin_names, register

__all__ = ["OFFICIAL_NAMES", "TRL_LOSSES", "resolve_aliases"]

OFFICIAL_NAMES = {
    "uni_dpo_qual_eta": "eta",
    "uni_dpo_perf_gamma": "gamma",
    "uni_dpo_tau_ref": "tau_ref",
    "uni_dpo_nll_lambda": "nll_lambda",
    "uni_dpo_tau_good": "tau_good",
    "dpo_length_norm": "length_norm",
    "dpo_average_log_prob": "length_norm",
}
"""Name in the official text and multimodal configurations -> field of `UniDPOConfig`."""

TRL_LOSSES: dict[str, tuple[str, dict[str, Any]]] = {
    "sigmoid": ("dpo", {}),
    "sigmoid_norm": ("dpo", {"length_norm": True}),
    "bco_pair": ("bco", {"shift": 0.0}),
}
"""TRL's `loss_type` -> our loss and its parameters, where the names differ.

hinge, ipo, robust and sft have the same names. The default `label_smoothing` of robust is 0.1 here;
TRL's default is 0, which makes it DPO.
"""

_UNSUPPORTED = {
    "sync_ref_model": "the reference remains the policy before training",
}
"""Switches of TRL that are not supported, and what happens instead."""


def resolve_aliases(args: Any) -> None:
    """Copy the values of aliases to the fields that they stand for, in place.

    Raises:
        RecipeError: If a field and its alias are both set and differ, or a switch is not supported;
            lists all problems.
    """
    if args.precompute_ref_log_probs:
        args.reference, args.precompute_ref_log_probs = "cached", False
    problems = [
        Problem(name, f"not supported yet: {instead}", "Remove it")
        for name, instead in _UNSUPPORTED.items()
        if getattr(args, name)
    ]
    for alias, name in OFFICIAL_NAMES.items():
        value, current = getattr(args, alias), getattr(args, name)
        if value is None:
            continue
        if current is not None and current != value:
            problem = f"it is {value}, but {name}, which means the same, is {current}"
            problems.append(Problem(alias, problem, "Remove one of the two"))
        setattr(args, name, value)
        setattr(args, alias, None)  # so that saved arguments can be loaded without a conflict
    if not problems:
        problems = _resolve_loss(args)
    if problems:
        raise RecipeError(problems)


def _resolve_loss(args: Any) -> list[Problem]:
    """Translate TRL's names of losses, single or in a weighted list, and return the problems."""
    items = list(args.loss_type or ()) if isinstance(args.loss_type, list) else [args.loss_type]
    losses = [
        item if isinstance(item, str) else register(LOSSES, item, "loss_type")
        for item in items
        if item
    ]
    if losses and not isinstance(args.loss_type, list):
        args.loss_type = losses[0]
    weights = args.loss_weights
    if not losses:
        return [Problem("loss_type", "it is empty", "Set it to a loss, for example uni_dpo")]
    if weights is not None and len(weights) != len(losses):
        problem = f"{counted(len(weights), 'weight')} for {counted(len(losses), 'loss', 'losses')}"
        return [Problem("loss_weights", problem, "Pass one weight for each loss in loss_type")]
    names = [TRL_LOSSES.get(name, (name, {})) for name in losses]
    if len(losses) == 1 and weights in (None, [1.0]):
        args.loss_type, args.loss_weights = names[0][0], None
        args.loss_kwargs = {**_unset(args, names[0][1]), **(args.loss_kwargs or {})} or None
        return []
    if len({name for name, _ in names}) < len(names):
        problem = f"duplicate loss in {', '.join(name for name, _ in names)}"
        return [Problem("loss_type", problem, "List it once, with the sum of its weights")]
    mixture = dict(args.loss_kwargs or {})
    by_name = mixture.pop("parameters", {})
    parameters = {
        name: {**implied, **_common(args, name), **by_name.pop(name, {})} for name, implied in names
    }
    weight_of = dict(zip((name for name, _ in names), weights or [1.0] * len(names), strict=True))
    args.loss_type, args.loss_weights, args.beta = "mpo", None, None
    args.loss_kwargs = {"losses": weight_of, "parameters": {**parameters, **by_name}, **mixture}
    return []


def _unset(args: Any, parameters: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters implied by TRL's name of a loss, except those that a field sets."""
    return {key: value for key, value in parameters.items() if getattr(args, key, None) is None}


def _common(args: Any, name: str) -> dict[str, float]:
    """Return the beta that all losses of a mixture share as in TRL, if this loss has one."""
    has_beta = name in plugin_names(LOSSES) and "beta" in {
        f.name for f in fields(load_loss(name).config)
    }
    return {"beta": args.beta} if has_beta and args.beta is not None else {}

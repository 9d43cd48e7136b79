"""Names of TRL and of the official Uni-DPO code for what `UniDPOConfig` calls otherwise."""

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
"""Name in the official configurations -> our field; two of them mean one, text and multimodal."""

TRL_LOSSES: dict[str, tuple[str, dict[str, Any]]] = {
    "sigmoid": ("dpo", {}),
    "sigmoid_norm": ("dpo", {"length_norm": True}),
    "bco_pair": ("bco", {"shift": 0.0}),
}
"""TRL's `loss_type` -> our loss and parameters, where the names differ.

hinge, ipo, robust and sft are called the same; robust has a `label_smoothing` of 0.1 of its own
here, where TRL's 0 makes it DPO.
"""

_NOT_YET = {
    "sync_ref_model": "the reference stays what the policy was at the start",
}
"""TRL's switches that are not built, and what happens instead."""


def resolve_aliases(args: Any) -> None:
    """Move aliased fields of a `UniDPOConfig` to the fields they mean, in place.

    Raises:
        RecipeError: If a name and its alias are both given and differ, or something is not built
            yet; all problems at once.
    """
    if args.precompute_ref_log_probs:
        args.reference, args.precompute_ref_log_probs = "cached", False
    problems = [
        Problem(name, f"it is true and not built yet: {instead}", "Leave it out")
        for name, instead in _NOT_YET.items()
        if getattr(args, name)
    ]
    for alias, name in OFFICIAL_NAMES.items():
        value, own = getattr(args, alias), getattr(args, name)
        if value is None:
            continue
        if own is not None and own != value:
            problem = f"it is {value} and {name}, which means the same, is {own}"
            problems.append(Problem(alias, problem, "Leave one of the two out"))
        setattr(args, name, value)
        setattr(args, alias, None)  # resolved once: saved arguments can be read again
    if not problems:
        problems = _resolve_loss(args)
    if problems:
        raise RecipeError(problems)


def _resolve_loss(args: Any) -> list[Problem]:
    """Translate TRL's names of losses, alone or in a weighted list."""
    items = list(args.loss_type or ()) if isinstance(args.loss_type, list) else [args.loss_type]
    given = [
        item if isinstance(item, str) else register(LOSSES, item, "loss_type")
        for item in items
        if item
    ]
    if given and not isinstance(args.loss_type, list):
        args.loss_type = given[0]
    weights = args.loss_weights
    if not given:
        return [Problem("loss_type", "there is no loss", "Name one, for example uni_dpo")]
    if weights is not None and len(weights) != len(given):
        problem = f"{counted(len(weights), 'weight')} for {counted(len(given), 'loss', 'losses')}"
        return [Problem("loss_weights", problem, "Give one weight for each loss of loss_type")]
    names = [TRL_LOSSES.get(name, (name, {})) for name in given]
    if len(given) == 1 and weights in (None, [1.0]):
        args.loss_type, args.loss_weights = names[0][0], None
        args.loss_kwargs = {**_not_given(args, names[0][1]), **(args.loss_kwargs or {})} or None
        return []
    if len({name for name, _ in names}) < len(names):
        problem = f"{', '.join(name for name, _ in names)}: a loss is named twice"
        return [Problem("loss_type", problem, "Name it once and add its weights up")]
    own = dict(args.loss_kwargs or {})
    by_name = own.pop("parameters", {})
    parameters = {
        name: {**implied, **_common(args, name), **by_name.pop(name, {})} for name, implied in names
    }
    losses = dict(zip((name for name, _ in names), weights or [1.0] * len(names), strict=True))
    args.loss_type, args.loss_weights, args.beta = "mpo", None, None
    args.loss_kwargs = {"losses": losses, "parameters": {**parameters, **by_name}, **own}
    return []


def _not_given(args: Any, parameters: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters that a name implies and that no field states otherwise."""
    return {key: value for key, value in parameters.items() if getattr(args, key, None) is None}


def _common(args: Any, name: str) -> dict[str, float]:
    """Return the common beta for a part of a mixture that has one, as in TRL."""
    has_beta = name in plugin_names(LOSSES) and "beta" in {
        f.name for f in fields(load_loss(name).config)
    }
    return {"beta": args.beta} if has_beta and args.beta is not None else {}

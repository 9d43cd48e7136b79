"""Names of TRL and of the official Uni-DPO code for what `UniDPOConfig` calls otherwise."""

from typing import Any

from ..errors import Problem, RecipeError

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
"""TRL's `loss_type` -> our loss and parameters, where the names differ; hinge, ipo, robust and sft
are called the same."""

_NOT_YET = {
    "precompute_ref_log_probs": "the reference is run live and gives the same losses",
    "sync_ref_model": "the reference stays what the policy was at the start",
}
"""TRL's switches that are not built, and what happens instead."""


def resolve_aliases(args: Any) -> None:
    """Moves aliased fields of a `UniDPOConfig` to the fields they mean, in place.

    Raises:
        RecipeError: If a name and its alias are both given and differ, or something is not built
            yet; all problems at once.
    """
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
            found = f"it is {value} and {name}, which means the same, is {own}"
            problems.append(Problem(alias, found, "Leave one of the two out"))
        setattr(args, name, value)
        setattr(args, alias, None)  # resolved once: saved arguments can be read again
    if not problems:
        problems = _resolve_loss(args)
    if problems:
        raise RecipeError(problems)


def _resolve_loss(args: Any) -> list[Problem]:
    """Translates TRL's names of losses, alone or in a weighted list."""
    if isinstance(args.loss_type, str):
        name, parameters = _translated(args.loss_type)
        args.loss_type = name
        args.loss_kwargs = {**_not_given(args, parameters), **(args.loss_kwargs or {})} or None
        return []
    names = [_translated(name) for name in args.loss_type]
    if len(names) == 1:
        args.loss_type = args.loss_type[0]
        return _resolve_loss(args)
    weights = args.loss_weights or [1.0] * len(names)
    if len(weights) != len(names):
        found = f"{len(weights)} weights for {len(names)} losses"
        return [Problem("loss_weights", found, "Give one weight for each loss of loss_type")]
    if len({name for name, _ in names}) < len(names):
        found = f"{', '.join(name for name, _ in names)}: a loss is named twice"
        return [Problem("loss_type", found, "Name it once and add its weights up")]
    args.loss_type, args.loss_weights = "mpo", None
    losses = {name: weight for (name, _), weight in zip(names, weights, strict=True)}
    parameters = {name: {**given, **_beta(args, name)} for name, given in names}
    args.loss_kwargs = {"losses": losses, "parameters": parameters, **(args.loss_kwargs or {})}
    args.beta = None
    return []


def _not_given(args: Any, parameters: dict[str, Any]) -> dict[str, Any]:
    """Returns the parameters that a name implies and that no field states otherwise."""
    return {key: value for key, value in parameters.items() if getattr(args, key, None) is None}


def _translated(name: str) -> tuple[str, dict[str, Any]]:
    return TRL_LOSSES.get(name, (name, {}))


def _beta(args: Any, name: str) -> dict[str, float]:
    """Returns the common beta for a part of a mixture that has one, as in TRL."""
    return {} if args.beta is None or name == "sft" else {"beta": args.beta}

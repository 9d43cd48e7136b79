"""Resolve the loss of a `UniDPOConfig`: its name and parameters, under all of their names.

`loss` has them all. The fields of `LossAliases` are other names, which TRL and the official Uni-DPO
code use, so that a script runs unchanged.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import Problem, RecipeError, counted
from ..plugins import LOSSES, load_loss, plugin_names, register

__all__ = [
    "OFFICIAL_NAMES",
    "TRL_LOSSES",
    "LossAliases",
    "register_losses",
    "resolve_loss",
    "weights_missing_scores",
]

DEFAULT = "uni_dpo"

OFFICIAL_NAMES = {
    "uni_dpo_qual_eta": "eta",
    "uni_dpo_perf_gamma": "gamma",
    "uni_dpo_tau_ref": "tau_ref",
    "uni_dpo_nll_lambda": "nll_lambda",
    "uni_dpo_tau_good": "tau_good",
    "dpo_length_norm": "length_norm",
    "dpo_average_log_prob": "length_norm",
}
"""Name in the official text and multimodal configurations -> parameter of the loss."""

TRL_LOSSES: dict[str, tuple[str, dict[str, Any]]] = {
    "sigmoid": ("dpo", {}),
    "sigmoid_norm": ("dpo", {"length_norm": True}),
    "bco_pair": ("bco", {"shift": 0.0}),
    "exo_pair": ("exo", {}),
    "nca_pair": ("nca", {}),
    "sppo_hard": ("sppo", {}),
    "aot_unpaired": ("aot", {"variant": "unpaired"}),
    "apo_zero": ("apo", {"variant": "zero"}),
    "apo_down": ("apo", {"variant": "down"}),
    "apo_zero_unpaired": ("kto", {"kl": "none"}),
}
"""TRL's `loss_type` -> our loss and its parameters, where the names differ.

hinge, ipo, robust, aot, discopop, kto and sft have the same names. The default `label_smoothing` of
robust is 0.1 here; TRL's default is 0, which makes it DPO.
"""


@dataclass(init=False, repr=False, eq=False)
class LossAliases:
    """Other names for `loss` and its parameters; `None` if they are not used."""

    loss_type: list[str] | str | None = None
    """TRL's name for the name in `loss`; a list is a mixture."""
    loss_weights: list[float] | None = None
    """Weights of the losses if `loss_type` is a list, as in TRL."""
    loss_kwargs: dict[str, Any] | None = None
    """Parameters of the loss."""
    beta: float | None = None
    eta: float | None = None
    gamma: float | None = None
    tau_ref: float | None = None
    nll_lambda: float | None = None
    tau_good: float | str | None = None
    sft_weight: float | None = None
    detach_weights: bool | None = None
    length_norm: bool | None = None
    label_smoothing: float | None = None
    simpo_gamma: float | None = None
    """Parameters of the same names."""
    uni_dpo_qual_eta: float | None = None
    uni_dpo_perf_gamma: float | None = None
    uni_dpo_tau_ref: float | None = None
    uni_dpo_nll_lambda: float | None = None
    uni_dpo_tau_good: float | None = None
    dpo_length_norm: bool | None = None
    dpo_average_log_prob: bool | None = None
    """Names of the official code, see `OFFICIAL_NAMES`."""


PARAMETERS = tuple(
    field.name
    for field in dataclasses.fields(LossAliases)
    if field.name not in ("loss_type", "loss_weights", "loss_kwargs")
)
"""Fields that are parameters of the loss."""


def register_losses(args: Any) -> None:
    """Replace losses that are passed as objects by their names, in place.

    Raises:
        RecipeError: If an object is not a loss, or its name is taken.
    """
    if hasattr(args.loss, "compute"):
        args.loss = register(LOSSES, args.loss, "loss")
    if isinstance(args.loss_type, list | tuple):
        args.loss_type = [_registered(item) for item in args.loss_type]
    elif args.loss_type:
        args.loss_type = _registered(args.loss_type)


def _registered(loss: Any) -> str:
    return loss if isinstance(loss, str) else register(LOSSES, loss, "loss_type")


def resolve_loss(args: Any) -> tuple[str, dict[str, Any]]:
    """Return the name of the loss and all parameters that are set.

    Raises:
        RecipeError: If two names of a parameter have different values, or a mixture is invalid;
            lists all problems.
    """
    name, parameters, problems = _declared(args.loss)
    for alias in PARAMETERS:
        value = getattr(args, alias)
        problems += _merge(parameters, OFFICIAL_NAMES.get(alias, alias), value, alias)
    for key, value in (args.loss_kwargs or {}).items():
        problems += _merge(parameters, key, value, f"loss_kwargs.{key}")
    if args.loss_weights is not None and args.loss_type is None:
        problems.append(
            Problem("loss_weights", "loss_type is not set", "Set it to a list of losses")
        )
    if problems:
        raise RecipeError(problems)
    if args.loss_type is not None:
        name, parameters = _trl_loss(args, name, parameters)
    missing = args.score_options.missing
    if missing != "error" and weights_missing_scores(name):
        parameters.setdefault("missing_quality", missing)
    return name, parameters


def weights_missing_scores(loss: str) -> bool:
    """Return whether a loss has a fixed quality weight for pairs without scores."""
    return "missing_quality" in _parameters(loss)


def _parameters(loss: str) -> set[str]:
    return {field.name for field in dataclasses.fields(load_loss(loss).config)}


def _declared(loss: Any) -> tuple[str, dict[str, Any], list[Problem]]:
    """Return the name and the parameters that `loss` declares."""
    if loss is None:
        return DEFAULT, {}, []
    if isinstance(loss, str) and loss:
        return loss, {}, []
    if isinstance(loss, Mapping):
        parameters = {key: value for key, value in loss.items() if key != "name"}
        return str(loss.get("name", DEFAULT)), parameters, []
    if dataclasses.is_dataclass(loss) and not isinstance(loss, type):
        for name in plugin_names(LOSSES):
            if load_loss(name).config is type(loss):
                return name, {f.name: getattr(loss, f.name) for f in dataclasses.fields(loss)}, []
    problem = f"found {loss!r}"
    remedy = "Use the name of a loss, or a mapping such as {'name': 'uni_dpo', 'beta': 1.0}"
    return DEFAULT, {}, [Problem("loss", problem, remedy)]


def _merge(parameters: dict[str, Any], name: str, value: Any, alias: str) -> Iterator[Problem]:
    """Set a parameter that has no other value; otherwise yield the conflict."""
    if value is None:
        return
    current = parameters.get(name)
    if current is not None and current != value:
        problem = f"it is {value}, but {name}, which means the same, is {current}"
        yield Problem(alias, problem, "Remove one of the two")
        return
    parameters[name] = value


def _trl_loss(args: Any, declared: str, parameters: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Translate TRL's names of losses, single or in a weighted list.

    Raises:
        RecipeError: If the losses contradict `loss`, or do not make a mixture.
    """
    losses = args.loss_type if isinstance(args.loss_type, list) else [args.loss_type]
    losses = [loss for loss in losses if loss]
    weights = args.loss_weights
    if not losses:
        remedy = "Set it to a loss, for example uni_dpo"
        raise RecipeError(Problem("loss_type", "it is empty", remedy))
    if weights is not None and len(weights) != len(losses):
        text = f"{counted(len(weights), 'weight')} for {counted(len(losses), 'loss', 'losses')}"
        remedy = "Pass one weight for each loss in loss_type"
        raise RecipeError(Problem("loss_weights", text, remedy))
    names = [TRL_LOSSES.get(name, (name, {})) for name in losses]
    if declared not in (DEFAULT, *(name for name, _ in names)):
        text = f"it is {', '.join(losses)}, but loss, which means the same, is {declared}"
        raise RecipeError(Problem("loss_type", text, "Remove one of the two"))
    if len(losses) == 1 and weights in (None, [1.0]):
        name, implied = names[0]
        return name, {**implied, **parameters}
    if len({name for name, _ in names}) < len(names):
        text = f"duplicate loss in {', '.join(name for name, _ in names)}"
        remedy = "List it once, with the sum of its weights"
        raise RecipeError(Problem("loss_type", text, remedy))
    mixture = dict(parameters)
    by_name = dict(mixture.pop("parameters", {}))
    beta = mixture.pop("beta", None)
    of_losses = {}
    for name, implied in names:
        # all losses of a mixture that have a beta share it, as in TRL
        shares = beta is not None and name in plugin_names(LOSSES) and "beta" in _parameters(name)
        common = {"beta": beta} if shares else {}
        of_losses[name] = {**implied, **common, **by_name.pop(name, {})}
    weight_of = dict(zip((name for name, _ in names), weights or [1.0] * len(names), strict=True))
    return "mpo", {"losses": weight_of, "parameters": {**of_losses, **by_name}, **mixture}

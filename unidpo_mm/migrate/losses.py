"""What the origins share of the loss: its mixtures, and the names of Uni-DPO's parameters."""

from collections.abc import Mapping
from typing import Any

from .draft import Draft
from .keys import Key

__all__ = ["UNI_DPO_KEYS", "mixed", "put_loss"]

UNI_DPO_KEYS: dict[str, Key] = {
    "uni_dpo_qual_eta": Key("loss.eta", joint=True),
    "uni_dpo_tau_ref": Key("loss.tau_ref", joint=True),
    "uni_dpo_perf_gamma": Key("loss.gamma", joint=True),
    "uni_dpo_nll_lambda": Key("loss.nll_lambda", joint=True),
    "uni_dpo_tau_good": Key("loss.tau_good", joint=True),
}
"""The parameters of Uni-DPO as the official code names them; defaults differ by its branch."""


def put_loss(
    draft: Draft, name: str, parameters: Mapping[str, tuple[Any, str]], *theirs: str
) -> None:
    """States a loss.

    Args:
        draft: The recipe in the making.
        name: The loss.
        parameters: Parameter -> its value and the key there that it is made from.
        *theirs: The keys there that the name is made from.
    """
    draft.put("loss.name", name, *theirs)
    for parameter, (value, key) in parameters.items():
        draft.put(f"loss.{parameter}", value, key)


def mixed(
    draft: Draft,
    parts: Mapping[str, tuple[float, Mapping[str, Any]]],
    *theirs: str,
) -> None:
    """States a weighted sum of losses.

    Args:
        draft: The recipe in the making.
        parts: Loss -> its weight and its parameters.
        *theirs: The keys there that it is made from.
    """
    draft.put("loss.name", "mpo", *theirs)
    draft.put("loss.losses", {name: weight for name, (weight, _) in parts.items()}, *theirs)
    parameters = {name: dict(given) for name, (_, given) in parts.items() if given}
    draft.put("loss.parameters", parameters, *theirs)

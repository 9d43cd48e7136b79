"""LLaMA-Factory's losses, those of the official multimodal code among them."""

from collections.abc import Mapping
from typing import Any

from ..plugins import suggestion
from .draft import Draft
from .losses import UNI_DPO_KEYS, mixed, put_loss

__all__ = ["check_stage", "complete_loss"]

LOSSES = {
    "sigmoid": "dpo",
    "hinge": "hinge",
    "ipo": "ipo",
    "orpo": "orpo",
    "simpo": "simpo",
    "uni_dpo": "uni_dpo",
}
MEANS = {"ipo", "orpo", "simpo"}
"""Losses that are on means over tokens in any case."""
WITHOUT_BCO = {"orpo", "simpo", "uni_dpo"}
"""Losses that `pref_bco_weight` adds nothing to."""
OFFICIAL = {
    "uni_dpo_qual_eta": 0.7,
    "uni_dpo_tau_ref": 2.0,
    "uni_dpo_perf_gamma": 3.0,
    "uni_dpo_nll_lambda": 0.001,
    "uni_dpo_tau_good": 2.5,
}
"""The defaults of the official multimodal code."""

Parameters = dict[str, tuple[Any, str]]
"""Parameter -> its value and the key there."""


def check_stage(draft: Draft) -> None:
    """Note a problem if the file trains something else than preferences from pairs."""
    stage = draft.values.get("stage")
    if stage == "dpo":
        draft.carried.add("stage")
        return
    problem = f"the stage is '{stage}', which is no preference training from pairs"
    if stage is None:
        problem = "the stage is missing, and its default is supervised fine-tuning"
    elif stage == "kto":
        problem = "the stage 'kto' learns from single answers labelled good or bad, not built yet"
    draft.problem("stage", problem, "Give a file with stage: dpo")


def complete_loss(draft: Draft) -> None:
    """States the loss with its parameters, as a mixture where there is an SFT or BCO term."""
    there = str(draft.value("pref_loss")).lower().replace("-", "_")
    if there not in LOSSES:
        problem = f"there is no loss for '{there}'{suggestion(there, LOSSES)}"
        draft.problem("pref_loss", problem, f"Write one of {', '.join(LOSSES)}")
        return
    loss, parameters = LOSSES[there], _parameters(draft, there)
    sft, bco = float(draft.number("pref_ftx")), float(draft.number("pref_bco_weight"))
    if bco and there in WITHOUT_BCO:
        draft.note("pref_bco_weight", f"the loss '{there}' never has this term there")
        bco = 0.0
    if loss == "uni_dpo" and sft:
        parameters["sft_weight"] = (sft, "pref_ftx")
    elif sft or bco:
        _mixture(draft, loss, parameters, sft, bco)
        return
    put_loss(draft, loss, parameters, "pref_loss")
    for key in ("pref_ftx", "pref_bco_weight"):
        if key not in draft.accounted() and key in draft.values:
            draft.leave_out(key, "")


def _parameters(draft: Draft, there: str) -> Parameters:
    found: Parameters = {"beta": (draft.value("pref_beta"), "pref_beta")}
    if there == "sigmoid":
        found["label_smoothing"] = (draft.value("dpo_label_smoothing"), "dpo_label_smoothing")
    if there == "simpo":
        found["simpo_gamma"] = (draft.value("simpo_gamma"), "simpo_gamma")
    if there == "uni_dpo":
        for key, default in OFFICIAL.items():
            value = draft.values.get(key)
            parameter = UNI_DPO_KEYS[key].ours.removeprefix("loss.")
            found[parameter] = (default if value is None else value, key)
    if there not in ("orpo", "simpo"):
        found["length_norm"] = (there in MEANS or _averages(draft), "dpo_average_log_prob")
    _note_unused(draft, {key for _, key in found.values()})
    return found


def _averages(draft: Draft) -> bool:
    """Whether log-probabilities are means: by default in the official code only."""
    stated = draft.values.get("dpo_average_log_prob")
    if stated is not None:
        return bool(stated)
    return draft.value("pref_loss") == "uni_dpo" or any(key in draft.values for key in OFFICIAL)


def _note_unused(draft: Draft, used: set[str]) -> None:
    keys = ("dpo_label_smoothing", "simpo_gamma", "dpo_average_log_prob", *OFFICIAL)
    loss = draft.value("pref_loss")
    for key in keys:
        if key in draft.values and key not in used:
            text = f"it is no parameter of the loss '{loss}' and has no effect there either"
            draft.leave_out(key, text)


def _mixture(
    draft: Draft, loss: str, parameters: Mapping[str, tuple[Any, str]], sft: float, bco: float
) -> None:
    """States the sum there: (loss + bco * BCO) / (1 + bco) + sft * NLL."""
    given = {name: value for name, (value, _) in parameters.items()}
    common = {name: value for name, value in given.items() if name in ("beta", "length_norm")}
    parts = {loss: (1 / (1 + bco), given)}
    if bco:
        parts["bco"] = (bco / (1 + bco), common)
        draft.note("pref_bco_weight", draft.keys["pref_bco_weight"].text)
    if sft:
        parts["sft"] = (sft, {"length_norm": True})
    keys = [key for _, key in parameters.values()]
    mixed(draft, parts, "pref_loss", "pref_ftx", "pref_bco_weight", *keys)

"""What the official text and math code reads together: data, reference and loss."""

import re
from pathlib import Path
from typing import Any

from ..plugins import suggestion
from .draft import Draft
from .keys import as_list
from .losses import UNI_DPO_KEYS, put_loss

__all__ = ["FILE", "SHARE", "complete_data", "complete_loss", "complete_reference"]

FILE = (
    "a folder is read for Parquet files only: name the file in it, most often train.jsonl, or the "
    "data set's name on the hub"
)
SHARE = "all rows are read, whatever the share or number: make a file of as many"
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")

TEXT_DEFAULTS: dict[str, Any] = {
    "beta": 2.0,
    "uni_dpo_qual_eta": 0.1,
    "uni_dpo_tau_ref": 0.8,
    "uni_dpo_perf_gamma": 1.0,
    "uni_dpo_nll_lambda": 0.01,
    "uni_dpo_tau_good": 7.0,
}
MATH_DEFAULTS: dict[str, Any] = {
    "beta": 0.1,
    "uni_dpo_qual_eta": 0.7,
    "uni_dpo_tau_ref": 2.0,
    "uni_dpo_perf_gamma": 3.0,
    "uni_dpo_nll_lambda": 0.001,
    "uni_dpo_tau_good": 2.5,
}
"""Defaults of the two branches, which are not those of the released settings."""

TEXT_LOSSES = {"uni_dpo": "uni_dpo", "simpo": "simpo"}
MATH_LOSSES = {
    **TEXT_LOSSES,
    "sigmoid": "dpo",
    "hinge": "hinge",
    "ipo": "ipo",
    "dpo_positive": "dpop",
}
LOSS_KEYS = ("pref_loss", "loss_type", "dpo_length_norm", "gamma_beta_ratio", "simpo_gamma")
"""Keys of the loss that not every loss reads."""


def is_math(draft: Draft) -> bool:
    """Whether the file is one of the math branch."""
    return "train_data_path" in draft.values


def complete_data(draft: Draft) -> None:
    """States the sources, and what the math branch does without saying so."""
    if is_math(draft):
        _math_data(draft)
        return
    mixer = draft.values.get("dataset_mixer")
    if not isinstance(mixer, dict) or not mixer:
        if "dataset_mixer" in draft.values:
            draft.problem("dataset_mixer", "it holds no data set", "Write {name or path: share}")
        return
    found: dict[str, list[dict[str, Any]]] = {"data.sources": [], "data.eval_sources": []}
    for name, share in mixer.items():
        if share != 1:
            draft.note("dataset_mixer", f"'{name}' has the share {share}, and {SHARE}")
        for split in as_list(draft.values.get("dataset_splits")) or ["train", "test"]:
            ours = "data.eval_sources" if "test" in split else "data.sources"
            found[ours].append(_source(draft, str(name), split))
    for ours, sources in found.items():
        if sources:
            draft.put(ours, sources, "dataset_mixer", "dataset_splits")


def _math_data(draft: Draft) -> None:
    source = {"path": str(draft.values["train_data_path"]), "domain": "math"}
    draft.put("data.sources", [source], "train_data_path")
    draft.put("model.prompt_style", "raw", comment="prompts in the data are rendered already")
    draft.put("model.dtype", "bfloat16", comment="as the reference there")
    if "optim" not in draft.values:
        draft.put("train.optim", "rmsprop")
    for key in ("dataset_mixer", "dataset_splits", "torch_dtype"):
        if key in draft.values:
            draft.note(key, "the math code does not read it")


def _source(draft: Draft, name: str, split: str) -> dict[str, Any]:
    for folder in (Path(name), draft.folder / name):
        for path in (folder / f"{split}.jsonl", folder / f"{split}.json"):
            if path.is_file():
                return {"path": path.as_posix()}
    if not HUB_NAME.fullmatch(name):
        draft.note("dataset_mixer", FILE)
    return {"path": name, "split": split}


def complete_reference(draft: Draft) -> None:
    """States where the reference comes from: the model as it was."""
    if "use_ref_model" in draft.values or "ref_model" in draft.values:
        draft.put("train.reference", "auto", "use_ref_model", "ref_model")
    other = draft.values.get("ref_model")
    if other not in (None, "", draft.values.get("model_name_or_path")):
        text = (
            "another reference than the model itself has no key in a recipe: give ref_model in "
            "Python"
        )
        draft.note("ref_model", text)
    if draft.values.get("use_ref_model") is False:
        draft.note("use_ref_model", "a loss that needs a reference has one in any case")


def complete_loss(draft: Draft) -> None:
    """States the loss with its parameters."""
    math = is_math(draft)
    key, losses = ("loss_type", MATH_LOSSES) if math else ("pref_loss", TEXT_LOSSES)
    there = str(draft.values.get(key) or ("sigmoid" if math else "uni_dpo"))
    if there not in losses:
        problem = f"there is no loss for '{there}'{suggestion(there, losses)}"
        draft.problem(key, problem, f"Write one of {', '.join(losses)}")
        return
    if not math and there == "simpo" and draft.values.get("loss_type") == "hinge":
        draft.problem("loss_type", "SimPO with a hinge is not built", "Write sigmoid there")
    parameters = _parameters(draft, losses[there], MATH_DEFAULTS if math else TEXT_DEFAULTS)
    put_loss(draft, losses[there], parameters, key)
    used = {key, *(name for _, name in parameters.values())}
    for name in (*UNI_DPO_KEYS, *LOSS_KEYS):
        if name in draft.values and name not in used:
            draft.note(name, f"the loss '{there}' does not read it there")


def _parameters(draft: Draft, loss: str, defaults: dict[str, Any]) -> dict[str, tuple[Any, str]]:
    def value(key: str) -> Any:
        stated = draft.values.get(key)
        return defaults[key] if stated is None else stated

    found = {"beta": (value("beta"), "beta")}
    if loss == "uni_dpo":
        for key, entry in UNI_DPO_KEYS.items():
            found[entry.ours.removeprefix("loss.")] = (value(key), key)
    if loss == "dpop":  # the penalty there stands outside beta and has the weight of the NLL
        found["dpop_lambda"] = (value("uni_dpo_nll_lambda"), "uni_dpo_nll_lambda")
        found["penalty_in_beta"] = (False, "loss_type")
    if loss != "simpo":
        found["length_norm"] = (draft.value("dpo_length_norm"), "dpo_length_norm")
    elif is_math(draft):
        found["simpo_gamma"] = (draft.value("simpo_gamma"), "simpo_gamma")
    else:
        margin = draft.number("gamma_beta_ratio") * draft.number("beta")
        found["simpo_gamma"] = (margin, "gamma_beta_ratio")
        if "gamma_beta_ratio" in draft.values:
            draft.note("gamma_beta_ratio", draft.keys["gamma_beta_ratio"].text)
    return found

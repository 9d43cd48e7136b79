"""The official Uni-DPO code for text and math: a YAML file in the style of alignment-handbook."""

import re
from pathlib import Path
from typing import Any

from .conversion import Conversion, Framework
from .lora import convert_lora
from .losses import load_losses, loss_rule, note_unused, parameters_of, set_loss
from .table import as_list, load_file, load_table

__all__ = ["FRAMEWORK"]

ALL_ROWS = "all rows are used, whatever the share or number; write the rows to use into a file"
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")

MATH_DEFAULTS = load_file("official")["math_defaults"]
"""Defaults of the math branch, where they are not those of the text branch."""

TEXT_LOSSES = load_losses("official", "text_losses")
MATH_LOSSES = load_losses("official", "math_losses")


def _is_math(conversion: Conversion) -> bool:
    return "train_data_path" in conversion.values


def _convert_data(conversion: Conversion) -> None:
    if _is_math(conversion):
        _convert_math_data(conversion)
        return
    mixer = conversion.values.get("dataset_mixer")
    if not isinstance(mixer, dict) or not mixer:
        if "dataset_mixer" in conversion.values:
            text = "it contains no data set"
            conversion.problem("dataset_mixer", text, "Use {name or path: share}")
        return
    sources: dict[str, list[dict[str, Any]]] = {"data.sources": [], "data.eval_sources": []}
    for name, share in mixer.items():
        if share != 1:
            conversion.note("dataset_mixer", f"'{name}' has the share {share}, but {ALL_ROWS}")
        for split in as_list(conversion.values.get("dataset_splits")) or ["train", "test"]:
            target = "data.eval_sources" if "test" in split else "data.sources"
            sources[target].append(_source(conversion, str(name), split))
    for target, entries in sources.items():
        if entries:
            conversion.set(target, entries, "dataset_mixer", "dataset_splits")


def _convert_math_data(conversion: Conversion) -> None:
    """Convert the data of the math code, and what that code does without a key for it."""
    source = {"path": str(conversion.values["train_data_path"]), "domain": "math"}
    conversion.set("data.sources", [source], "train_data_path")
    conversion.set("model.prompt_style", "raw", comment="prompts in the data are rendered already")
    conversion.set("model.dtype", "bfloat16", comment="as the reference of the official code")
    if "optim" not in conversion.values:
        conversion.set("train.optim", "rmsprop")
    for key in ("dataset_mixer", "dataset_splits", "torch_dtype"):
        if key in conversion.values:
            conversion.note(key, "the math code does not read it")


def _source(conversion: Conversion, name: str, split: str) -> dict[str, Any]:
    for directory in (Path(name), conversion.directory / name):
        for path in (directory / f"{split}.jsonl", directory / f"{split}.json"):
            if path.is_file():
                return {"path": path.as_posix()}
    if not HUB_NAME.fullmatch(name):
        conversion.note("dataset_mixer")
    return {"path": name, "split": split}


def _convert_reference(conversion: Conversion) -> None:
    values = conversion.values
    if "use_ref_model" in values or "ref_model" in values:
        conversion.set("train.reference", "auto", "use_ref_model", "ref_model")
    if values.get("ref_model") not in (None, "", values.get("model_name_or_path")):
        text = "a recipe has no key for another reference than the model; pass ref_model in Python"
        conversion.note("ref_model", text)
    if values.get("use_ref_model") is False:
        conversion.note("use_ref_model", "a loss that needs a reference always has one")


def _convert_loss(conversion: Conversion) -> None:
    math = _is_math(conversion)
    if math:
        conversion.defaults |= MATH_DEFAULTS
    key, rules = ("loss_type", MATH_LOSSES) if math else ("pref_loss", TEXT_LOSSES)
    name = str(conversion.values.get(key) or ("sigmoid" if math else "uni_dpo"))
    rule = loss_rule(conversion, key, name, rules)
    if rule is None:
        return
    parameters = parameters_of(conversion, rule, key)
    if name == "simpo" and not math:
        if conversion.values.get("loss_type") == "hinge":
            text = "SimPO with a hinge is not supported"
            conversion.problem("loss_type", text, "Use sigmoid")
        margin = conversion.number("gamma_beta_ratio") * conversion.number("beta")
        parameters["simpo_gamma"] = (margin, "gamma_beta_ratio")
        if "gamma_beta_ratio" in conversion.values:
            conversion.note("gamma_beta_ratio")
    if name == "dpo_positive":  # its penalty has the weight of the NLL term, outside beta
        key_of_weight = "uni_dpo_nll_lambda"
        parameters["dpop_lambda"] = (conversion.value(key_of_weight), key_of_weight)
    set_loss(conversion, [(rule.name, parameters)], key)
    note_unused(conversion, name, {key, *(used for _, used in parameters.values())})


FRAMEWORK = Framework(
    title="the official code",
    hint="dataset_mixer and uni_dpo_qual_eta",
    keys={**load_table("official"), **load_table("lora")},
    converters={
        "data": _convert_data,
        "lora": convert_lora,
        "reference": _convert_reference,
        "loss": _convert_loss,
    },
)

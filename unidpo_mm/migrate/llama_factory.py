"""LLaMA-Factory: the stages `dpo`, with the keys of the official multimodal code, and `kto`."""

from ..config.problems import describe
from .conversion import Conversion, Framework
from .llama_factory_data import convert_data
from .llama_factory_model import (
    convert_image_size,
    convert_parts,
    convert_precision,
    convert_videos,
)
from .losses import Parameters, load_losses, loss_rule, note_unused, parameters_of, set_loss
from .table import load_table

__all__ = ["FRAMEWORK"]

LOSSES = load_losses("llama_factory")
KTO = load_losses("llama_factory", "kto")["kto"]
WITHOUT_BCO = ("orpo", "simpo", "uni_dpo")
"""Losses to which `pref_bco_weight` adds nothing."""


def _check_stage(conversion: Conversion) -> None:
    stage = conversion.values.get("stage")
    if stage in ("dpo", "kto"):
        conversion.used_keys.add("stage")
        return
    text = f"the stage '{stage}' does not train on preference pairs"
    if stage is None:
        text = "the stage is missing, and its default is supervised fine-tuning"
    conversion.problem("stage", text, "Use a file with stage: dpo or stage: kto")


def _convert_template(conversion: Conversion) -> None:
    name = conversion.values.get("template")
    if "template" in conversion.values:
        style = "auto" if name is None else "raw" if name == "empty" else "chat"
        conversion.set("model.prompt_style", style, "template")
        if name is not None:
            conversion.note("template")
    if "enable_thinking" in conversion.values:
        _convert_thinking(conversion, has_template=name != "empty")


def _convert_thinking(conversion: Conversion, *, has_template: bool) -> None:
    """Convert `enable_thinking`, by which LLaMA-Factory also changes the responses."""
    key = "enable_thinking"
    value = conversion.values[key]
    if not has_template:
        conversion.note(key, "has no effect with `template: empty`")
    elif value is None:
        text = (
            "null keeps the reasoning of responses and adds an empty block to the prompt of those "
            "without; set `chat_template_kwargs` in the rows to choose for each row"
        )
        conversion.note(key, text)
    elif isinstance(value, bool):
        text = (
            "responses are used as they are; LLaMA-Factory starts those without reasoning with an "
            "empty block, which is trained on"
            if value
            else "LLaMA-Factory also removes the reasoning of responses; set `reasoning: strip` in "
            "the sources to do the same"
        )
        conversion.set("model.chat_template_kwargs.enable_thinking", value, key)
        conversion.note(key, text)
    else:
        conversion.problem(key, f"expected true or false, not {describe(value)}", "Fix the value")


def _convert_loss(conversion: Conversion) -> None:
    if conversion.values.get("stage") == "kto":
        _convert_kto(conversion)
        return
    name = str(conversion.value("pref_loss")).lower().replace("-", "_")
    rule = loss_rule(conversion, "pref_loss", name, LOSSES)
    if rule is None:
        return
    official = conversion.value("pref_loss") == "uni_dpo" or any(
        key.startswith("uni_dpo_") for key in conversion.values
    )
    conversion.defaults["dpo_average_log_prob"] = official
    parameters = parameters_of(conversion, rule, "pref_loss")
    loss = rule.name
    if (alpha := conversion.value("ld_alpha")) is not None:
        smoothed = conversion.number("dpo_label_smoothing")
        if name != "sigmoid" or smoothed or official:
            text = (
                "length desensitization is supported for sigmoid only, without label smoothing and "
                "length norm"
            )
            conversion.problem("ld_alpha", text, "Use pref_loss: sigmoid, or remove it")
            return
        text = "in a recipe it applies to policy and reference, in LLaMA-Factory to the policy only"
        conversion.note("ld_alpha", text)
        loss = "ld_dpo"
        parameters = {"beta": parameters["beta"], "ld_alpha": (alpha, "ld_alpha")}
    used = {"pref_loss", *(key for _, key in parameters.values())}
    sft, bco = conversion.number("pref_ftx"), conversion.number("pref_bco_weight")
    if bco and name in WITHOUT_BCO:
        bco = 0
    used |= {key for key, weight in (("pref_ftx", sft), ("pref_bco_weight", bco)) if weight}
    note_unused(conversion, name, used)
    if name == "uni_dpo" and sft:
        parameters["sft_weight"] = (float(sft), "pref_ftx")
    elif sft or bco:
        _set_mixture(conversion, loss, parameters, sft, bco)
        return
    set_loss(conversion, [(loss, parameters)], "pref_loss")


def _convert_kto(conversion: Conversion) -> None:
    if conversion.number("pref_ftx"):
        text = "the NLL of good responses cannot be added to KTO"
        conversion.problem("pref_ftx", text, "Remove it")
    parameters = parameters_of(conversion, KTO, "stage")
    used = {"pref_ftx", *(key for _, key in parameters.values())}
    note_unused(conversion, "kto", used)
    set_loss(conversion, [("kto", parameters)], "stage")


def _set_mixture(
    conversion: Conversion, name: str, parameters: Parameters, sft: float, bco: float
) -> None:
    """Set LLaMA-Factory's sum: (loss + bco * BCO) / (1 + bco) + sft * NLL."""
    parts, weights = [(name, parameters)], [1 / (1 + bco)]
    if bco:
        names = ("beta", "length_norm")
        parts.append(("bco", {key: parameters[key] for key in names if key in parameters}))
        weights.append(bco / (1 + bco))
        conversion.note("pref_bco_weight")
    if sft:
        parts.append(("sft", {"length_norm": (True, "pref_ftx")}))
        weights.append(sft)
    keys = ("pref_loss", "pref_ftx", "pref_bco_weight")
    set_loss(conversion, parts, *keys, weights=weights)


FRAMEWORK = Framework(
    title="LLaMA-Factory",
    hint="stage: dpo or kto",
    keys=load_table("llama_factory"),
    converters={
        "stage": _check_stage,
        "data": convert_data,
        "parts": convert_parts,
        "image_size": convert_image_size,
        "videos": convert_videos,
        "precision": convert_precision,
        "template": _convert_template,
        "loss": _convert_loss,
    },
)

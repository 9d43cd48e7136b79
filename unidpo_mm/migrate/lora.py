"""The LoRA keys of PEFT's command-line users: TRL and the official text code."""

from typing import Any

from .draft import Draft
from .keys import Key, left_out, quantised

__all__ = ["LORA_KEYS", "put_lora"]

USUAL_TARGETS = ["q_proj", "v_proj"]
"""What PEFT takes by itself for most language models."""

LORA_KEYS: dict[str, Key] = {
    "use_peft": Key("model.lora", "false trains every weight", joint=True, quiet=True),
    "lora_r": Key("model.lora.r", default=16, joint=True),
    "lora_alpha": Key("model.lora.alpha", default=32, joint=True),
    "lora_dropout": Key("model.lora.dropout", default=0.05, joint=True),
    "lora_target_modules": Key(
        "model.lora.targets",
        "`language_model`, ours, is all linear layers of that part",
        default=USUAL_TARGETS,
        joint=True,
        quiet=True,
    ),
    "lora_modules_to_save": Key("model.lora.modules_to_save", joint=True),
    **left_out(
        "only plain LoRA is built in recipes: give the trainer a peft.LoraConfig in Python",
        "use_rslora use_dora lora_target_parameters",
    ),
    **left_out("the task is causal language modelling in any case", "lora_task_type"),
    **quantised(
        "load_in_8bit load_in_4bit bnb_4bit_quant_type use_bnb_nested_quant bnb_4bit_quant_storage"
    ),
}


def put_lora(draft: Draft) -> bool:
    """States the LoRA, or that there is none; returns whether there is one."""
    stated = [key for key in LORA_KEYS if key in draft.values and draft.keys[key].joint]
    if draft.values.get("use_peft") is not True:
        if "use_peft" in draft.values:
            draft.put("model.lora", None, "use_peft")
        for key in stated:
            if key != "use_peft":
                draft.note(key, "there is no LoRA without `use_peft: true`, so it has no effect")
        return False
    for name in ("r", "alpha", "dropout"):
        draft.put(f"model.lora.{name}", draft.value(f"lora_{name}"), f"lora_{name}")
    draft.carried.add("use_peft")
    draft.put("model.lora.targets", _targets(draft), "lora_target_modules")
    if "lora_modules_to_save" in draft.values:
        names = draft.value("lora_modules_to_save") or []
        draft.put("model.lora.modules_to_save", names, "lora_modules_to_save")
    return True


def _targets(draft: Draft) -> Any:
    targets = draft.value("lora_target_modules")
    if draft.values.get("lora_target_modules") is None:
        text = (
            "no LoRA targets are named and PEFT chooses by the model's type, most often q_proj and "
            "v_proj, which are written out: check them, or take language_model"
        )
        draft.note("lora_target_modules", text)
    if targets in ("all-linear", ["all-linear"]):
        return "all-linear"
    return list(targets) if isinstance(targets, list) else targets

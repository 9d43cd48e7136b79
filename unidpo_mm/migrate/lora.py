"""LoRA as the command lines of TRL and of the official text code have it."""

from .conversion import Conversion

__all__ = ["convert_kind", "convert_lora"]


def convert_kind(conversion: Conversion) -> None:
    """Convert the switches for kinds of LoRA, which have the same names everywhere."""
    for key in ("use_dora", "use_rslora"):
        if conversion.flag(key):
            conversion.set(conversion.keys[key].target, True, key)


def convert_lora(conversion: Conversion) -> None:
    """Convert the keys of `tables/lora.yaml`; they have no effect unless `use_peft` is true."""
    if conversion.values.get("use_peft") is not True:
        if "use_peft" in conversion.values:
            conversion.set("model.lora", None, "use_peft")
        for key in conversion.keys_of("lora"):
            if key != "use_peft":
                conversion.note(key, "has no effect: there is no LoRA without `use_peft: true`")
        return
    conversion.used_keys.add("use_peft")
    for key in ("lora_r", "lora_alpha", "lora_dropout"):
        conversion.set(conversion.keys[key].target, conversion.value(key), key)
    targets = conversion.value("lora_target_modules")
    if conversion.values.get("lora_target_modules") is None:
        text = (
            "no targets are stated, so PEFT chooses by model type, most often q_proj and v_proj, "
            "which the recipe states; check them, or use language_model"
        )
        conversion.note("lora_target_modules", text)
    if targets == ["all-linear"]:
        targets = "all-linear"
    conversion.set("model.lora.targets", targets, "lora_target_modules")
    convert_kind(conversion)
    if "lora_modules_to_save" in conversion.values:
        modules = conversion.value("lora_modules_to_save") or []
        conversion.set("model.lora.modules_to_save", modules, "lora_modules_to_save")

"""TRL 1.x: the arguments of `trl dpo --config`, as YAML or JSON."""

from typing import Any

from .conversion import Conversion, Framework
from .lora import convert_lora
from .losses import LossRule, load_losses, loss_rule, note_unused, parameters_of, set_loss
from .table import load_file, load_table

__all__ = ["FRAMEWORK"]

LOSSES = load_losses("trl")
KTO_KEYS = ("desirable_weight", "undesirable_weight")
"""Keys by which a file of `trl kto` is recognized, whose default loss is another one."""
DIVERGENCES = load_file("trl")["divergences"]
FILE_FORMATS = ("json", "parquet")
"""Names of data sets that stand for a file format."""


def _convert_model(conversion: Conversion) -> None:
    arguments = conversion.values.get("model_init_kwargs") or {}
    if not isinstance(arguments, dict):
        conversion.problem("model_init_kwargs", "expected a mapping", "Use {name: value}")
        arguments = {}
    elif not arguments and "model_init_kwargs" in conversion.values:
        conversion.skip("model_init_kwargs")
    for name, value in arguments.items():
        section = "model" if name in ("dtype", "attn_implementation") else "model.init_kwargs"
        conversion.set(f"{section}.{name}", value, "model_init_kwargs")
    bf16 = conversion.values.get("bf16")
    if bf16 is None:
        bf16 = conversion.values.get("fp16") is not True
    conversion.set("train.bf16", bf16, "bf16")
    style = "TRL applies the chat template to messages only"
    conversion.set("model.prompt_style", "raw", comment=style)


def _convert_lora(conversion: Conversion) -> None:
    convert_lora(conversion)
    if conversion.get("model.lora") is None:
        conversion.set("model.freeze", [], comment="TRL trains every part")


def _convert_data(conversion: Conversion) -> None:
    conversion.set_eval_fraction("test_split_size")
    values = conversion.values
    entries, name = values.get("datasets"), values.get("dataset_name")
    if entries and not isinstance(entries, list):
        conversion.problem("datasets", "expected a list", "Use [{path: ..., split: ...}]")
        return
    if entries:
        sources = [source for entry in entries for source in _sources_of(conversion, entry)]
        conversion.set("data.sources", sources, "datasets")
        for key in ("dataset_name", "dataset_train_split", "dataset_test_split"):
            if key in values:
                conversion.note(key, "has no effect together with `datasets`")
        return
    if "datasets" in values:
        conversion.skip("datasets")
    if name is None:
        return
    split = values.get("dataset_train_split")
    source = {"path": name} if split is None else {"path": name, "split": split}
    conversion.set("data.sources", [source], "dataset_name", "dataset_train_split")
    if conversion.get("train.eval_strategy") not in (None, "no"):
        held_out = {"path": name, "split": conversion.value("dataset_test_split") or "test"}
        conversion.set("data.eval_sources", [held_out], "dataset_test_split", "dataset_name")
    elif "dataset_test_split" in values:
        conversion.note("dataset_test_split", "not used, because eval_strategy is 'no'")


def _sources_of(conversion: Conversion, entry: Any) -> list[dict[str, Any]]:
    """Return the sources for an entry of `datasets`, one per file."""
    if not isinstance(entry, dict) or "path" not in entry:
        conversion.problem("datasets", "an entry has no path", "Use {path: ..., split: ...}")
        return []
    files = entry.get("data_files") if entry["path"] in FILE_FORMATS else None
    paths = [files] if isinstance(files, str) else files or [entry["path"]]
    ignored = sorted(set(entry) - {"path", "split"} - ({"data_files"} if files else set()))
    if ignored:
        text = f"{', '.join(ignored)} of '{entry['path']}' is ignored; write those rows into a file"
        conversion.note("datasets", text)
    split = {} if entry.get("split") is None else {"split": entry["split"]}
    return [{"path": path, **split} for path in paths]


def _loss_type(conversion: Conversion) -> Any:
    """Return the names of the losses; those of `trl kto` have another default."""
    is_kto = bool(set(KTO_KEYS) & conversion.values.keys())
    return (
        "kto" if is_kto and "loss_type" not in conversion.values else conversion.value("loss_type")
    )


def _convert_loss(conversion: Conversion) -> None:
    losses = _loss_type(conversion)
    names = [str(name) for name in (losses if isinstance(losses, list) else [losses])]
    matches = [loss_rule(conversion, "loss_type", name, LOSSES) for name in names]
    rules = [rule for rule in matches if rule is not None]
    weights = conversion.values.get("loss_weights") or [1.0] * len(names)
    weighting = conversion.values.get("use_weighting") is True
    if len(rules) < len(names) or not _is_valid(conversion, names, rules, weights, weighting):
        return
    parts = [(rule.name, parameters_of(conversion, rule, "loss_type")) for rule in rules]
    if (divergence := conversion.value("f_divergence_type")) in DIVERGENCES:
        parameters = {**parts[0][1], "divergence": (DIVERGENCES[divergence], "f_divergence_type")}
        if divergence == "alpha_divergence":
            key = "f_alpha_divergence_coef"
            parameters["alpha"] = (conversion.value(key), key)
        parts = [("f_dpo", parameters)]
    if (alpha := conversion.value("ld_alpha")) is not None:
        parts = [("ld_dpo", {**parts[0][1], "ld_alpha": (alpha, "ld_alpha")})]
    used = {"loss_type", *(key for _, parameters in parts for _, key in parameters.values())}
    if divergence == "reverse_kl":
        used.add("f_divergence_type")  # the divergence of every loss
    if weighting:
        used.add("use_weighting")
        set_loss(conversion, [("wpo", parts[0][1])], "use_weighting", "loss_type")
        conversion.note("use_weighting")
    elif len(names) == 1 and (weights == [1] or names == ["sft"]):
        set_loss(conversion, parts, "loss_type")
    else:
        used.add("loss_weights")
        set_loss(conversion, parts, "loss_type", "loss_weights", weights=weights)
    if "loss_weights" not in used and conversion.values.get("loss_weights") is not None:
        used.add("loss_weights")
        conversion.note("loss_weights", "a single loss always has the weight 1")
    if "sft" in names:
        text = "in a recipe 'sft' averages over responses, in TRL over all tokens of a batch"
        conversion.note("loss_type", text)
    note_unused(conversion, ", ".join(names), used)


def _is_valid(
    conversion: Conversion,
    names: list[str],
    rules: list[LossRule],
    weights: Any,
    weighting: bool,
) -> bool:
    """Add the problems of the combination of losses and weights; return whether there are none."""
    before = len(conversion.problems)
    numbers = isinstance(weights, list) and all(isinstance(item, int | float) for item in weights)
    if not numbers or len(weights) != len(names):
        text = f"expected one number for each of the {len(names)} losses"
        conversion.problem("loss_weights", text, "Set one weight per loss in loss_type")
    if len({rule.name for rule in rules}) < len(rules):
        text = "two of these losses are the same loss in a recipe"
        conversion.problem("loss_type", text, "Use one of them, with the sum of their weights")
    if weighting and names != ["sigmoid"]:
        text = "WPO weighting is supported for sigmoid only"
        conversion.problem("use_weighting", text, "Use loss_type: sigmoid, or remove it")
    divergence = conversion.value("f_divergence_type")
    if divergence not in ("reverse_kl", *DIVERGENCES):
        text = f"there is no divergence '{divergence}'"
        remedy = f"Use one of reverse_kl, {', '.join(DIVERGENCES)}"
        conversion.problem("f_divergence_type", text, remedy)
    elif divergence != "reverse_kl" and (weighting or names != ["sigmoid"]):
        text = "another divergence is supported for sigmoid only"
        conversion.problem("f_divergence_type", text, "Use loss_type: sigmoid, or remove it")
    if conversion.value("ld_alpha") is not None and (
        weighting or names != ["sigmoid"] or divergence != "reverse_kl"
    ):
        text = "length desensitization is supported for sigmoid alone"
        conversion.problem("ld_alpha", text, "Use loss_type: sigmoid, or remove it")
    return len(conversion.problems) == before


FRAMEWORK = Framework(
    title="TRL",
    hint="dataset_name and loss_type",
    keys={**load_table("trl"), **load_table("lora")},
    converters={
        "model": _convert_model,
        "lora": _convert_lora,
        "data": _convert_data,
        "loss": _convert_loss,
    },
)

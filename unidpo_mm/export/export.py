"""Export a trained model: write it, compare it with its base model, and prove that it is equal."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..adapter import Adapter, AdapterFamily, AdapterOptions
from ..errors import ModelError, Problem, counted
from ..inference.image_tokens import check_image_tokens
from ..lora_directory import ADAPTER_CONFIG
from ..modeling.checkpoint_names import head_names
from ..modeling.families import VISION, family_for
from ..modeling.load import ModelSource, load_config, load_processor, load_weights
from ..modeling.peft_models import is_peft_model, using_adapter
from ..modeling.tensor_files import TensorFiles, tensors_not_loaded
from ..report import RunRecord
from .adapter_files import serving_limits, write_adapter
from .card import ModelCard
from .evaluation import Evaluation
from .merge import merge_adapter
from .output import check_output, complete_or_absent
from .proof import Measurement, Proof, compare, measure, measure_plain, probe_rows
from .tensors import add_tensors, check_names

__all__ = ["ExportOptions", "ExportedModel", "export_model"]

CARD_FILE = "README.md"


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """The options of an export.

    Attributes:
        output: The directory to write; it must be empty or not exist.
        merge: Whether a LoRA adapter is merged into its base model.
        dtype: Number format of the weights; ``auto`` for that of the model.
        base: Base model; `None` for the one that is recorded.
        evaluations: Results for the model card.
        name: Name of the model on its card; `None` for that of the directory.
    """

    output: Path
    merge: bool = False
    dtype: str = "auto"
    base: str | None = None
    evaluations: tuple[Evaluation, ...] = ()
    name: str | None = None


@dataclass(frozen=True, kw_only=True)
class ExportedModel:
    """An exported model on disk.

    Attributes:
        directory: Its directory.
        base: The base model.
        kind: A LoRA adapter, a LoRA adapter merged into its base model, or a model that was trained
            in full.
        auto_class: The transformers class that loads it.
        dtype: The number format of the model that was compared.
        proof: The comparison with the trained model.
        notes: What the user should know.
    """

    directory: Path
    base: str
    kind: str
    auto_class: str
    dtype: str
    proof: Proof
    notes: tuple[str, ...]

    def text(self) -> str:
        """Return what was written and proven, in a few lines."""
        what = {
            "adapter": f"the LoRA adapter for '{self.base}'",
            "merged": f"the LoRA adapter merged into '{self.base}'",
            "full": "the model",
        }
        load = f"transformers.{self.auto_class}.from_pretrained('{self.directory}')"
        if self.kind == "adapter":
            load = (
                f"transformers.{self.auto_class}.from_pretrained('{self.base}'), then "
                f"model.load_adapter('{self.directory}')"
            )
        proof = self.proof
        lines = [
            f"Exported {what[self.kind]} to '{self.directory}'. Load it with {load}",
            f"Loaded with transformers, {proof.logps} log-probs differ by at most "
            f"{proof.difference:.1e} from the trained model; {proof.equal_tokens} of "
            f"{proof.tokens} greedy tokens are equal; the weights have the names of the base model",
            *(f"Note: {note}" for note in self.notes),
        ]
        return "\n".join(lines)


@dataclass(frozen=True, kw_only=True)
class _Trained:
    """The trained model without its weights: family, files, and results for the probe rows."""

    family: AdapterFamily
    adapter: Adapter
    source: ModelSource
    base: TensorFiles
    measurement: Measurement
    effect: float | None
    """Maximum change of a log-prob by the LoRA adapter; `None` if there is none."""


def export_model(record: RunRecord, options: ExportOptions) -> ExportedModel:
    """Write a trained model to a directory, with its processor and a model card.

    All files are written to a temporary directory next to the output, which is renamed at the end,
    so the output is complete and proven, or does not exist.

    Raises:
        ModelError: If the model cannot be exported, or the exported model is not equal to it.
    """
    check_output(options.output)
    if options.merge and not record.is_adapter:
        problem = f"'{record.directory}' is a full model, not a LoRA adapter"
        raise ModelError(Problem("--merge", problem, "Remove it"))
    model, trained = _load(record, options)
    where = str(record.directory)
    with complete_or_absent(options.output) as directory:
        notes = _write(model, trained, directory, options, where)
        is_served = options.merge or not serving_limits(model)
        del model  # before the exported one is loaded
        proof = _prove(trained, directory, record)
        notes += _warnings(trained, proof)
        if record.model.get("quantization"):
            notes.append(
                f"the LoRA adapter was trained on {record.model['quantization']['bits']}-bit "
                "weights, and was compared on the weights of the base model without quantization"
            )
        exported = ExportedModel(
            directory=options.output,
            base=trained.base.name_or_path,
            kind=_kind(record, options),
            auto_class=trained.family.auto_class,
            dtype=trained.source.dtype,
            proof=proof,
            notes=tuple(notes),
        )
        card = ModelCard(
            record=record,
            name=options.name or options.output.name,
            base=exported.base,
            kind=exported.kind,
            auto_class=exported.auto_class,
            has_images=VISION in trained.family.parts,
            lora=_lora_config(directory),
            is_served=is_served,
            proof=proof,
            notes=exported.notes,
            evaluations=options.evaluations,
        )
        (directory / CARD_FILE).write_text(card.text(), encoding="utf-8")
    return exported


def _kind(record: RunRecord, options: ExportOptions) -> str:
    if not record.is_adapter:
        return "full"
    return "merged" if options.merge else "adapter"


def _load(record: RunRecord, options: ExportOptions) -> tuple[Any, _Trained]:
    """Load the trained model and measure it."""
    source = ModelSource(
        name_or_path=str(record.directory),
        dtype=options.dtype,
        adapter=record.model.get("adapter"),
        trust_remote_code=bool(record.model.get("trust_remote_code")),
        base_name_or_path=options.base if record.is_adapter else None,
        base_key="--base",
    )
    config = load_config(source)
    if options.merge and getattr(config, "quantization_config", None) is not None:
        problem = f"its base model '{source.model_name}' is quantized"
        remedy = "Set --base to the same model without quantization"
        raise ModelError(Problem(source.name_or_path, problem, remedy))
    family = family_for(config, source.adapter)
    processor = load_processor(source, family)
    base_name = source.model_name if record.is_adapter else options.base or record.start
    if base_name is None:
        problem = "there is no record of a run, so its base model is unknown"
        raise ModelError(Problem(source.name_or_path, problem, "Set --base to its base model"))
    base = TensorFiles(base_name)
    model: Any = load_weights(source, family, is_trainable=False)
    adapter = family.create(
        processor,
        config,
        AdapterOptions(
            prompt_style=record.model.get("prompt_style") or "auto",
            chat_template_kwargs=record.model.get("chat_template_kwargs") or {},
        ),
    )
    check_image_tokens(model, adapter, model.device)
    rows = probe_rows(family, adapter)
    measurement, effect = measure(model, adapter, rows), None
    if is_peft_model(model):
        with using_adapter(model, None):
            effect = measurement.difference(measure(model, adapter, rows))
    trained = _Trained(
        family=family,
        adapter=adapter,
        source=source,
        base=base,
        measurement=measurement,
        effect=effect,
    )
    return model, trained


def _write(
    model: Any, trained: _Trained, directory: Path, options: ExportOptions, where: str
) -> list[str]:
    """Write weights and processor; return notes for the user."""
    notes = []
    if is_peft_model(model) and not options.merge:
        changed = write_adapter(
            model,
            directory,
            trained.base,
            base_name=trained.source.model_name,
            dtype=options.dtype,
            where=where,
        )
        if changed:
            notes.append(
                f"{counted(changed, 'weight has', 'weights have')} another name than in memory, "
                "which transformers and vLLM understand and PeftModel.from_pretrained of peft does "
                "not: with peft, use the directory of the run"
            )
        if limits := serving_limits(model):
            notes.append(
                f"vLLM does not serve adapters with {' and '.join(limits)}: use --merge for it"
            )
    else:
        merged = merge_adapter(model, where) if is_peft_model(model) else model
        notes += _write_model(merged, directory, trained, where)
    trained.adapter.processor.save_pretrained(directory)
    return notes


def _write_model(model: Any, directory: Path, trained: _Trained, where: str) -> list[str]:
    """Write a full model with all tensors of its base model."""
    base, notes = trained.base, []
    head = head_names(model)
    not_loaded = tensors_not_loaded(model, base)
    is_tied = bool(getattr(model.config.get_text_config(), "tie_word_embeddings", False))
    tied, untied = (head, set()) if is_tied else (set(), head)
    _check_same_model(model, trained, where)
    model.save_pretrained(directory)
    if not_loaded:
        add_tensors(directory, base.read(not_loaded))
        notes.append(
            f"{counted(len(not_loaded), 'tensor')} of the base model that "
            f"{type(model).__name__} does not load, such as {not_loaded[0]}, "
            f"{'was' if len(not_loaded) == 1 else 'were'} copied unchanged"
        )
    saved = TensorFiles(str(directory)).shapes
    check_names(saved, base, tied=tied, untied=untied, where=where)
    return notes


def _check_same_model(model: Any, trained: _Trained, where: str) -> None:
    """Refuse a model that has not all modules of its base model.

    A class that serves only a part of a model, such as its language model, saves that part.
    """
    import transformers

    config = load_config(
        dataclasses.replace(
            trained.source, name_or_path=trained.base.name_or_path, base_name_or_path=None
        )
    )
    remedy = "Set --base to the model that was trained"
    if model.config.model_type != config.model_type:
        problem = (
            f"it is of the type '{model.config.model_type}', and its base model of the type "
            f"'{config.model_type}'"
        )
        raise ModelError(Problem(where, problem, remedy))
    auto_class = getattr(transformers, trained.family.auto_class)
    with torch.device("meta"):
        untrained = auto_class.from_config(
            config, trust_remote_code=trained.source.trust_remote_code
        )
    different = sorted(untrained.state_dict().keys() ^ model.state_dict().keys())
    if different:
        problem = f"its modules are not those of its base model, for example {different[0]}"
        raise ModelError(Problem(where, problem, remedy))


def _lora_config(directory: Path) -> dict[str, Any]:
    """Return the configuration of an exported LoRA adapter; empty for a full model."""
    path = directory / ADAPTER_CONFIG
    if not path.is_file():
        return {}
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def _prove(trained: _Trained, directory: Path, record: RunRecord) -> Proof:
    """Load the exported files with transformers alone, and compare the results."""
    import transformers

    auto_class = getattr(transformers, trained.family.auto_class)
    kwargs = {"trust_remote_code": trained.source.trust_remote_code}
    if (directory / "config.json").is_file():
        model, report = auto_class.from_pretrained(
            directory, dtype="auto", output_loading_info=True, **kwargs
        )
        _check_loaded(report["missing_keys"], str(directory))
    else:
        name = trained.source.model_name
        model = auto_class.from_pretrained(name, dtype=trained.source.dtype, **kwargs)
        report = model.load_adapter(str(directory))
        _check_loaded({*report.missing_keys, *report.unexpected_keys}, str(directory))
    loader = (
        transformers.AutoProcessor if trained.family.needs_processor else transformers.AutoTokenizer
    )
    plain = measure_plain(
        model,
        loader.from_pretrained(directory, **kwargs),
        trained.adapter,
        probe_rows(trained.family, trained.adapter),
        style=record.model.get("prompt_style") or "auto",
        variables=record.model.get("chat_template_kwargs") or {},
    )
    where = str(record.directory)
    return compare(trained.measurement, plain, where=where, what="the exported model")


def _check_loaded(keys: Any, where: str) -> None:
    """Refuse an exported model of which transformers does not load every tensor."""
    if keys:
        text = counted(len(keys), "tensor does", "tensors do")
        problem = f"{text} not fit the exported model, such as {min(keys)}"
        raise ModelError(Problem(where, problem, "Report this as a bug"))


def _warnings(trained: _Trained, proof: Proof) -> list[str]:
    """Return what is suspicious about a proven model."""
    effect = trained.effect
    if effect is None:
        return []
    if effect == 0:
        return ["the LoRA adapter changes nothing: its weights are zero"]
    if proof.difference > effect / 2:
        return [
            f"rounding changes log-probs by up to {proof.difference:.2g}, the LoRA adapter by up "
            f"to {effect:.2g}: use --dtype float32, or export the adapter without --merge"
        ]
    return []

"""Runs that start from a PEFT model or a LoRA adapter directory: reference, saving, resuming."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import IMAGE_TYPES, make_image, mixed_rows
from peft import LoraConfig, PeftModel, get_peft_model
from trainers import config, make_trainer, state_of

from unidpo_mm import UniDPOTrainer
from unidpo_mm.config import LoraOptions
from unidpo_mm.errors import ModelError, RecipeError, UniDPOError
from unidpo_mm.modeling.references.cached import CachedReference
from unidpo_mm.modeling.references.kinds import FrozenCopy, FrozenLora, LoraOff

Checkpoint = Callable[[str], Path]
LOG_2 = 0.6931471805599453
ADAPTER_FILES = {"adapter_config.json", "adapter_model.safetensors"}


def base_of(folder: Path) -> Any:
    import transformers

    kind = json.loads((folder / "config.json").read_text())["model_type"]
    auto = "AutoModelForImageTextToText" if kind in IMAGE_TYPES else "AutoModelForCausalLM"
    return getattr(transformers, auto).from_pretrained(folder)


def trained_model(folder: Path, base: Any = None) -> Any:
    """Return a PEFT model with a trained LoRA adapter, as after supervised fine-tuning."""
    torch.manual_seed(0)
    lora = LoraConfig(
        r=4, target_modules=r".*(language_model|^model)\.layers.*(q_proj|v_proj)",
        task_type="CAUSAL_LM",
    )  # fmt: skip
    model = get_peft_model(base_of(folder) if base is None else base, lora)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3)
    return model


def trained_adapter(folder: Path, output: Path) -> Path:
    trained_model(folder).save_pretrained(output)
    return output


def dpo(output: Path, **settings: Any) -> Any:
    return config(
        output,
        **{
            "loss_type": "dpo",
            "optim": "adamw_torch",
            "learning_rate": 1e-2,
            "save_strategy": "steps",
            "save_steps": 1,
            "max_steps": 2,
            **settings,
        },
    )


def first_entry(trainer: UniDPOTrainer) -> dict[str, float]:
    entry: dict[str, float] = next(e for e in trainer.state.log_history if "loss" in e)
    return entry


def rows_for(model_type: str) -> list[Any]:
    return mixed_rows(images=model_type in IMAGE_TYPES)[::-1]


def processor_of(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


# ---- an adapter directory, from its first step to its last checkpoint ----


@pytest.mark.parametrize("model_type", ["llama", "llava", "qwen2_vl"])
def test_training_continues_from_an_adapter_directory(
    checkpoint: Checkpoint, tmp_path: Path, model_type: str
) -> None:
    base, rows = checkpoint(model_type), rows_for(model_type)
    sft = trained_adapter(
        base, tmp_path / "sft"
    )  # without a processor: that of the base model is used
    straight = make_trainer(sft, rows, dpo(tmp_path / "a"))
    started = state_of(straight)
    straight.train()
    assert isinstance(straight.parts.reference, FrozenLora)
    entry = first_entry(straight)
    assert entry["loss"] == pytest.approx(LOG_2, abs=1e-6)
    assert entry["rewards/margins"] == 0.0

    folder = tmp_path / "a" / "checkpoint-2"
    files = {path.name for path in folder.iterdir()}
    assert files >= ADAPTER_FILES
    assert "README.md" not in files
    assert not any(path.is_dir() for path in folder.iterdir())
    trained = state_of(straight)
    moved = {name for name in trained if not torch.equal(trained[name], started[name])}
    assert moved
    assert all(".lora_" in name and ".default." in name for name in moved)

    plain = PeftModel.from_pretrained(base_of(base), folder)
    ours = {n: v for n, v in trained.items() if "unidpo_reference" not in n}
    theirs = plain.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())

    resumed = make_trainer(sft, rows, dpo(tmp_path / "b"))
    resumed.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-1"))
    assert all(torch.equal(value, trained[name]) for name, value in state_of(resumed).items())
    log = [(e["step"], e["loss"]) for e in straight.state.log_history if "loss" in e]
    assert log == [(e["step"], e["loss"]) for e in resumed.state.log_history if "loss" in e]


def test_a_lora_checkpoint_is_an_adapter_directory(checkpoint: Checkpoint, tmp_path: Path) -> None:
    base = checkpoint("llava")
    rows = [*rows_for("llava")]
    lora = LoraConfig(r=2, target_modules=["q_proj", "v_proj"])  # as in the README
    first = make_trainer(base, rows, dpo(tmp_path / "a", max_steps=1), peft_config=lora)
    trainable = [name for name, p in first.model.named_parameters() if p.requires_grad]
    assert trainable
    assert all("language_model" in name for name in trainable)
    assert isinstance(first.parts.reference, LoraOff)
    first.train()
    folder = tmp_path / "a" / "checkpoint-1"
    again = make_trainer(folder, rows, dpo(tmp_path / "b", max_steps=1))
    assert again.parts.adapter.processor.chat_template is not None
    trained = state_of(first)
    assert all(torch.equal(trained[name], v) for name, v in state_of(again).items() if
               "unidpo_reference" not in name)  # fmt: skip
    again.train()
    assert first_entry(again)["loss"] == pytest.approx(LOG_2, abs=1e-6)


def test_the_base_model_of_an_adapter_may_have_moved(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    shutil.copytree(checkpoint("llama"), base)
    sft = trained_adapter(base, tmp_path / "sft")
    base.rename(tmp_path / "moved")
    with pytest.raises(ModelError, match=r"adapter_config.json: .* does not exist\. Set model\."):
        make_trainer(sft, rows_for("llama"), dpo(tmp_path / "out"))
    args = dpo(tmp_path / "out", base_name_or_path=str(tmp_path / "moved"))
    make_trainer(sft, rows_for("llama"), args)
    with pytest.raises(ModelError, match="is not a LoRA adapter directory"):
        make_trainer(tmp_path / "moved", rows_for("llama"), args)


def test_an_adapter_of_another_model_is_refused(checkpoint: Checkpoint, tmp_path: Path) -> None:
    from unidpo_mm.plugins import load_family

    sft = trained_adapter(checkpoint("llama"), tmp_path / "sft")
    for sizes in ({"hidden_size": 16}, {"num_hidden_layers": 1}):
        other = load_family("text").tiny(tmp_path / str(sizes), model_type="llama", **sizes)
        args = dpo(tmp_path / "out", base_name_or_path=str(other))
        with pytest.raises(ModelError, match="does not fit its base model"):
            make_trainer(sft, rows_for("llama"), args)


# ---- models passed from Python ----


def test_a_trained_adapter_is_not_compared_with_the_bare_base(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    base = checkpoint("llama")
    losses = {}
    for reference in ("auto", "frozen_copy", "cached", "lora_off"):
        trainer = make_trainer(
            trained_model(base),
            rows_for("llama"),
            dpo(tmp_path / reference, max_steps=1, save_strategy="no", reference=reference),
            processing_class=processor_of(base),
        )
        trainer.train()
        losses[reference] = first_entry(trainer)["loss"]
        if reference == "cached":
            assert isinstance(trainer.parts.reference, CachedReference)
            assert isinstance(trainer.parts.reference.source, FrozenLora)
    wrong = losses.pop("lora_off")  # the former default, which differs
    assert abs(wrong - LOG_2) > 1e-2
    assert list(losses.values()) == pytest.approx([LOG_2] * 3, abs=1e-5)


def test_a_resumed_run_refuses_the_trained_model_as_initial_model(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    base = checkpoint("llama")
    sft = trained_adapter(base, tmp_path / "sft")
    make_trainer(sft, rows_for("llama"), dpo(tmp_path / "a", max_steps=2)).train()
    last = tmp_path / "a" / "checkpoint-2"
    wrong = make_trainer(last, rows_for("llama"), dpo(tmp_path / "b", max_steps=3))
    with pytest.raises(RecipeError, match="the initial weights of the model have changed"):
        wrong.train(resume_from_checkpoint=str(last))
    wrong.args.allow_changes = ["model"]
    with pytest.raises(ModelError, match="reference differs from the one that this run started"):
        wrong.train(resume_from_checkpoint=str(last))
    args = dpo(tmp_path / "b", max_steps=3, reference="frozen_copy")
    other = make_trainer(sft, rows_for("llama"), args)
    other.train(
        resume_from_checkpoint=str(last)
    )  # another kind of reference with the same log-probs
    assert isinstance(other.parts.reference, FrozenCopy)


def test_an_adapter_with_another_name_is_saved_where_peft_loads_it(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    base, rows = checkpoint("llama"), rows_for("llama")
    sft = trained_adapter(base, tmp_path / "sft")

    def model() -> Any:
        loaded = PeftModel.from_pretrained(base_of(base), sft, "mine", is_trainable=True)
        loaded.load_adapter(sft, "theirs")
        loaded.set_adapter("mine")  # PEFT 0.20 freezes all weights when it loads an adapter
        return loaded

    kwargs = {"processing_class": processor_of(base)}
    straight = make_trainer(model(), rows, dpo(tmp_path / "a"), **kwargs)
    straight.train()
    folder = tmp_path / "a" / "checkpoint-1"
    assert {path.name for path in folder.iterdir()} > ADAPTER_FILES
    assert not any(path.is_dir() for path in folder.iterdir())
    resumed = make_trainer(model(), rows, dpo(tmp_path / "b"), **kwargs)
    resumed.train(resume_from_checkpoint=str(folder))
    trained = state_of(straight)
    assert all(torch.equal(value, trained[name]) for name, value in state_of(resumed).items())
    again = PeftModel.from_pretrained(base_of(base), tmp_path / "a" / "checkpoint-2")
    ours = [v for n, v in trained.items() if "lora_A.mine" in n]
    theirs = [v for n, v in again.state_dict().items() if "lora_A" in n]
    assert all(torch.equal(*pair) for pair in zip(ours, theirs, strict=True))


def test_adapter_names_work_as_in_trl(checkpoint: Checkpoint, tmp_path: Path) -> None:
    base, rows = checkpoint("llama"), rows_for("llama")
    sft = trained_adapter(base, tmp_path / "sft")
    model = PeftModel.from_pretrained(base_of(base), sft, "tuned", is_trainable=True)
    model.load_adapter(sft, "ref")
    model.set_adapter("tuned")  # PEFT 0.20 freezes all weights when it loads an adapter
    kwargs = {"processing_class": processor_of(base)}
    names = {"model_adapter_name": "tuned", "ref_adapter_name": "ref"}
    for wrong, message in (
        ({"ref_adapter_name": "refs"}, "no adapter 'refs', did you mean 'ref'"),
        ({"ref_adapter_name": "tuned"}, "is the adapter that is being trained"),
        ({"model_adapter_name": "tuend"}, "no adapter 'tuend', did you mean 'tuned'"),
        ({"reference": "lora_off"}, "cannot be combined with reference='lora_off'"),
    ):
        with pytest.raises(ModelError, match=message):
            make_trainer(model, rows, dpo(tmp_path / "x", **{**names, **wrong}), **kwargs)
    with pytest.raises(ModelError, match="the model is not a PEFT model"):
        make_trainer(base, rows, dpo(tmp_path / "x", ref_adapter_name="ref"))
    trainer = make_trainer(model, rows, dpo(tmp_path / "a", max_steps=1, **names), **kwargs)
    trainer.train()
    assert trainer.parts.reference.name == "ref"
    assert list(model.peft_config) == ["tuned", "ref"]
    assert first_entry(trainer)["loss"] == pytest.approx(LOG_2, abs=1e-6)


@pytest.mark.parametrize("shared", ["the base", "a second PEFT model on the base"])
def test_a_ref_model_with_trainable_weights_of_the_model_is_refused(
    checkpoint: Checkpoint, tmp_path: Path, shared: str
) -> None:
    folder = checkpoint("llama")
    sft = trained_adapter(folder, tmp_path / "sft")
    base = base_of(folder)
    ref_model = base if shared == "the base" else PeftModel.from_pretrained(base, sft)
    model = PeftModel.from_pretrained(base, sft, is_trainable=True)
    with pytest.raises(ModelError, match="ref_model shares trainable weights"):
        make_trainer(
            model,
            rows_for("llama"),
            dpo(tmp_path / "out"),
            processing_class=processor_of(folder),
            ref_model=ref_model,
        )


def test_a_ref_model_may_be_an_adapter_directory(checkpoint: Checkpoint, tmp_path: Path) -> None:
    sft = trained_adapter(checkpoint("llama"), tmp_path / "sft")
    args = dpo(tmp_path / "out", max_steps=1, save_strategy="no")
    trainer = make_trainer(sft, rows_for("llama"), args, ref_model=str(sft))
    trainer.train()
    assert first_entry(trainer)["loss"] == pytest.approx(LOG_2, abs=1e-6)


# ---- trained parts ----


def test_a_run_in_which_nothing_trains_is_refused(checkpoint: Checkpoint, tmp_path: Path) -> None:
    base, rows = checkpoint("llama"), rows_for("llama")
    sft = trained_adapter(base, tmp_path / "sft")
    kwargs = {"processing_class": processor_of(base)}
    frozen = PeftModel.from_pretrained(base_of(base), sft)
    with pytest.raises(ModelError, match="is_trainable=True"):
        make_trainer(frozen, rows, dpo(tmp_path / "out"), **kwargs)
    model = trained_model(base)
    with pytest.raises(ModelError, match="every trainable weight is in a frozen part"):
        make_trainer(model, rows, dpo(tmp_path / "out", freeze=["language_model"]), **kwargs)
    plain = base_of(base)
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1)
    trainer = make_trainer(
        trained_model(base, plain), rows, dpo(tmp_path / "out"), optimizers=(optimizer, None),
        **kwargs,
    )  # fmt: skip
    with pytest.raises(ModelError, match="optimizer has none of the trainable weights"):
        trainer.train()


def test_training_only_vision_on_text_is_refused(checkpoint: Checkpoint, tmp_path: Path) -> None:
    text, image = mixed_rows(images=False), mixed_rows(images=True)
    args = dpo(tmp_path / "out", freeze=["language_model"])
    with pytest.raises(ModelError, match="no row has an image"):
        make_trainer(checkpoint("llava"), text, args)
    make_trainer(checkpoint("llava"), image, args)


def test_a_lora_adapter_on_the_vision_tower_trains_with_its_reference(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    """The reference runs first, without the LoRA adapter; the policy must not use its features."""
    rows = [
        {"prompt": "<image>What?", "images": [make_image(n)], "chosen": "a b c", "rejected": "b"}
        for n in range(2)
    ]
    lora = LoraOptions(r=2, targets=["vision_tower"])
    args = dpo(tmp_path, save_strategy="no", max_steps=1)
    trainer = make_trainer(checkpoint("llava"), rows, args, peft_config=lora)
    before = state_of(trainer)
    trainer.train()
    assert isinstance(trainer.parts.reference, LoraOff)
    moved = [n for n, v in state_of(trainer).items() if not torch.equal(v, before[n])]
    assert any("vision_tower" in name for name in moved)


def test_freeze_applies_to_an_adapter_of_a_peft_model(
    checkpoint: Checkpoint, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = checkpoint("llava")
    model = get_peft_model(base_of(folder), LoraConfig(r=2, target_modules=["q_proj"]))
    model.save_pretrained(tmp_path / "sft")
    unaware = make_trainer(tmp_path / "sft", rows_for("llava"), dpo(tmp_path / "a"))
    assert "also trains vision_tower" in caplog.text
    args = dpo(tmp_path / "b", freeze=["vision_tower"], max_steps=1)
    trainer = make_trainer(tmp_path / "sft", rows_for("llava"), args)

    def trains(trainer: UniDPOTrainer) -> set[bool]:
        return {"vision_tower" in n for n, p in trainer.model.named_parameters() if p.requires_grad}

    assert trains(unaware) == {True, False}
    assert trains(trainer) == {False}
    trainer.train()
    assert trains(trainer) == {False}


def test_a_new_adapter_on_an_adapter_directory_is_refused(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    sft = trained_adapter(checkpoint("llama"), tmp_path / "sft")
    with pytest.raises(ModelError, match=r"already has an adapter.*unidpo-mm merge"):
        make_trainer(sft, rows_for("llama"), dpo(tmp_path), peft_config=LoraOptions(r=2))


def test_contradictions_are_reported_together_with_the_problems_of_the_data(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    args = dpo(tmp_path, freeze=["vision_tower"])
    lora = LoraOptions(targets="vision_tower")
    with pytest.raises(UniDPOError, match="is adapted here and frozen by") as refused:
        make_trainer(checkpoint("llava"), [{"nonsense": 1}], args, peft_config=lora)
    assert len(refused.value.problems) == 2
    with pytest.raises(RecipeError, match="is adapted here and frozen by"):
        make_trainer(checkpoint("llava"), rows_for("llama"), args, peft_config=lora)
    with pytest.raises(RecipeError, match="ref_model is set and reference is 'lora_off'"):
        make_trainer(
            checkpoint("llama"),
            rows_for("llama"),
            dpo(tmp_path, reference="lora_off"),
            ref_model=str(checkpoint("llama")),
        )

"""A vision-language model is never served by a text family by default nor loses its tower."""

import logging
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from builders import EVERY_IMAGE_TYPE, family_name

from unidpo_mm.errors import ModelError
from unidpo_mm.modeling.families import family_for, has_vision

Checkpoint = Callable[[str], Path]

KEEP_THEIR_TOWER = ("git", "fuyu", "got_ocr2", "phi4_multimodal")
LOSE_THEIR_TOWER = ("llama4", "mllama", "emu3")
REASONS = {
    "llama4": "its language model contains the output head",
    "mllama": "through cross-attention layers",
    "molmo2": "indices into all images of a batch",
    "video_llava": "under a name that the model does not accept",
    "qwen2_5_omni": "its thinker (qwen2_5_omni_thinker) can be tuned",
    "florence2": "it is an encoder-decoder model",
    "t5gemma2": "it is an encoder-decoder model",
    "phi4_multimodal": "transformers does not offer it as an image-text-to-text model",
}
"""Model types that are not served, and a part of the reason."""
SERVED = {name: family_name(name) for name in EVERY_IMAGE_TYPE}


def config_of(model_type: str) -> Any:
    from transformers import AutoConfig

    return AutoConfig.for_model(model_type)


@pytest.mark.parametrize("model_type", SERVED)
def test_a_vision_language_model_is_served_by_a_family_with_images(model_type: str) -> None:
    family = family_for(config_of(model_type))
    assert family.name == SERVED[model_type]
    assert "vision_tower" in family.parts
    assert family.refuses(config_of(model_type)) is None


@pytest.mark.parametrize("model_type", REASONS)
def test_the_error_of_a_vision_language_model_says_why_it_is_not_served(model_type: str) -> None:
    with pytest.raises(ModelError) as error:
        family_for(config_of(model_type))
    assert REASONS[model_type] in error.value.problems[0].message


def test_no_vision_language_model_of_transformers_is_served_by_a_text_family() -> None:
    from transformers import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

    for model_type in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        config: Any = SimpleNamespace(
            model_type=model_type,
            is_encoder_decoder=False,
            sub_configs={"text_config": SimpleNamespace},
            get_text_config=lambda: SimpleNamespace(model_type="none"),
        )
        assert model_type in CONFIG_MAPPING
        if model_type in SERVED:
            assert family_for(config).name == SERVED[model_type]
        else:
            with pytest.raises(ModelError, match=f"'{model_type}' is a vision-language model"):
                family_for(config)


@pytest.mark.parametrize("model_type", ["glm_ocr", "vipllava", "aria"])
def test_a_type_without_an_entry_goes_through_the_general_family(model_type: str) -> None:
    family = family_for(config_of(model_type))
    assert family.name == "image_text"
    assert model_type not in family.model_types  # so it is compared with the library


@pytest.mark.parametrize("model_type", sorted({"git", *LOSE_THEIR_TOWER, *REASONS}))
def test_a_vision_language_model_without_a_family_is_refused(model_type: str) -> None:
    with pytest.raises(ModelError) as error:
        family_for(config_of(model_type))
    (problem,) = error.value.problems
    assert problem.where == "model.name_or_path"
    assert "image_text: internvl, gemma3" in problem.remedy
    assert f"'{model_type}' is a vision-language model" in str(error.value)
    assert "llava: llava, llava_next" in problem.remedy
    assert "qwen_vl: qwen2_vl" in problem.remedy
    assert ("set model.adapter to text" in problem.remedy) == (model_type in KEEP_THEIR_TOWER)


@pytest.mark.parametrize("model_type", KEEP_THEIR_TOWER)
def test_the_chosen_text_family_accepts_models_that_keep_their_tower(model_type: str) -> None:
    assert family_for(config_of(model_type), "text").name == "text"


@pytest.mark.parametrize("model_type", LOSE_THEIR_TOWER)
def test_the_chosen_text_family_refuses_models_that_would_lose_their_tower(model_type: str) -> None:
    with pytest.raises(ModelError, match=r"model.adapter: .*every checkpoint would lose the visio"):
        family_for(config_of(model_type), "text")


@pytest.mark.parametrize(
    "model_type", ["llama", "qwen3_5_text", "gemma3_text", "llama4_text", "gpt2", "mamba"]
)
def test_text_models_are_served_by_the_text_family(model_type: str) -> None:
    config = config_of(model_type)
    assert not has_vision(config)
    assert family_for(config).name == "text"


@pytest.mark.parametrize("setting", ["vision_config", "mm_vision_tower", "visual", "img_processor"])
def test_the_tower_of_a_model_with_custom_code_is_detected(setting: str) -> None:
    auto_map = {"AutoModelForCausalLM": "modeling.Model"}
    settings: dict[str, Any] = {"model_type": "custom_code", "auto_map": auto_map}
    config: Any = SimpleNamespace(**settings)
    assert family_for(config).name == "text"
    with pytest.raises(ModelError, match=r"model that no .* serves: its code is part of the "):
        family_for(SimpleNamespace(**settings, **{setting: {"hidden_size": 8}}))


def test_a_refused_model_is_not_loaded(tmp_path: Path) -> None:
    """Text rows must not train and save a model without its tower."""
    from trainers import config, make_trainer

    settings = config_of("llama4")
    settings.save_pretrained(tmp_path / "model")
    rows = [{"prompt": "Hi", "chosen": "Yes", "rejected": "No"}]
    with pytest.raises(ModelError, match="'llama4' is a vision-language model"):
        make_trainer(tmp_path / "model", rows, config(tmp_path / "out", loss_type="dpo"))


def test_an_untested_type_of_a_chosen_family_gives_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    unknown: Any = SimpleNamespace(model_type="own", vision_config={"hidden_size": 8})
    with caplog.at_level(logging.WARNING):
        assert family_for(unknown, "llava").name == "llava"
        assert family_for(config_of("vipllava"), "image_text").name == "image_text"
        assert family_for(config_of("llava"), "llava").name == "llava"
    first, second = [record.getMessage() for record in caplog.records]
    assert "'llava' was not tested with the model type 'own'" in first
    assert "'image_text' was not tested with the model type 'vipllava'" in second


@pytest.mark.parametrize(
    ("model_type", "chosen", "suitable"),
    [
        ("qwen2_vl", "text", "qwen_vl"),
        ("idefics2", "text", "image_text"),
        ("internvl", "qwen_vl", "image_text"),
        ("mistral3", "llava", "image_text"),
        ("llama", "llava", "text"),
    ],
)
def test_a_chosen_family_for_other_models_is_refused_with_the_one_that_serves_the_type(
    model_type: str, chosen: str, suitable: str
) -> None:
    with pytest.raises(ModelError) as error:
        family_for(config_of(model_type), chosen)
    assert str(error.value) == (
        f"model.adapter: the family '{chosen}' does not serve the model type '{model_type}'. "
        f"Remove model.adapter, or set it to '{suitable}'."
    )


@pytest.mark.parametrize("model_type", ["moshi", "moss_transcribe_diarize"])
@pytest.mark.parametrize("chosen", [None, "text"])
def test_a_model_of_audio_is_not_served_as_a_text_model(
    model_type: str, chosen: str | None
) -> None:
    with pytest.raises(ModelError, match=r"serves?.* '\w+': it processes audio, which is not sup"):
        family_for(config_of(model_type), chosen)


@pytest.mark.parametrize("setting", ["audio_config", "mm_audio_tower", "speech_encoder"])
def test_a_model_of_audio_with_custom_code_is_not_served_as_a_text_model(setting: str) -> None:
    auto_map = {"AutoModelForCausalLM": "modeling.Model"}
    settings: dict[str, Any] = {setting: "tower", "auto_map": auto_map}
    with pytest.raises(ModelError, match="it processes audio"):
        family_for(SimpleNamespace(model_type="custom_code", **settings))


def test_text_is_not_offered_for_a_vision_tower_that_the_class_does_not_load() -> None:
    from transformers import LlamaConfig

    config = LlamaConfig(vision_config={"hidden_size": 32})
    for chosen in (None, "text"):
        with pytest.raises(ModelError) as error:
            family_for(config, chosen)
        (problem,) = error.value.problems
        assert "set model.adapter to text" not in problem.remedy
        assert problem.remedy.endswith(
            "If its files contain no vision tower, remove vision_config from its config.json"
        )


def test_images_that_would_not_reach_the_model_are_refused(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Video-LLaVA's processor has other names for them."""
    from builders import load_tiny, make_image, row

    adapter: Any = load_tiny(checkpoint("llava")).adapter
    processor = adapter.processor

    class Renaming:
        def __getattr__(self, name: str) -> Any:
            return getattr(processor, name)

        def __call__(self, **inputs: Any) -> Any:
            encoded = processor(**inputs)
            encoded["pixel_values_images"] = encoded.pop("pixel_values")
            return encoded

    monkeypatch.setattr(adapter, "processor", Renaming())
    with pytest.raises(ModelError, match=r"returns pixel_values_images, which this model family d"):
        adapter.encode(row("r", "What?", images=[make_image(1)]))

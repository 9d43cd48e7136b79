"""Model types and variants that no table lists: served correctly, or refused with the reason."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from builders import make_image
from support.more_types import TYPES, VARIANTS, build_type
from trainers import config, make_trainer
from transformers import AutoConfig

from unidpo_mm.errors import ModelError
from unidpo_mm.modeling.families import family_for
from unidpo_mm.modeling.load import ModelSource, load_config
from unidpo_mm.testing import check_checkpoint

Checkpoint = Callable[[str], Path]

ROWS = [
    {"prompt": "What is it?", "images": [make_image(1)], "chosen": "A square", "rejected": "Blue"},
    {"prompt": "Write one word.", "chosen": "Hello", "rejected": "Two circle"},
]

BY_CONFIGURATION = {
    "blip": "no image token whose place image features take",
    "blip-2": "contains the output head",
    "chameleon": "tokens of a codebook",
    "diffusion_gemma": "by diffusion",
    "emu3": "tokens of a codebook",
    "evolla": "proteins",
    "florence2": "encoder-decoder",
    "fuyu": "puts all images before the text",
    "got_ocr2": "neither a list of images per row nor a row without an image",
    "git": "no image token whose place image features take",
    "hunyuan_vl": "number the images of a batch",
    "idefics": "cross-attention layers",
    "instructblip": "depend on the text of the prompt",
    "kosmos-2": "no image token whose place image features take",
    "llama4": "contains the output head",
    "mistral4": "'mistral4': transformers does not offer it as a causal language model",
    "mllama": "cross-attention layers",
    "molmo2": "indices into all images of a batch",
    "phi4_multimodal": "transformers does not offer it as an image-text-to-text model",
    "pi0": "the actions of a robot",
    "pix2struct": "encoder-decoder",
    "udop": "encoder-decoder",
    "bert": "it is an encoder",
    "qwen2_5_omni": "speech model",
    "qwen3_omni_moe": "speech model",
    "shieldgemma2": "classifies images",
    "step3p7": "details of large images",
    "t5gemma2": "encoder-decoder",
    "video_llava": "a name that the model does not accept",
}
"""Type -> a part of the reason why it is refused, which its configuration shows."""
FAST = ("florence2", "mllama", "fuyu", "mistral4")


@pytest.mark.parametrize(
    "model_type",
    [
        pytest.param(name, marks=() if name in FAST else pytest.mark.slow)
        for name in BY_CONFIGURATION
    ],
)
def test_a_type_that_cannot_be_tuned_is_refused_with_the_reason(model_type: str) -> None:
    with pytest.raises(ModelError) as error:
        family_for(AutoConfig.for_model(model_type))
    (problem,) = error.value.problems
    assert BY_CONFIGURATION[model_type] in problem.message


@pytest.mark.slow
@pytest.mark.parametrize("model_type", TYPES)
def test_a_type_without_an_entry_passes_the_checks(tmp_path: Path, model_type: str) -> None:
    folder = build_type(tmp_path / "model", model_type)
    args = config(tmp_path / "run", loss_type="dpo", max_steps=1)
    check_checkpoint(family_for(load_config(ModelSource(name_or_path=str(folder)))), folder)
    make_trainer(folder, ROWS, args).train()


@pytest.mark.parametrize(
    "variant",
    [
        pytest.param(name, marks=() if name == "internvl with one tile" else pytest.mark.slow)
        for name in VARIANTS
    ],
)
def test_an_unusual_variant_passes_the_checks(
    checkpoint: Checkpoint, tmp_path: Path, variant: str
) -> None:
    model_type, change = VARIANTS[variant]
    folder = tmp_path / "model"
    shutil.copytree(checkpoint(model_type), folder)
    change(folder)
    check_checkpoint(family_for(load_config(ModelSource(name_or_path=str(folder)))), folder)

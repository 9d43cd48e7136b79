"""Puts a real small vision-language model together from parts that were never trained together.

SmolLM2-135M-Instruct (Q4_1, de-quantised) reads, a DINOv2-small tower sees, and Hugging Face's own
`LlavaForConditionalGeneration` joins them through a projector that is new. The result is an
ordinary local checkpoint: `AutoProcessor` and `AutoModelForImageTextToText` load it without a hub.

Assembled, the model knows nothing about images yet; `projector` and the warm-up teach it.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import transformers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitImageProcessor,
    Dinov2Model,
    GenerationConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from unidpo_mm.cache.directory import cache_directory

from .assets import Assets, put_in_place
from .projector import whiten_projector
from .tower import PATCH_SIZE, load_tower

IMAGE_TOKEN = "<image>"
IMAGE_SIZE = 56
"""Side of the square the tower sees, in pixels: 16 patches and a class token, 17 image tokens."""
DINOV2_MEAN = [0.485, 0.456, 0.406]
DINOV2_STD = [0.229, 0.224, 0.225]

# ChatML as SmolLM2 was tuned on it, with two differences: content may be a list of parts, and no
# default system message is put in front (it would double the length of the demo's short prompts).
CHAT_TEMPLATE = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\\n' -}}
{%- if message['content'] is string -%}
{{- message['content'] -}}
{%- else -%}
{%- for part in message['content'] -%}
{%- if part['type'] == 'image' -%}{{- '<image>' -}}{%- else -%}{{- part['text'] -}}{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""


def assemble_vlm(
    assets: Assets,
    images: Sequence[Path],
    *,
    image_size: int = IMAGE_SIZE,
    seed: int = 0,
    cache: Path | None = None,
) -> Path:
    """Build the checkpoint folder, or returns the one built before from the same inputs.

    Args:
        assets: the unpacked parts.
        images: training images; the projector is scaled to the features they give.
        image_size: side of the tower's input in pixels, a multiple of the patch size.
        seed: of the projector's random directions.
        cache: the cache folder; see `cache_directory` for the default.

    Returns:
        The folder: float32 weights, processor, chat template and generation settings.
    """
    inputs = [assets.language_model.parts[-3], assets.vision_tower.parts[-4], image_size, seed]

    def build(folder: Path) -> None:
        model, processor = build_vlm(assets, image_size=image_size)
        whiten_projector(model, processor, images, seed=seed)
        save_vlm(model, processor, folder)

    return build_once("assembled", [*inputs, *file_hashes(images)], build, cache=cache)


def build_vlm(
    assets: Assets, *, image_size: int = IMAGE_SIZE
) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """Join tower and language model; the projector is left as it was initialised."""
    tower = load_tower(assets.vision_tower)
    language_model, tokenizer = load_language_model(assets.language_model)
    processor = build_processor(tokenizer, image_size=image_size)
    return join(tower, language_model, processor), processor


def load_language_model(gguf_file: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Dequantize the GGUF file to float32."""
    where: dict[str, Any] = {
        "pretrained_model_name_or_path": gguf_file.parent,
        "gguf_file": gguf_file.name,
    }
    model = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
    return model.eval(), AutoTokenizer.from_pretrained(**where)


def build_processor(tokenizer: PreTrainedTokenizerBase, *, image_size: int) -> LlavaProcessor:
    """A LLaVA processor that writes one image token per feature of the tower."""
    if image_size % PATCH_SIZE:
        raise ValueError(f"image_size {image_size} is not a multiple of the patch, {PATCH_SIZE}")
    tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE_TOKEN]})
    tokenizer.chat_template = CHAT_TEMPLATE
    square = {"height": image_size, "width": image_size}
    image_processor = BitImageProcessor(
        size=square, crop_size=square, image_mean=DINOV2_MEAN, image_std=DINOV2_STD
    )
    return LlavaProcessor(
        image_processor,
        tokenizer,
        patch_size=PATCH_SIZE,
        vision_feature_select_strategy="full",
        num_additional_image_tokens=1,  # the class token, which "full" keeps
        image_token=IMAGE_TOKEN,
        chat_template=CHAT_TEMPLATE,
    )


def join(
    tower: Dinov2Model, language_model: PreTrainedModel, processor: LlavaProcessor
) -> LlavaForConditionalGeneration:
    """Copy both models' weights into a new LLaVA whose vocabulary has the image token."""
    image_token_id = processor.tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
    settings = language_model.config.to_dict()
    settings.pop("quantization_config", None)  # the weights are plain now; it would block saving
    text_config = LlamaConfig(**{**settings, "vocab_size": image_token_id + 1})
    config = LlavaConfig(
        vision_config=tower.config,
        text_config=text_config,
        image_token_index=image_token_id,
        image_seq_length=(processor.image_processor.size["height"] // PATCH_SIZE) ** 2 + 1,
        vision_feature_layer=-2,
        vision_feature_select_strategy="full",
        tie_word_embeddings=True,
    )
    model = LlavaForConditionalGeneration(config).eval()
    weights = language_model.model.state_dict()
    table = weights["embed_tokens.weight"]
    # The image token is never read nor answered; the mean row makes it an unlikely answer.
    weights["embed_tokens.weight"] = torch.cat([table, table.mean(0, keepdim=True)])
    model.model.language_model.load_state_dict(weights)
    model.model.vision_tower.load_state_dict(tower.state_dict())
    model.tie_weights()
    model.generation_config = GenerationConfig(
        bos_token_id=settings["bos_token_id"],
        eos_token_id=settings["eos_token_id"],
        pad_token_id=settings["pad_token_id"],
    )
    return model


def save_vlm(model: PreTrainedModel, processor: LlavaProcessor, folder: Path) -> None:
    """Write a checkpoint folder that the Auto classes load."""
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def build_once(
    name: str,
    inputs: Sequence[object],
    build: Callable[[Path], None],
    *,
    cache: Path | None = None,
) -> Path:
    """Run `build` into a cache folder named by the content hash of its inputs and of this code.

    Args:
        name: readable first part of the folder's name.
        inputs: everything that the result depends on, as JSON values.
        build: fills the folder it is given.
        cache: the cache folder; see `cache_directory` for the default.
    """
    here = Path(__file__).parent
    code = file_hashes([here / "vlm.py", here / "tower.py", here / "projector.py"])
    key = json.dumps([*inputs, *code, transformers.__version__])
    root = cache_directory(cache) / "models"
    target = root / f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
    if not target.is_dir():
        root.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=root, prefix=".build-") as scratch:
            build(Path(scratch) / name)
            put_in_place(Path(scratch) / name, target)
    return target


def file_hashes(files: Sequence[Path]) -> list[str]:
    """The SHA-256 of each file's bytes."""
    return [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]

"""Assemble a small vision-language model from parts that were never trained together.

The language model is SmolLM2-135M-Instruct (Q4_1, dequantized), the vision tower has the shape of
DINOv2-small, and Hugging Face's `LlavaForConditionalGeneration` connects them by a new projector.
The result is an ordinary local checkpoint, which `AutoProcessor` and `AutoModelForImageTextToText`
load without network access.

`projector` aligns the projector with the words for what the training images show; the warm-up then
trains the model to caption them.
"""

import functools
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import gguf
import numpy as np
import torch
import transformers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitImageProcessor,
    Dinov2Model,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.initialization import no_init_weights

from unidpo_mm.cache.directory import cache_directory

from .assets import Assets, put_in_place
from .images import Canvas
from .projector import prepare_projector
from .tower import PATCH_SIZE, load_tower

IMAGE_TOKEN = "<image>"
IMAGE_HEIGHT = 28
"""Height of the tower's input in pixels. It is twice as wide: eight patches and a class token, so
nine image tokens."""
DINOV2_MEAN = [0.485, 0.456, 0.406]
DINOV2_STD = [0.229, 0.224, 0.225]

# SmolLM2's ChatML with two differences: content may be a list of parts, and there is no default
# system message, which would double the length of the short prompts.
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
    canvases: Sequence[Canvas],
    *,
    image_height: int = IMAGE_HEIGHT,
    seed: int = 0,
    cache: Path | None = None,
) -> Path:
    """Return the checkpoint directory; build it unless it exists for the same inputs.

    Args:
        assets: The unpacked parts.
        canvases: Training images and what they show, for which the projector is aligned.
        image_height: Height of the tower's input in pixels, a multiple of the patch size.
        seed: Seed of the projector's random directions and of its alignment.
        cache: The cache directory; see `cache_directory` for the default.

    Returns:
        The directory, with float32 weights, processor, chat template and generation settings.
    """
    parts = (assets.language_model.parts[-3], assets.vision_tower.parts[-4])

    def build(folder: Path) -> None:
        model, processor = build_vlm(assets, image_height=image_height)
        prepare_projector(model, processor, canvases, seed=seed)
        save_vlm(model, processor, folder)

    images = file_hashes([canvas.file for canvas in canvases])
    return build_once("assembled", [*parts, image_height, seed, *images], build, cache=cache)


def assemble_language_model(assets: Assets, *, cache: Path | None = None) -> Path:
    """Return the directory of the language model alone; build it unless it exists.

    Args:
        assets: The unpacked parts.
        cache: The cache directory; see `cache_directory` for the default.

    Returns:
        The directory, with float32 weights, tokenizer and the chat template of the demo.
    """

    def build(folder: Path) -> None:
        source, tokenizer = load_language_model(assets.language_model)
        settings = source.config.to_dict()
        settings.pop("quantization_config", None)  # a quantized model could not be saved
        model = LlamaForCausalLM(LlamaConfig(**settings))
        model.load_state_dict(source.state_dict())
        model.tie_weights()
        model.generation_config = generation_config(settings)
        tokenizer.chat_template = CHAT_TEMPLATE
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    return build_once("language_model", [assets.language_model.parts[-3]], build, cache=cache)


def generation_config(settings: dict[str, Any]) -> GenerationConfig:
    """Return the special tokens of a language model for `generate`."""
    names = ("bos_token_id", "eos_token_id", "pad_token_id")
    return GenerationConfig(**{name: settings[name] for name in names})


def build_vlm(
    assets: Assets, *, image_height: int = IMAGE_HEIGHT
) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """Join tower and language model by a projector that is not initialized yet."""
    tower = load_tower(assets.vision_tower)
    language_model, tokenizer = load_language_model(assets.language_model)
    processor = build_processor(tokenizer, image_height=image_height)
    return join(tower, language_model, processor), processor


def load_language_model(gguf_file: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Dequantize the GGUF file to float32, and build its tokenizer."""
    source: dict[str, Any] = {
        "pretrained_model_name_or_path": gguf_file.parent,
        "gguf_file": gguf_file.name,
    }
    with parsed_once():
        model = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
        return model.eval(), AutoTokenizer.from_pretrained(**source)


class Reader(gguf.GGUFReader):
    """A reader that takes plain arrays from the file: slices of a memory map are slow."""

    data: Any

    def _get(self, *args: Any, **kwargs: Any) -> Any:
        self.data = np.asarray(self.data)
        return super()._get(*args, **kwargs)


@contextmanager
def parsed_once() -> Iterator[None]:
    """Let transformers parse a GGUF file only once, and quickly.

    Without this it parses the file for the configuration, the weights and the tokenizer, and builds
    the same map of tensor names for each module, which takes as long as everything else.
    """
    functions: dict[str, Callable[..., Any]] = {
        "GGUFReader": Reader,
        "get_tensor_name_map": gguf.get_tensor_name_map,
    }
    originals = {name: getattr(gguf, name) for name in functions}
    try:
        for name, function in functions.items():
            setattr(gguf, name, functools.cache(function))
        yield
    finally:
        for name, original in originals.items():
            setattr(gguf, name, original)


def build_processor(tokenizer: PreTrainedTokenizerBase, *, image_height: int) -> LlavaProcessor:
    """Build a LLaVA processor that inserts one image token per feature of the tower.

    Raises:
        ValueError: If the height is not a multiple of the patch size.
    """
    if image_height % PATCH_SIZE:
        raise ValueError(f"image_height {image_height} is not a multiple of {PATCH_SIZE}")
    tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE_TOKEN]})
    tokenizer.chat_template = CHAT_TEMPLATE
    size = {"height": image_height, "width": 2 * image_height}
    image_processor = BitImageProcessor(
        size=size, crop_size=size, image_mean=DINOV2_MEAN, image_std=DINOV2_STD
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
    settings.pop("quantization_config", None)  # a quantized model could not be saved
    text_config = LlamaConfig(**{**settings, "vocab_size": image_token_id + 1})
    config = LlavaConfig(
        vision_config=tower.config,
        text_config=text_config,
        image_token_index=image_token_id,
        image_seq_length=2 * (processor.image_processor.size["height"] // PATCH_SIZE) ** 2 + 1,
        vision_feature_layer=-2,
        vision_feature_select_strategy="full",
        tie_word_embeddings=True,
    )
    with no_init_weights():  # all weights are copied or initialized below
        model = LlavaForConditionalGeneration(config).eval()
    weights = language_model.model.state_dict()
    table = weights["embed_tokens.weight"]
    # The embedding of the image token is not used; the mean makes it an unlikely prediction
    weights["embed_tokens.weight"] = torch.cat([table, table.mean(0, keepdim=True)])
    model.model.language_model.load_state_dict(weights)
    model.model.vision_tower.load_state_dict(tower.state_dict())
    model.tie_weights()
    model.generation_config = generation_config(settings)
    return model


def save_vlm(model: PreTrainedModel, processor: LlavaProcessor, folder: Path) -> None:
    """Write a checkpoint that the Auto classes load."""
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def build_once(
    name: str,
    inputs: Sequence[object],
    build: Callable[[Path], None],
    *,
    cache: Path | None = None,
) -> Path:
    """Return a cached directory; build it unless it exists for the same inputs and code.

    Args:
        name: Prefix of the directory's name, which ends in a digest of inputs and code.
        inputs: Everything that the result depends on, as JSON values.
        build: Function that fills a directory.
        cache: The cache directory; see `cache_directory` for the default.
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
    """Return the SHA-256 of each file."""
    return [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]

"""Make the inputs of a case: a random checkpoint, rows, and the same pairs in the format of TRL."""

import itertools
import random
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from shapes import LLAVA_TOWER, MROPE, QWEN_TOWER, TEXT, Case
from torch.utils.flop_counter import FlopCounterMode

from unidpo_mm.plugins import load_family

__all__ = ["build", "check_proportions", "pairs_of", "rows_of"]


def build(case: Case, folder: Path) -> Path:
    """Write the random checkpoint of a case, with a tiny tokenizer and a real processor."""
    import transformers
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

    torch.manual_seed(0)
    family = {"llava": "llava", "qwen2_vl": "qwen_vl", "llama": "text"}[case.family]
    load_family(family).tiny(folder, model_type=case.family)
    tiny = AutoConfig.from_pretrained(folder)
    ids = {key: getattr(tiny.get_text_config(), key) for key in ("eos_token_id", "pad_token_id")}
    if case.family == "llama":
        config = AutoConfig.for_model("llama", **TEXT, **ids)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
        return folder
    processor = transformers.AutoProcessor.from_pretrained(folder)
    if case.family == "llava":
        config = AutoConfig.for_model(
            "llava",
            vision_config=AutoConfig.for_model("clip_vision_model", **LLAVA_TOWER),
            text_config=AutoConfig.for_model("llama", **TEXT, **ids),
            image_token_id=tiny.image_token_id,
        )
        side = LLAVA_TOWER["image_size"]
        processor.image_processor = transformers.CLIPImageProcessor(
            size={"shortest_edge": side}, crop_size={"height": side, "width": side}
        )
    else:
        marks = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
        config = AutoConfig.for_model(
            "qwen2_vl",
            text_config={**TEXT, "rope_parameters": MROPE, **ids},
            vision_config=QWEN_TOWER,
            **{mark: getattr(tiny, mark) for mark in marks},
        )
        processor.image_processor = transformers.Qwen2VLImageProcessor()
    AutoModelForImageTextToText.from_config(config).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def rows_of(case: Case) -> list[dict[str, Any]]:
    """Return groups of scored responses; a letter is about one token."""
    draw, pixels_of = random.Random(0), torch.Generator().manual_seed(0)

    def text(length: int) -> str:
        return "".join(draw.choice("bcdfghjklmnpqrstvwxz") for _ in range(length))

    rows = []
    for _ in range(case.groups * max(case.epoch_steps, 1)):
        responses = [
            {"text": text(draw.randint(*case.response_tokens)), "score": float(case.responses - n)}
            for n in range(case.responses)
        ]
        row: dict[str, Any] = {
            "prompt": [{"role": "user", "content": text(case.prompt - 8)}],
            "responses": responses,
        }
        if case.image is not None:
            shape = (*case.image[::-1], 3)
            pixels = torch.randint(0, 255, shape, dtype=torch.uint8, generator=pixels_of)
            row["images"] = [Image.fromarray(pixels.numpy())]
        rows.append(row)
    return rows


def pairs_of(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the same pairs in the format of TRL."""
    pairs = []
    for row in rows:
        for better, worse in itertools.combinations(row["responses"], 2):
            pair = {key: row[key] for key in ("prompt", "images") if key in row}
            pair["chosen"] = [{"role": "assistant", "content": better["text"]}]
            pair["rejected"] = [{"role": "assistant", "content": worse["text"]}]
            pairs.append(pair)
    return pairs


def check_proportions(case: Case, folder: Path) -> None:
    """Refuse a model whose vision part has another relative cost than in the real model.

    The cost is the ratio of forward FLOPs of vision tower and projector to those of the language
    model, for an image and 40 tokens; it may deviate by 20 %.
    """
    if case.vision_share is None:
        return
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model = AutoModelForImageTextToText.from_pretrained(folder)
    processor = AutoProcessor.from_pretrained(folder)
    row = rows_of(case)[0]
    inputs = processor.image_processor(row["images"], return_tensors="pt")
    with torch.no_grad(), FlopCounterMode(display=False) as vision:
        output = model.model.get_image_features(**inputs, return_dict=True)
    tokens = sum(len(image) for image in output.pooler_output) + 40
    ids = torch.randint(10, 100, (1, tokens))
    with torch.no_grad(), FlopCounterMode(display=False) as language:
        model.get_decoder()(ids)
    share = vision.get_total_flops() / language.get_total_flops()
    if not 0.8 < share / case.vision_share < 1.2:
        raise SystemExit(f"{case.name}: the ratio is {share:.3f}, not {case.vision_share}")

"""Packed rows equal plain rows for model families that have no adapter yet.

The models are tiny and random, with a minimal adapter.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import transformers
from builders import relative_difference
from torch import Tensor

from unidpo_mm.data.collate import collate
from unidpo_mm.kernels.logprobs import sequence_logps
from unidpo_mm.kernels.packing import enable_packing
from unidpo_mm.modeling.logp_model import LogpModel, compute_logps
from unidpo_mm.records import EncodedGroup, Media, ModelInputs, Pair, Preferences, RowInfo

IMAGE = 3
"""Id of the image token."""

IMAGE_TOKENS = 4
TEXT: dict[str, Any] = {
    "vocab_size": 99,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "pad_token_id": 0,
    "max_position_embeddings": 256,
}
SIGLIP: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 4,
}


def gemma2() -> Any:
    config = transformers.Gemma2Config(**TEXT, sliding_window=8, attn_logit_softcapping=5.0)
    return transformers.Gemma2ForCausalLM._from_config(config, attn_implementation="eager")


def llama_eager() -> Any:
    config = transformers.LlamaConfig(**TEXT)
    return transformers.LlamaForCausalLM._from_config(config, attn_implementation="eager")


def gemma3() -> Any:
    config = transformers.Gemma3Config(
        text_config={**TEXT, "sliding_window": 8, "layer_types": ["sliding_attention"] * 2
                     + ["full_attention"]},
        vision_config=SIGLIP,
        mm_tokens_per_image=IMAGE_TOKENS,
        image_token_id=IMAGE,
        boi_token_id=4,
        eoi_token_id=5,
    )  # fmt: skip
    return transformers.Gemma3ForConditionalGeneration(config)


def idefics3() -> Any:
    config = transformers.Idefics3Config(
        text_config={**TEXT, "model_type": "llama"},
        vision_config=SIGLIP,
        image_token_id=IMAGE,
        scale_factor=2,
    )
    return transformers.Idefics3ForConditionalGeneration(config)


def smolvlm() -> Any:
    config = transformers.SmolVLMConfig(
        text_config={**TEXT, "model_type": "llama"},
        vision_config=SIGLIP,
        image_token_id=IMAGE,
        scale_factor=2,
    )
    return transformers.SmolVLMForConditionalGeneration(config)


def internvl() -> Any:
    config = transformers.InternVLConfig(
        text_config={**TEXT, "model_type": "qwen2"},
        vision_config={**SIGLIP, "image_size": [16, 16], "patch_size": [4, 4]},
        image_token_id=IMAGE,
        image_seq_length=IMAGE_TOKENS,
        downsample_ratio=0.5,
    )
    return transformers.InternVLForConditionalGeneration(config)


def one_per_row(pixels: Tensor) -> Tensor:
    """Return pixels as Idefics3 takes them, with a dimension for the images of a row."""
    return pixels.unsqueeze(1)


BUILDERS: dict[str, tuple[Callable[[], Any], Callable[[Tensor], Tensor]]] = {
    "gemma3": (gemma3, lambda pixels: pixels),
    "idefics3": (idefics3, one_per_row),
    "smolvlm": (smolvlm, one_per_row),
    "internvl": (internvl, lambda pixels: pixels),
}


@dataclass
class ForwardAdapter:
    """An adapter that only has forward inputs."""

    pixels: Callable[[Tensor], Tensor]

    def forward_inputs(self, inputs: ModelInputs) -> Mapping[str, Tensor]:
        tensors = {**inputs.tensors, "position_ids": inputs.row_position}
        if "pixel_values" in tensors:
            tensors["pixel_values"] = self.pixels(tensors["pixel_values"])
        return tensors


def group(number: int, *, images: int) -> EncodedGroup:
    draw = torch.Generator().manual_seed(number)

    def ids(count: int) -> Tensor:
        return torch.randint(10, 99, (count,), generator=draw)

    image_ids = torch.full((images * IMAGE_TOKENS,), IMAGE)
    prompt = torch.cat([ids(3 + number), image_ids, ids(4)])
    responses = tuple(ids(length) for length in (5, 3 + number, 9)[: 2 + number % 2])
    types = {"token_type_ids": (prompt == IMAGE).long()}
    pixels = torch.randn(images, 3, 16, 16, generator=draw)
    return EncodedGroup(
        row=RowInfo(id=str(number), domain="multimodal", source="data", where=f"row {number}"),
        prompt_ids=prompt,
        response_ids=responses,
        token_extras={
            name: (part, *(torch.zeros_like(ids) for ids in responses))
            for name, part in types.items()
        },
        media={
            "image": Media(
                inputs={"pixel_values": pixels} if images else {},
                entries=images,
                tokens=len(image_ids),
                token_id=IMAGE,
            )
        },
        preferences=Preferences(
            scores=torch.zeros(len(responses), dtype=torch.float64),
            pairs=(Pair(0, 1),),
            pair_ids=(f"{number}:0:1",),
        ),
    )


def assert_packed_equals_plain(model: Any, adapter: Any, side: Any, *, images: bool) -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:  # so that attention is more than a mean
                parameter.normal_(std=0.15)
    assert enable_packing(model) is None
    groups = [group(n, images=images * (1 + n % 2)) for n in range(3)]
    results = {}
    for layout in ("plain", "packed"):
        batch = collate(groups, pad_token_id=0, padding_side=side, layout=layout, media_once=True)
        model.zero_grad()
        logp_model = LogpModel(model).eval()
        logps = compute_logps(logp_model, adapter, batch)
        (logps * torch.linspace(-1, 2, logps.numel())).sum().backward()
        grads = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        results[layout] = logps.detach(), grads, sequence_logps(logps.detach(), batch.targets).sum
    plain, packed = results["plain"], results["packed"]
    torch.testing.assert_close(packed[0], plain[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(packed[2], plain[2], rtol=0, atol=1e-4)
    assert relative_difference(plain[1], packed[1]) < 2e-5
    assert plain[0].std() > 0.1


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("name", BUILDERS)
def test_packed_equals_plain_with_images(name: str, side: str) -> None:
    build, pixels = BUILDERS[name]
    torch.manual_seed(0)
    assert_packed_equals_plain(build(), ForwardAdapter(pixels), side, images=True)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("build", [gemma2, llama_eager])
def test_packed_equals_plain_with_eager_attention(build: Callable[[], Any], side: str) -> None:
    torch.manual_seed(0)
    assert_packed_equals_plain(build(), ForwardAdapter(lambda pixels: pixels), side, images=False)

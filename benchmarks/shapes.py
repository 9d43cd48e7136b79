"""The cases of the benchmark: small models with realistic proportions, rows of realistic lengths.

Widths are chosen so that vision has about the relative cost that it has in the real model: the
ratio of forward FLOPs of vision to those of the language model, for an image and 40 tokens, is 0.05
in LLaVA-1.5-7B and 2.2 in Qwen2-VL-2B. The benchmark refuses to run models with other ratios.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

__all__ = ["CASES", "LLAVA_TOWER", "MROPE", "QWEN_TOWER", "TEXT", "Case"]

TEXT: dict[str, Any] = {
    "hidden_size": 384,
    "intermediate_size": 1280,
    "num_hidden_layers": 8,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "vocab_size": 8192,
}
MROPE = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [8, 12, 12]}
LLAVA_TOWER: dict[str, Any] = {
    "hidden_size": 128,
    "intermediate_size": 512,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": 336,
    "patch_size": 14,
}
QWEN_TOWER: dict[str, Any] = {
    "depth": 12,
    "embed_dim": 256,
    "num_heads": 4,
    "mlp_ratio": 4,
    "hidden_size": 384,
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """A case of the benchmark.

    Attributes:
        name: Its name in the output.
        family: The model type that is imitated.
        image: Width and height in pixels; None for text.
        prompt: Number of tokens of the prompt, without image tokens.
        response_tokens: Minimum and maximum number of tokens of a response.
        groups: Number of prompts in a micro-batch.
        responses: Number of responses per prompt; all pairs of them are used.
        vision_share: Ratio of forward FLOPs of vision to those of the language model in the real
            model, for an image and 40 tokens; None for text.
        lora: Whether a LoRA adapter on the language model is trained, or all its weights.
        epoch_steps: Number of steps of a complete epoch; 0 to measure a single step.
    """

    name: str
    family: Literal["llava", "qwen2_vl", "llama"]
    image: tuple[int, int] | None
    prompt: int
    response_tokens: tuple[int, int]
    groups: int = 2
    responses: int = 2
    vision_share: float | None = None
    lora: bool = True
    epoch_steps: int = 0

    @property
    def pairs(self) -> int:
        """The number of pairs per prompt."""
        return self.responses * (self.responses - 1) // 2


LLAVA_VQA = Case(
    name="LLaVA VQA",
    family="llava",
    image=(336, 336),
    prompt=40,
    response_tokens=(35, 70),
    vision_share=0.05,
)
QWEN_VQA = Case(
    name="Qwen2-VL VQA",
    family="qwen2_vl",
    image=(644, 476),
    prompt=42,
    response_tokens=(35, 70),
    vision_share=2.2,
)
QWEN_RANKED = replace(
    QWEN_VQA, name="Qwen2-VL, four responses", response_tokens=(120, 160), groups=1, responses=4
)
MATH = Case(name="text, math", family="llama", image=None, prompt=120, response_tokens=(480, 620))

CASES = (
    LLAVA_VQA,
    replace(LLAVA_VQA, name="LLaVA VQA, full fine-tune", lora=False),
    replace(LLAVA_VQA, name="LLaVA VQA, one epoch", epoch_steps=3),
    replace(LLAVA_VQA, name="LLaVA caption", response_tokens=(260, 340)),
    QWEN_VQA,
    replace(QWEN_VQA, name="Qwen2-VL VQA, one epoch", epoch_steps=3),
    QWEN_RANKED,
    replace(QWEN_RANKED, name="Qwen2-VL, best against worst", responses=2),
    MATH,
    replace(MATH, name="text, math, full fine-tune", lora=False),
)

"""What is compared: models of real proportions at a size a CPU can run, and rows of real lengths.

Widths are chosen so that vision costs about as much beside the language model as in the model
named: forward FLOPs of tower : language model on an image and 40 tokens are 0.05 for LLaVA-1.5-7B
and 2.2 for Qwen2-VL-2B; the benchmark refuses to run others.
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
    """One line of the table.

    Attributes:
        name: As printed.
        family: Whose model is imitated.
        image: Width and height in pixels; None for text.
        prompt: Tokens of the question, images not counted.
        answers: Least and most tokens of an answer.
        groups: Prompts in a micro-batch.
        responses: Answers to each; all pairs of them are learned from.
        lora: Whether a LoRA trains on the language model, or the language model in full.
        epoch_steps: Steps of one epoch that is run from end to end; 0 for a step by itself.
        vision_share: Forward FLOPs of vision against language in the model imitated, on an image
            and 40 tokens; None for text.
    """

    name: str
    family: Literal["llava", "qwen2_vl", "llama"]
    image: tuple[int, int] | None
    prompt: int
    answers: tuple[int, int]
    groups: int = 2
    responses: int = 2
    vision_share: float | None = None
    lora: bool = True
    epoch_steps: int = 0

    @property
    def pairs(self) -> int:
        """Pairs of each prompt."""
        return self.responses * (self.responses - 1) // 2


LLAVA_VQA = Case(
    name="LLaVA VQA",
    family="llava",
    image=(336, 336),
    prompt=40,
    answers=(35, 70),
    vision_share=0.05,
)
QWEN_VQA = Case(
    name="Qwen2-VL VQA",
    family="qwen2_vl",
    image=(644, 476),
    prompt=42,
    answers=(35, 70),
    vision_share=2.2,
)
QWEN_RANKED = replace(
    QWEN_VQA, name="Qwen2-VL, four answers", answers=(120, 160), groups=1, responses=4
)
MATH = Case(name="text, math", family="llama", image=None, prompt=120, answers=(480, 620))

CASES = (
    LLAVA_VQA,
    replace(LLAVA_VQA, name="LLaVA VQA, full fine-tune", lora=False),
    replace(LLAVA_VQA, name="LLaVA VQA, one epoch", epoch_steps=3),
    replace(LLAVA_VQA, name="LLaVA caption", answers=(260, 340)),
    QWEN_VQA,
    replace(QWEN_VQA, name="Qwen2-VL VQA, one epoch", epoch_steps=3),
    QWEN_RANKED,
    replace(QWEN_RANKED, name="Qwen2-VL, best against worst", responses=2),
    MATH,
    replace(MATH, name="text, math, full fine-tune", lora=False),
)

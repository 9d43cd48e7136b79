"""What is compared: models of real proportions at a size a CPU can run, and rows of real lengths.

Widths are chosen so that vision costs about as much beside the language model as in the model
named: forward FLOPs of tower : language model on a picture and 40 tokens are 0.05 for LLaVA-1.5-7B
and 2.2 for Qwen2-VL-2B; the benchmark refuses to run others.
"""

from dataclasses import dataclass
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
        picture: Width and height in pixels; None for text.
        prompt: Tokens of the question, pictures not counted.
        answers: Least and most tokens of an answer.
        groups: Prompts in a micro-batch.
        responses: Answers to each; all pairs of them are learned from.
        vision_share: Forward FLOPs of vision against language in the model imitated, on a picture
            and 40 tokens; None for text.
    """

    name: str
    family: Literal["llava", "qwen2_vl", "llama"]
    picture: tuple[int, int] | None
    prompt: int
    answers: tuple[int, int]
    groups: int = 2
    responses: int = 2
    vision_share: float | None = None


CASES = (
    Case(
        name="LLaVA VQA",
        family="llava",
        picture=(336, 336),
        prompt=40,
        answers=(35, 70),
        vision_share=0.05,
    ),
    Case(
        name="LLaVA caption",
        family="llava",
        picture=(336, 336),
        prompt=40,
        answers=(260, 340),
        vision_share=0.05,
    ),
    Case(
        name="Qwen2-VL VQA",
        family="qwen2_vl",
        picture=(644, 476),
        prompt=42,
        answers=(35, 70),
        vision_share=2.2,
    ),
    Case(
        name="Qwen2-VL, four answers",
        family="qwen2_vl",
        picture=(644, 476),
        prompt=42,
        answers=(120, 160),
        groups=1,
        responses=4,
        vision_share=2.2,
    ),
    Case(name="text, math", family="llama", picture=None, prompt=120, answers=(480, 620)),
)

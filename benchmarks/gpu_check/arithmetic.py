"""The products of a preference step, counted by arithmetic, and what a GPU could reach at best.

A product of [M, K] and [K, N] takes 2 M K N operations (FLOPs). Only matrix products are counted:
they are nearly all of the work, and the only work that a GPU is measured by. Nothing here is
measured on a GPU.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

__all__ = ["BOUND_TFLOPS", "SHAPES", "Decoder", "Shape", "Tower", "roofline", "step_tflop"]

BOUND_TFLOPS = 700.0
"""Assumed speed of bfloat16 products, TFLOP/s: about 70 % of the data sheet of an H100 or H200."""


@dataclass(frozen=True)
class Decoder:
    """The sizes of a language model with gated feed-forward layers."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    key_heads: int
    vocabulary: int

    @property
    def weights(self) -> int:
        """Number of weights that every token is multiplied by."""
        keys = self.hidden // self.heads * self.key_heads
        attention = 2 * self.hidden * (self.hidden + keys)
        return self.layers * (attention + 3 * self.hidden * self.intermediate)

    def forward(self, prompt: int, responses: Sequence[int]) -> float:
        """Return the FLOPs of a forward pass over a prompt with some responses, without head."""
        attended = prompt**2 / 2 + sum(length * prompt + length**2 / 2 for length in responses)
        tokens = prompt + sum(responses)
        return 2.0 * self.weights * tokens + 4.0 * self.layers * self.hidden * attended


@dataclass(frozen=True)
class Tower:
    """The sizes of a vision tower.

    Attributes:
        layers, hidden, intermediate: Its sizes.
        gated: Whether its feed-forward layers have three products instead of two.
        patches: Patches of an image.
        window: Patches of a window; attention runs within windows in most layers.
        projector: Weights between tower and language model, per patch.
    """

    layers: int
    hidden: int
    intermediate: int
    gated: bool
    patches: int
    window: int
    projector: float

    @property
    def forward(self) -> float:
        """FLOPs of an image."""
        feed_forward = (3 if self.gated else 2) * self.hidden * self.intermediate
        weights = self.layers * (4 * self.hidden**2 + feed_forward) + self.projector
        attention = 4.0 * self.layers * self.hidden * self.patches * self.window
        return 2.0 * weights * self.patches + attention


@dataclass(frozen=True)
class Shape:
    """A case of the check: a model and the lengths of its rows, in tokens.

    Attributes:
        name: Its name in the results.
        model: The model type of transformers.
        decoder: The language model.
        tower: The vision tower; `None` for text.
        prompt: Prompt tokens, those of the image included.
        responses: Tokens of each response; all are compared with the best one.
        image: Width and height of the image in pixels.
    """

    name: str
    model: str
    decoder: Decoder
    tower: Tower | None
    prompt: int
    responses: tuple[int, ...]
    image: tuple[int, int] | None = None

    @property
    def pairs(self) -> int:
        """Number of pairs."""
        return len(self.responses) - 1


LLAMA = Decoder(32, 4096, 11008, 32, 32, 32064)
QWEN = Decoder(28, 3584, 18944, 28, 4, 152064)
CLIP = Tower(24, 1024, 4096, False, 577, 577, 1024 * 4096 + 4096**2)
QWEN_TOWER = Tower(32, 1280, 3420, True, 5184, 8 * 64 // 4, (5120**2 + 5120 * 3584) / 4)

SHAPES = (
    Shape("LLaVA-1.5-7B, VQA", "llava", LLAMA, CLIP, 640, (25, 25), (336, 336)),
    Shape("LLaVA-1.5-7B, caption", "llava", LLAMA, CLIP, 620, (140, 140), (336, 336)),
    Shape("LLaVA-1.5-7B, six responses", "llava", LLAMA, CLIP, 640, (65,) * 6, (336, 336)),
    Shape("Qwen2.5-VL-7B, VQA", "qwen2_5_vl", QWEN, QWEN_TOWER, 1350, (25, 25), (1008, 1008)),
    Shape("Qwen2.5-VL-7B, caption", "qwen2_5_vl", QWEN, QWEN_TOWER, 1340, (140, 140), (1008, 1008)),
    Shape("Qwen2.5-7B, math", "qwen2", QWEN, None, 150, (500, 500)),
)


def step_tflop(shape: Shape, *, shared: bool, cached: bool, checkpointed: bool) -> float:
    """Return the TFLOP of a step of a LoRA adapter on one group.

    A backward pass through frozen weights takes as much as a forward pass, because only the
    gradients of activations are computed.

    Args:
        shape: The case.
        shared: Whether the responses share one run over prompt and image, and both models one run
            of the tower; otherwise every response has a row of its own, and each pass its tower.
        cached: Whether the log-probs of the reference are read from a cache.
        checkpointed: Whether the layers are computed again in the backward pass.
    """
    decoder = shape.decoder
    rows = [shape.responses] if shared else _rows_of_pairs(shape)
    forward = sum(decoder.forward(shape.prompt, row) for row in rows)
    targets = sum(sum(row) for row in rows)
    passes = 2 + (not cached) + checkpointed
    heads = 2 + (not cached)
    head = 2.0 * decoder.hidden * decoder.vocabulary * targets
    towers = 1 if shared else len(rows) * (2 - cached)
    tower = 0.0 if shape.tower is None else shape.tower.forward * towers
    return (passes * forward + heads * head + tower) / 1e12


def _rows_of_pairs(shape: Shape) -> list[tuple[int, ...]]:
    """Return one row per response of each pair: the best response is repeated in every pair."""
    return [(length,) for other in shape.responses[1:] for length in (shape.responses[0], other)]


def roofline() -> Iterator[tuple[str, float, float, float, float]]:
    """Yield the name of each case, its TFLOP, and upper bounds in pairs per second.

    The bounds are those of shared prompts with a live reference and checkpointing, of shared
    prompts with a cached reference and no checkpointing, and of one row per response with a live
    reference and checkpointing.
    """
    for shape in SHAPES:
        live = step_tflop(shape, shared=True, cached=False, checkpointed=True)
        best = step_tflop(shape, shared=True, cached=True, checkpointed=False)
        rows = step_tflop(shape, shared=False, cached=False, checkpointed=True)
        bounds = (shape.pairs * BOUND_TFLOPS / tflop for tflop in (live, best, rows))
        yield (shape.name, live, *bounds)  # type: ignore[misc] # three bounds

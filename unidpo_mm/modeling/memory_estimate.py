"""The memory that training a model takes, by arithmetic; docs/model_types.md states the formula.

Weights, gradients and optimizer states follow exactly from the sizes of a model. What a layer keeps
for its backward pass was fitted to measurements of decoders with gated feed-forward layers.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ..model_types import Decoder, ModelSize

__all__ = ["LORA_RANK", "METHODS", "TOKENS", "Estimate", "Method", "estimate"]

Method = Literal["lora", "qlora", "full"]
METHODS: Mapping[Method, str] = {"lora": "LoRA", "qlora": "QLoRA", "full": "full"}

TOKENS = 4096
"""Number of tokens of a micro-batch."""
LORA_RANK = 16
"""Rank of the LoRA adapter, the default of `model.lora.r`."""
CHUNK = 512
"""Number of positions whose logits exist at a time, `train.logps_chunk_size`."""

FROZEN = 2.0
"""Bytes of a frozen weight, in bfloat16."""
NF4 = (4 + 8 / 64 + 32 / (64 * 256)) / 8
"""Bytes of a weight in NF4: 4 bits, 8 for the scale of 64 weights, 32 for 256 scales together."""
TRAINED, CAST = 4.0, 2.0
"""Bytes of a trained weight in float32, and of its copy in bfloat16 during the forward pass."""
GRADIENT, MOMENTS = 4.0, 8.0
"""Bytes of the gradient of a trained weight, and of its two moments of AdamW, in float32."""


@dataclass(frozen=True)
class Estimate:
    """The bytes of each kind of tensor.

    Attributes:
        weights: The weights, and copies of trained ones in bfloat16.
        gradients: The gradients.
        optimizer: The moments of AdamW.
        activations: Activations of the decoder, all layers but the last checkpointed, and logits.
    """

    weights: float
    gradients: float
    optimizer: float
    activations: float

    @property
    def total(self) -> float:
        """All bytes."""
        return self.weights + self.gradients + self.optimizer + self.activations


def estimate(size: ModelSize, method: Method, *, tokens: int = TOKENS) -> Estimate:
    """Return the memory of training a model with bfloat16, AdamW and activation checkpointing.

    The vision tower and the projector are frozen, and the reference takes no memory: it is cached,
    or the model without its LoRA adapter.

    Args:
        size: The model.
        method: A LoRA adapter, one on 4-bit weights, or all weights of the language model.
        tokens: Number of tokens of a micro-batch, padding included.
    """
    decoder = size.decoder
    trained = decoder.weights if method == "full" else decoder.lora_weights(LORA_RANK)
    quantized = decoder.linear_weights if method == "qlora" else 0
    frozen = size.others + (0 if method == "full" else decoder.weights - quantized)
    return Estimate(
        weights=FROZEN * frozen + NF4 * quantized + (TRAINED + CAST) * trained,
        gradients=GRADIENT * trained,
        optimizer=MOMENTS * trained,
        activations=_activations(decoder, tokens, hidden_bytes=4 if method == "full" else 2),
    )


def _activations(decoder: Decoder, tokens: int, *, hidden_bytes: int) -> float:
    """Return the bytes of inputs of checkpointed layers, of one recomputed layer, and of logits.

    Args:
        decoder: The sizes.
        tokens: Number of tokens.
        hidden_bytes: Bytes of a number of a hidden state.
    """
    inputs = hidden_bytes * decoder.hidden * decoder.layers
    layer = (14 + 3 * hidden_bytes) * decoder.hidden
    layer += 6 * decoder.queries + 4 * decoder.keys + 8 * decoder.intermediate
    logits = 2 * 4 * CHUNK * decoder.vocabulary  # and their gradients, in float32
    return tokens * (inputs + layer) + logits

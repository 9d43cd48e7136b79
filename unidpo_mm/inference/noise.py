"""Sampling with noise of its own for every response, so that nothing else affects it.

The random generator of torch is shared by all rows of a batch: a response then depends on what it
is generated with. Here the noise of a token is a hash of the seed, the prompt, the number of the
response, the position and the token. Added to the logits as Gumbel noise, its arg max is a sample
of their softmax (Gumbel, 1954), which small differences of logits hardly ever change.
"""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList
from transformers.generation.logits_process import (
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from .decoding import Sampling

__all__ = ["GumbelNoise", "gumbel_noise", "noise_key", "sampling_processors"]

MIX = (0x85EBCA6B, 0xC2B2AE35, 0x27D4EB2F)
"""Odd multipliers of a 32-bit hash; the first two are those of MurmurHash3's finalizer."""
GOLDEN = 0x9E3779B97F4A7C15
"""2^64 divided by the golden ratio, which spreads consecutive positions."""
BITS = 24
"""Bits of a uniform number, as many as float32 represents exactly."""


def noise_key(seed: int, prompt: str, number: int) -> int:
    """Return the 64-bit key of the noise of a response.

    Args:
        seed: Seed of the run.
        prompt: Id of the prompt.
        number: Number of the response to this prompt.
    """
    text = f"{seed}/{number}/{prompt}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")


def gumbel_noise(keys: Sequence[int], position: int, tokens: Tensor) -> Tensor:
    """Return the Gumbel noise of each token for each response.

    Args:
        keys: Keys of R responses, see `noise_key`.
        position: Position of the token in the response, from 0.
        tokens: [V] Token ids.

    Returns:
        [R, V] float32, at most 17.3.
    """
    bases = [_mixed64(key + position * GOLDEN) for key in keys]
    low, high = (
        torch.tensor([_signed(base >> shift) for base in bases], dtype=torch.int32)
        .to(tokens.device, non_blocking=True)
        .unsqueeze(1)
        for shift in (0, 32)
    )
    hashed = _mixed32(tokens.to(torch.int32) * _signed(MIX[2])) + low
    hashed = _mixed32(hashed).bitwise_xor_(high)
    hashed = _mixed32(hashed)
    uniform = _shifted(hashed, 32 - BITS).to(torch.float32).add_(0.5).mul_(2.0**-BITS)
    uniform.clamp_(max=1 - 2.0**-BITS)  # the largest ones are rounded to 1
    return uniform.neg_().log1p_().neg_().log_().neg_()


class GumbelNoise(LogitsProcessor):
    """Adds the noise of each response to its logits.

    Args:
        keys: Keys of the responses, one per row.
        width: Number of tokens of the padded prompts.
    """

    def __init__(self, keys: Sequence[int], width: int) -> None:
        self.keys, self.width = keys, width

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return logits [R, V] with noise, in float32; called by `generate`."""
        tokens = torch.arange(scores.shape[1], device=scores.device)
        noise = gumbel_noise(self.keys, input_ids.shape[1] - self.width, tokens)
        return noise.add_(scores)


class _Single(LogitsProcessor):
    """Converts logits to float32, in which tokens are compared."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return scores.float()


def sampling_processors(sampling: Sampling, keys: Sequence[int], width: int) -> LogitsProcessorList:
    """Return the processors with which greedy decoding draws samples.

    Args:
        sampling: Temperature and limits of the tokens that are drawn from.
        keys: Keys of the responses, one per row.
        width: Number of tokens of the padded prompts.
    """
    processors: list[LogitsProcessor] = [_Single(), TemperatureLogitsWarper(sampling.temperature)]
    if sampling.top_k:
        processors.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        processors.append(TopPLogitsWarper(sampling.top_p))
    if sampling.min_p:
        processors.append(MinPLogitsWarper(sampling.min_p))
    return LogitsProcessorList([*processors, GumbelNoise(keys, width)])


def _mixed64(value: int) -> int:
    """Return a hash of a 64-bit number (the finalizer of SplitMix64)."""
    mask = (1 << 64) - 1
    value &= mask
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & mask
    value = (value ^ value >> 27) * 0x94D049BB133111EB & mask
    return value ^ value >> 31


def _mixed32(value: Tensor) -> Tensor:
    """Return a hash of 32-bit numbers (the finalizer of MurmurHash3); products wrap around."""
    value = value ^ _shifted(value, 16)
    value = value.mul_(_signed(MIX[0]))
    value = value.bitwise_xor_(_shifted(value, 13))
    value = value.mul_(_signed(MIX[1]))
    return value.bitwise_xor_(_shifted(value, 16))


def _shifted(value: Tensor, bits: int) -> Tensor:
    """Return int32 numbers shifted to the right, with zeros on the left."""
    return (value >> bits).bitwise_and_((1 << (32 - bits)) - 1)


def _signed(value: int) -> int:
    """Return the lowest 32 bits of a number as a signed number."""
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >= 1 << 31 else value

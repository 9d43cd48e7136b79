"""Digests: two things have the same key only if they are the same, byte for byte.

A reference log-probability depends on the tokens of prompt and answer, on the images as the model
sees them, and on the reference's weights and number formats. Tokens and images make the key of an
entry, the rest the name of the file it lies in.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from ..records import EncodedGroup

__all__ = ["images_digest", "response_keys", "weights_fingerprint"]


def response_keys(group: EncodedGroup, images: str) -> tuple[str, ...]:
    """Return a key for each answer of a group, from everything that a model sees of it.

    Args:
        group: The group.
        images: Its `images_digest`.
    """
    prompt = hashlib.sha256(images.encode())
    _feed(prompt, "prompt_ids", group.prompt_ids)
    for name, parts in sorted(group.token_extras.items()):
        _feed(prompt, name, parts[0])
    keys = []
    for number, ids in enumerate(group.response_ids):
        answer = prompt.copy()
        _feed(answer, "response_ids", ids)
        for name, parts in sorted(group.token_extras.items()):
            _feed(answer, name, parts[1 + number])
        keys.append(answer.hexdigest())
    return tuple(keys)


def images_digest(group: EncodedGroup) -> str:
    """Return a key for all images of a group, as the model sees them."""
    images = hashlib.sha256()
    for name, tensor in sorted(group.image_extras.items()):
        _feed(images, name, tensor)
    return images.hexdigest()


def weights_fingerprint(weights: Iterable[tuple[str, Tensor]], settings: Mapping[str, Any]) -> str:
    """Return a digest of named weights and of the settings they are run with.

    Args:
        weights: Names and tensors, on any device.
        settings: What else moves the numbers: formats, kernels, versions.
    """
    # hashing leaves Python free, so the tensors are hashed by several threads
    with ThreadPoolExecutor() as threads:
        digests = dict(threads.map(_digest_of, weights))
    whole = json.dumps([sorted(digests.items()), sorted(settings.items())], default=str)
    return hashlib.sha256(whole.encode()).hexdigest()


def _digest_of(named: tuple[str, Tensor]) -> tuple[str, str]:
    name, tensor = named
    digest = hashlib.sha256()
    _feed(digest, name, tensor)
    return name, digest.hexdigest()


def _feed(digest: Any, name: str, tensor: Tensor) -> None:
    """Add a tensor with its name, format and shape, so that none can stand for another."""
    digest.update(f"|{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
    plain = tensor.detach().cpu().contiguous()
    digest.update(plain.flatten().view(torch.uint8).numpy())

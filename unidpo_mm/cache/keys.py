"""Keys by content: two results have the same key only if their inputs are equal byte by byte.

The log-prob of a reference depends on the tokens of prompt and response, on the images as the model
sees them, and on the weights and number formats of the reference. Tokens and images make the key of
an entry, the rest makes the name of the file that contains it.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..records import EncodedGroup

__all__ = ["file_digest", "media_key", "response_keys", "weights_fingerprint"]


def response_keys(group: EncodedGroup, media: str) -> tuple[str, ...]:
    """Return a key for each response of a group, from everything that a model sees of it."""
    prompt = hashlib.sha256(media.encode())
    _update(prompt, "prompt_ids", group.prompt_ids)
    for name, parts in sorted(group.token_extras.items()):
        _update(prompt, name, parts[0])
    keys = []
    for number, ids in enumerate(group.response_ids):
        response = prompt.copy()
        _update(response, "response_ids", ids)
        for name, parts in sorted(group.token_extras.items()):
            _update(response, name, parts[1 + number])
        keys.append(response.hexdigest())
    return tuple(keys)


def file_digest(file: Path) -> str:
    """Return the SHA-256 of a large file, which is read once per process while it is unchanged."""
    status = file.stat()
    return _digest_of(file.resolve(), status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=4096)
def _digest_of(file: Path, size: int, modified_ns: int) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def media_key(group: EncodedGroup) -> str:
    """Return a key for all images and videos of a group, as the model sees them."""
    digest = hashlib.sha256()
    for _, media in sorted(group.media.items()):
        for name, tensor in sorted(media.inputs.items()):
            _update(digest, name, tensor)
    return digest.hexdigest()


def weights_fingerprint(weights: Iterable[tuple[str, Tensor]], settings: Mapping[str, Any]) -> str:
    """Return a digest of weights and of the settings that they are used with.

    Args:
        weights: Names and tensors, on any device.
        settings: What else changes results: number formats, kernels, versions.
    """
    # hashing releases the interpreter lock, so threads hash several tensors at once
    with ThreadPoolExecutor() as threads:
        digests = dict(threads.map(_digest, weights))
    content = json.dumps([sorted(digests.items()), sorted(settings.items())], default=str)
    return hashlib.sha256(content.encode()).hexdigest()


def _digest(item: tuple[str, Tensor]) -> tuple[str, str]:
    name, tensor = item
    digest = hashlib.sha256()
    _update(digest, name, tensor)
    return name, digest.hexdigest()


def _update(digest: Any, name: str, tensor: Tensor) -> None:
    """Add a tensor with its name, number format and shape to a digest."""
    digest.update(f"|{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
    if hasattr(tensor, "__tensor_flatten__"):  # such as quantized weights of torchao
        for inner in tensor.__tensor_flatten__()[0]:
            _update(digest, inner, getattr(tensor, inner))
        return
    content = tensor.detach().cpu().contiguous()
    digest.update(content.flatten().view(torch.uint8).numpy())

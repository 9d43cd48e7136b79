"""Generation in batches that depend on the data alone, shared between processes.

The batches are fixed before the first one runs, so that a run that was killed, or that several
processes share, computes exactly the same batches and writes exactly the same responses.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from ..records import EncodedGroup
from .generation import GeneratedResponse
from .local_model import LocalModel
from .prompts import Prompt

__all__ = ["Store", "first_prompt", "generate_all", "generate_individually"]


class Store(Protocol):
    """Storage of responses."""

    @property
    def done(self) -> Mapping[str, Mapping[str, Any]]:
        """The stored records by id."""
        ...

    def add(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Store records."""
        ...


def generate_all(
    model: LocalModel,
    prompts: Sequence[Prompt],
    store: Store,
    *,
    batch_size: int,
    rank: int = 0,
    world_size: int = 1,
    on_progress: Callable[[int], None] = lambda count: None,
) -> None:
    """Generate the responses that are not stored yet, and store them batch by batch.

    `on_progress` gets the number of newly finished prompts, initially of those stored before.
    """
    valid_prompts = [n for n, prompt in enumerate(prompts) if prompt.row is not None]
    # the largest prompts first, so that a lack of memory shows at once
    order = sorted(valid_prompts, key=lambda n: (-prompts[n].area, -prompts[n].length, n))
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    share = list(enumerate(batches))[rank::world_size]
    todo = [
        (number, batch)
        for number, batch in share
        if any(prompts[n].id not in store.done for n in batch)
    ]
    on_progress(sum(len(batch) for _, batch in share) - sum(len(batch) for _, batch in todo))
    if rank == 0:
        invalid = [p for p in prompts if p.row is None and p.id not in store.done]
        if invalid:
            store.add([{"id": p.id, "response": "", "error": p.error} for p in invalid])
    for number, batch, encoded in _encode_ahead(model, prompts, todo):
        valid = [prompt for prompt in encoded if isinstance(prompt, EncodedGroup)]
        responses = iter(model.generate(valid) if valid else [])
        records = []
        for n, prompt in zip(batch, encoded, strict=True):
            response = next(responses) if isinstance(prompt, EncodedGroup) else prompt
            records.append(_record(prompts[n], prompt, response, number))
        store.add([record for record in records if record["id"] not in store.done])
        on_progress(len(batch))


def generate_individually(model: LocalModel, prompts: Sequence[Prompt]) -> dict[str, str]:
    """Return id -> response of prompts that are generated in batches of one."""
    responses = {}
    for prompt in prompts:
        encoded = _encode(model, prompt)
        if isinstance(encoded, EncodedGroup):
            (response,) = model.generate([encoded])
            if isinstance(response, GeneratedResponse):
                responses[prompt.id] = response.text
    return responses


def first_prompt(model: LocalModel, prompts: Sequence[Prompt]) -> dict[str, Any]:
    """Return the first valid prompt as text with special tokens, and as token ids."""
    for prompt in prompts:
        encoded = _encode(model, prompt)
        if isinstance(encoded, EncodedGroup):
            return model.describe_prompt(prompt.id, encoded)
    return {}


def _encode(model: LocalModel, prompt: Prompt) -> EncodedGroup | str:
    return (prompt.error or "invalid prompt") if prompt.row is None else model.encode(prompt.row)


def _encode_ahead(
    model: LocalModel, prompts: Sequence[Prompt], batches: Sequence[tuple[int, list[int]]]
) -> Iterator[tuple[int, list[int], list[EncodedGroup | str]]]:
    """Yield batches with their encoded prompts; the next is encoded while one is generated."""

    def encode(batch: list[int]) -> list[EncodedGroup | str]:
        return [_encode(model, prompts[n]) for n in batch]

    with ThreadPoolExecutor(1) as thread:
        following = thread.submit(encode, batches[0][1]) if batches else None
        for position, (number, batch) in enumerate(batches):
            assert following is not None
            encoded = following.result()
            if position + 1 < len(batches):
                following = thread.submit(encode, batches[position + 1][1])
            yield number, batch, encoded


def _record(
    prompt: Prompt, encoded: EncodedGroup | str, response: GeneratedResponse | str, batch: int
) -> dict[str, Any]:
    record: dict[str, Any] = {"id": prompt.id}
    if isinstance(response, GeneratedResponse):
        record |= {"response": response.text, "finish_reason": response.finish_reason}
        record["new_tokens"] = response.new_tokens
    else:
        record |= {"response": "", "error": response}
    record |= {"batch": batch, **prompt.record()}
    if isinstance(encoded, EncodedGroup):
        record["tokens"] = hashlib.sha256(encoded.prompt_ids.numpy().tobytes()).hexdigest()[:16]
    return record

"""A model answers questions: batches that depend on the data alone, shared by processes.

Which questions make a batch is settled before the first is asked, so that a run that was killed, or
that several processes share, computes the very same batches and writes the very same answers.
"""

import gc
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch

from unidpo_mm.adapter import Adapter
from unidpo_mm.errors import DataError
from unidpo_mm.records import EncodedGroup
from unidpo_mm.training.generation import Answer, greedy_answers

from ..models.decoding import KeepsReasoning
from ..protocols import Decoding
from .prompts import Question, by_size

__all__ = ["Local", "answer_all", "one_by_one"]

Told = Callable[[int], None]
"""Is told how many questions were answered."""


class Store(Protocol):
    """Where answers go.

    Attributes:
        done: Id -> record of what is answered.
    """

    done: dict[str, dict[str, Any]]

    def add(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Keeps records."""
        ...


@dataclass(frozen=True)
class Local:
    """A model in this process.

    Attributes:
        model: In evaluation mode.
        adapter: Of its family.
        decoding: How responses are generated.
        device: Where it is.
    """

    model: Any
    adapter: Adapter
    decoding: Decoding
    device: Any

    def encode(self, question: Question) -> EncodedGroup | str:
        """Returns the prompt, or why there is none."""
        if question.row is None:
            return question.error or "it cannot be asked"
        try:
            return self.adapter.encode_prompt(question.row)
        except DataError as error:
            return str(error)

    def answers(self, prompts: Sequence[EncodedGroup]) -> list[Answer | str]:
        """Returns the answers; where memory runs out, of the halves; of one prompt why not."""
        try:
            found = greedy_answers(
                self.model,
                KeepsReasoning(self.adapter),
                prompts,
                device=self.device,
                **asdict(self.decoding),
            )
        except (torch.OutOfMemoryError, MemoryError):
            found = None
        if found is not None:
            return list(found)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if len(prompts) == 1:
            return ["out of memory for this question alone"]
        half = len(prompts) // 2
        return [*self.answers(prompts[:half]), *self.answers(prompts[half:])]


def batches_of(questions: Sequence[Question], size: int) -> list[list[int]]:
    """Returns the numbers of the questions of each batch, the largest questions first."""
    order = by_size(questions)
    return [order[start : start + size] for start in range(0, len(order), size)]


def answer_all(
    local: Local,
    questions: Sequence[Question],
    store: Store,
    *,
    batch_size: int,
    rank: int = 0,
    world: int = 1,
    told: Told = lambda count: None,
) -> None:
    """Answers what is not answered yet, and appends it batch by batch.

    Args:
        local: The model.
        questions: All of them, in the order of the data.
        store: Where answers go.
        batch_size: Most questions of a batch.
        rank: Number of this process.
        world: How many there are.
        told: Is told how many were answered, those of before included.
    """
    batches = list(enumerate(batches_of(questions, batch_size)))[rank::world]
    open_ = [
        (number, batch)
        for number, batch in batches
        if any(questions[n].id not in store.done for n in batch)
    ]
    told(sum(len(batch) for _, batch in batches) - sum(len(batch) for _, batch in open_))
    if rank == 0:
        refused = [one for one in questions if one.row is None and one.id not in store.done]
        if refused:
            store.add([{"id": one.id, "response": "", "error": one.error} for one in refused])
    for number, batch, encoded in _ahead(local, questions, open_):
        prompts = [one for one in encoded if isinstance(one, EncodedGroup)]
        answers = iter(local.answers(prompts) if prompts else [])
        records = [
            _record(
                questions[n],
                one,
                next(answers) if isinstance(one, EncodedGroup) else one,
                number,
            )
            for n, one in zip(batch, encoded, strict=True)
        ]
        store.add([record for record in records if record["id"] not in store.done])
        told(len(batch))


def one_by_one(local: Local, questions: Sequence[Question]) -> dict[str, str]:
    """Returns id -> answer of questions that are asked alone."""
    found = {}
    for question in questions:
        encoded = local.encode(question)
        if isinstance(encoded, EncodedGroup):
            (answer,) = local.answers([encoded])
            if isinstance(answer, Answer):
                found[question.id] = answer.text
    return found


def _ahead(
    local: Local, questions: Sequence[Question], batches: Sequence[tuple[int, list[int]]]
) -> Iterator[tuple[int, list[int], list[EncodedGroup | str]]]:
    """Yields batches with their prompts; the next is encoded while one is answered."""

    def encode(batch: list[int]) -> list[EncodedGroup | str]:
        return [local.encode(questions[n]) for n in batch]

    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(encode, batches[0][1]) if batches else None
        for place, (number, batch) in enumerate(batches):
            assert coming is not None
            encoded = coming.result()
            if place + 1 < len(batches):
                coming = thread.submit(encode, batches[place + 1][1])
            yield number, batch, encoded


def _record(
    question: Question, encoded: EncodedGroup | str, answer: Answer | str, batch: int
) -> dict[str, Any]:
    record: dict[str, Any] = {"id": question.id}
    if isinstance(answer, Answer):
        record |= {"response": answer.text, "finish_reason": answer.finish_reason}
        record["new_tokens"] = answer.new_tokens
    else:
        record |= {"response": "", "error": answer}
    record |= {"batch": batch, "prompt": question.prompt_hash()}
    if question.row is not None and question.row.images:
        record["pictures"] = question.pictures_hash()
    if isinstance(encoded, EncodedGroup):
        record["tokens"] = hashlib.sha256(encoded.prompt_ids.numpy().tobytes()).hexdigest()[:16]
    return record

"""A served model answers questions: any OpenAI-compatible server, with the prompts of a local run.

Answers are appended as they come, so that a server that dies in mid-run loses none of them; what
was not answered is named by kind, and asked again by the next run.
"""

import platform
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from unidpo_mm.errors import DataError, UniDPOError
from unidpo_mm.records import ImageSlot
from unidpo_mm.records import Message as Turn

from ..benchmarks import Benchmark
from ..data.dataset import DataSet
from ..data.images import data_address
from ..models.chat import ChatClient, Failure, Message
from ..models.processes import processes
from ..models.sampling import greedy_sampling
from ..models.template_variables import VARIABLES
from ..prompts import load_prompts
from ..protocols import ANY, Decoding
from .eval_run import PACKAGES, Asking, Settings
from .progress import Told
from .prompts import Question, questions_of, shuffled_pictures
from .store import PredictionStore

__all__ = ["answer_by_endpoint", "asking_endpoint", "conversation"]

SERVED = "served"
"""Stands for the model family, which a server does not tell."""


def asking_endpoint(
    client: ChatClient, name: str, benchmark: Benchmark, data: DataSet, settings: Settings
) -> Asking:
    """Returns a served model and the questions of a benchmark.

    Args:
        client: The server.
        name: What the model is called.
        benchmark: The benchmark.
        data: Its samples, with pictures.
        settings: What holds for the run.
    """
    protocol = settings.protocol
    profile = load_prompts(settings.prompt or protocol.prompt_of(ANY))
    decoding = protocol.decoding_of(benchmark.name)
    if settings.max_new_tokens is not None:
        decoding = Decoding(**asdict(decoding) | {"max_new_tokens": settings.max_new_tokens})
    sampling = _sampling(client, decoding, settings)
    asked = data
    if settings.shuffle_pictures is not None:
        asked = shuffled_pictures(data, settings.shuffle_pictures)
    questions = questions_of(benchmark, asked, profile, images=settings.images)
    first = next((one for one in questions if one.row is not None), None)
    shown = "\n".join(_in_words(turn) for turn in first.row.messages) if first and first.row else ""
    manifest = {
        "model": name,
        "weights": f"{client.model} at {client.address}",
        "family": SERVED,
        "backend": f"endpoint {client.address}",
        "server": client.kind(),
        "sampling": sampling,
        "protocol": protocol.label,
        "prompt": profile.label,
        "style": "chat",
        "overrides": settings.overrides(),
        "benchmark": benchmark.name,
        "data_sha256": data.sha256,
        "rows": len(data.samples),
        "shuffled_pictures": settings.shuffle_pictures,
        "decoding": asdict(decoding),
        "pixels": "the server's",
        "dtype": "the server's",
        "versions": {"python": platform.python_version(), **{p: version(p) for p in PACKAGES[:1]}},
        "first_prompt": {"id": first.id if first else None, "text": shown, "ids": []},
    }
    if settings.chat_template_kwargs:
        manifest[VARIABLES] = dict(settings.chat_template_kwargs)
    return Asking(
        benchmark=benchmark,
        data=data,
        local=_Served(client, sampling),
        questions=questions,
        manifest=manifest,
    )


def _sampling(client: ChatClient, decoding: Decoding, settings: Settings) -> dict[str, Any]:
    try:
        return greedy_sampling(
            client,
            max_tokens=decoding.max_new_tokens,
            repetition_penalty=decoding.repetition_penalty,
            stop=decoding.stop,
            chat_template_kwargs=settings.chat_template_kwargs,
        )
    except Failure as failure:
        text = f"{client.address} does not answer ({failure})"
        raise UniDPOError(f"{text}. Check the address and whether the server runs") from failure


class _Served:
    """A model behind an address, with the sampling parameters of every request."""

    def __init__(self, client: ChatClient, sampling: Mapping[str, Any]) -> None:
        self.client, self.sampling = client, sampling

    def record(self, question: Question) -> dict[str, Any]:
        """Returns the answer to one question; raises `Failure`."""
        try:
            messages = conversation(question)
        except DataError as error:  # of a picture
            return {"id": question.id, "response": "", "error": str(error)}
        try:
            said = self.client.chat(messages, **self.sampling)
        except Failure as failure:
            if failure.kind != "refused":
                raise
            return {"id": question.id, "response": "", "error": str(failure)}
        found: dict[str, Any] = {"id": question.id, "response": said.text}
        found |= {"finish_reason": said.finish_reason}
        found |= {"new_tokens": said.new_tokens, "prompt": question.prompt_hash()}
        if question.row is not None and question.row.images:
            found["pictures"] = question.pictures_hash()
        return found


def answer_by_endpoint(
    asked: Asking,
    path: Path,
    settings: Settings,
    *,
    concurrent: int = 16,
    told: Told = lambda name, more, whole: None,
) -> Path:
    """Asks what is not answered yet and returns the file of predictions.

    Args:
        asked: The server and the questions.
        path: Where the file goes.
        settings: What holds for the run.
        concurrent: Requests at once.
        told: Is told how far it is.

    Raises:
        UniDPOError: If some were not answered; what was is kept.
    """
    if processes().num_processes > 1:
        text = "a served model is asked by one process, which sends many requests at once"
        raise UniDPOError(f"{text}: start it without `accelerate launch`")
    served = asked.local
    assert isinstance(served, _Served)
    store = PredictionStore(path, asked.manifest, overwrite=settings.overwrite)
    store.open()
    name, whole = asked.benchmark.name, len(asked.questions)
    if store.finished:
        return path
    for one in asked.questions:
        if one.row is None and one.id not in store.done:
            store.add([{"id": one.id, "response": "", "error": one.error}])
    open_ = [one for one in asked.questions if one.id not in store.done]
    told(name, whole - len(open_), whole)
    failures = _ask(served, open_, store, concurrent, lambda: told(name, 1, whole))
    if failures:
        raise UniDPOError(_unanswered(failures, len(open_), served.client.address))
    refused = [one["error"] for one in store.done.values() if "error" in one]
    if len(refused) == whole:
        text = f"not one of {whole} questions was answered; the first: {refused[0]}"
        raise UniDPOError(f"{text}. Check the name of the model, and the pictures")
    store.merge([one.id for one in asked.questions])
    return path


def _ask(
    served: "_Served",
    questions: Sequence[Question],
    store: PredictionStore,
    concurrent: int,
    told: Callable[[], None],
) -> list[Failure]:
    """Asks questions, keeps the answers as they come, and returns what failed."""
    failures: list[Failure] = []
    with ThreadPoolExecutor(concurrent) as threads:
        waiting = [threads.submit(served.record, one) for one in questions]
        try:
            for future in as_completed(waiting):
                try:
                    store.add([future.result()])
                except Failure as failure:
                    failures.append(failure)
                told()
        except BaseException:  # a signal, or a wrong key: nothing else need be asked
            running = [future for future in waiting if not future.cancel()]
            for future in as_completed(running):
                if not future.exception() and future.result()["id"] not in store.done:
                    store.add([future.result()])
            raise
    return failures


def conversation(question: Question) -> list[Message]:
    """Returns a question in OpenAI's layout: the same words and pictures, in the same order."""
    assert question.row is not None
    images = iter(question.row.images)
    turns: list[Message] = []
    for message in question.row.messages:
        parts = [
            {"type": "image_url", "image_url": {"url": data_address(next(images))}}
            if isinstance(part, ImageSlot)
            else {"type": "text", "text": part}
            for part in message.parts
        ]
        plain = len(parts) == 1 and isinstance(message.parts[0], str)
        turns.append({"role": message.role, "content": message.parts[0] if plain else parts})
    return turns


def _in_words(turn: Turn) -> str:
    parts = ("[picture]" if isinstance(part, ImageSlot) else part for part in turn.parts)
    return f"{turn.role}: {''.join(parts)}"


def _unanswered(failures: Sequence[Failure], asked: int, address: str) -> str:
    kinds = Counter(failure.kind for failure in failures)
    said = ", ".join(f"{kind} {count}" for kind, count in sorted(kinds.items()))
    text = f"{len(failures)} of {asked} questions were not answered by {address} ({said}). "
    if len(failures) == asked:
        text += "Check the address and whether the server runs"
    else:
        text += "The other answers are kept: run it again to ask the rest"
    return f"{text}. The first failure: {failures[0].found}"

"""A server evaluates a benchmark with the prompts of a local run.

Responses are stored as they arrive, so a server that fails during a run loses none of them. The
next run repeats the missing samples.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from unidpo_mm.distributed.processes import processes
from unidpo_mm.errors import UniDPOError
from unidpo_mm.inference.endpoint import ChatClient, ChatFailure
from unidpo_mm.inference.progress import ProgressCallback, no_progress
from unidpo_mm.inference.prompts import Prompt
from unidpo_mm.inference.sampling import greedy_sampling
from unidpo_mm.inference.served_model import ServedModel, request_all
from unidpo_mm.inference.template_variables import VARIABLES
from unidpo_mm.records import MediaSlot

from ..benchmarks import Benchmark
from ..data.dataset import Dataset
from ..protocols import ANY
from .eval_run import PACKAGES, EvalRun, RunSettings, versions
from .store import PredictionStore

SERVED = "served"
"""Stands for the model family, which a server does not report."""


def served_run(
    client: ChatClient, name: str, benchmark: Benchmark, data: Dataset, settings: RunSettings
) -> EvalRun:
    """Build the prompts of a benchmark for a server; `name` is the name of the model."""
    profile, prompts = settings.prompts(benchmark, data, ANY)
    decoding = settings.decoding(benchmark)
    try:
        sampling = greedy_sampling(
            client,
            max_tokens=decoding.max_new_tokens,
            repetition_penalty=decoding.repetition_penalty,
            stop=decoding.stop,
            chat_template_kwargs=settings.chat_template_kwargs,
        )
    except ChatFailure as failure:
        text = f"no reply from {client.address} ({failure})"
        raise UniDPOError(f"{text}. Check the URL and whether the server is running") from failure
    first = next((prompt for prompt in prompts if prompt.row is not None), None)
    manifest = {
        "model": name,
        "weights": f"{client.model} at {client.address}",
        "family": SERVED,
        "backend": f"endpoint {client.address}",
        "server": client.kind(),
        "sampling": sampling,
        **settings.manifest(benchmark, data, profile, "chat"),
        "pixels": "the server's",
        "dtype": "the server's",
        "versions": versions(PACKAGES[:1]),
        "first_prompt": {"id": first.id, "text": _text(first), "ids": []} if first else {},
    }
    if settings.chat_template_kwargs:
        manifest[VARIABLES] = dict(settings.chat_template_kwargs)
    return EvalRun(
        benchmark=benchmark,
        data=data,
        model=ServedModel(client, sampling),
        prompts=prompts,
        manifest=manifest,
    )


def request_predictions(
    run: EvalRun,
    path: Path,
    settings: RunSettings,
    *,
    concurrency: int = 16,
    on_progress: ProgressCallback = no_progress,
) -> None:
    """Request the predictions of a server that do not exist yet, and merge all into a file.

    Raises:
        UniDPOError: If some requests fail; the other responses are stored.
    """
    if processes().num_processes > 1:
        text = "a single process sends all requests to a server, many at once"
        raise UniDPOError(f"{text}. Start it without `accelerate launch`")
    with PredictionStore(path, run.manifest, overwrite=settings.overwrite) as store:
        store.open(run.ids)
        if not store.finished:
            _request_missing(run, store, concurrency, on_progress)
            store.merge(run.ids)


def _request_missing(
    run: EvalRun, store: PredictionStore, concurrency: int, on_progress: ProgressCallback
) -> None:
    """Add the predictions that are not stored yet."""
    name, total = run.benchmark.name, len(run.prompts)
    model: ServedModel = run.model
    for prompt in run.prompts:
        if prompt.row is None and prompt.id not in store.done:
            store.add([{"id": prompt.id, "response": "", "error": prompt.error}])
    todo = [prompt for prompt in run.prompts if prompt.id not in store.done]
    on_progress(name, total - len(todo), total)
    failures = request_all(
        model,
        todo,
        store,
        concurrency=concurrency,
        on_reply=lambda: on_progress(name, 1, total),
    )
    if failures:
        raise UniDPOError(_describe(failures, len(todo), model.client.address))
    errors = [record["error"] for record in store.done.values() if "error" in record]
    if len(errors) == total:
        text = f"all {total} requests were refused; the first: {errors[0]}"
        raise UniDPOError(f"{text}. Check the model name and the images")


def _text(prompt: Prompt) -> str:
    """Return a prompt as readable text."""
    lines = []
    for turn in prompt.row.messages if prompt.row else ():
        parts = ("[image]" if isinstance(part, MediaSlot) else part for part in turn.parts)
        lines.append(f"{turn.role}: {''.join(parts)}")
    return "\n".join(lines)


def _describe(failures: Sequence[ChatFailure], total: int, address: str) -> str:
    counts = sorted(Counter(failure.kind for failure in failures).items())
    kinds = ", ".join(f"{kind} {count}" for kind, count in counts)
    text = f"{len(failures)} of {total} requests to {address} failed ({kinds}). "
    if len(failures) == total:
        text += "Check the URL and whether the server is running"
    else:
        text += "The other responses are stored: run the same command again to resume"
    return f"{text}. The first failure: {failures[0].message}"

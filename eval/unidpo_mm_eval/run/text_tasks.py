"""Text benchmarks by lm-eval: it is handed the loaded model, and scores by its own rules."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from unidpo_mm.errors import Problem, RecipeError, UniDPOError
from unidpo_mm.modeling.scoring import unwrap_peft

from ..models.checkpoint import LoadedCheckpoint
from ..models.template_variables import variables_of
from .eval_run import style_of

__all__ = ["TextResults", "run_text_tasks", "write_text_results"]

SEEDS = ("random_seed", "numpy_random_seed", "torch_random_seed", "fewshot_random_seed")


@dataclass(frozen=True, kw_only=True)
class TextResults:
    """What lm-eval says.

    Attributes:
        model: What the checkpoint is called.
        results: Task -> metric -> value, as lm-eval names them.
        samples: Task -> logged samples.
        settings: How it was run, and the version of lm-eval.
    """

    model: str
    results: Mapping[str, Mapping[str, Any]]
    samples: Mapping[str, Sequence[Mapping[str, Any]]]
    settings: Mapping[str, Any]


def run_text_tasks(
    loaded: LoadedCheckpoint,
    tasks: Sequence[str],
    *,
    include: Path | None = None,
    num_fewshot: int | None = None,
    limit: int | None = None,
    batch_size: int = 8,
    style: str = "auto",
    nltk_data: Path | None = None,
    chat_template_kwargs: Mapping[str, Any] | None = None,
    think_end_token: str | None = None,
    seed: int = 0,
) -> TextResults:
    """Returns what lm-eval says of a checkpoint.

    Args:
        loaded: The checkpoint.
        tasks: Names of lm-eval's tasks, or of those in the folder that is included.
        include: Folder of task files of one's own.
        num_fewshot: Examples in front of each question; None for the task's own.
        limit: Questions of each task; None for all.
        batch_size: Requests at once.
        style: ``chat`` renders questions by the chat template, ``raw`` does not.
        nltk_data: Folder of NLTK's data, which some tasks need.
        chat_template_kwargs: Variables for the chat template.
        think_end_token: Ends the reasoning; lm-eval scores what follows it.
        seed: Of few-shot examples and whatever else a task draws.

    Raises:
        UniDPOError: If lm-eval is not installed, or a task needs data that are not there.
        RecipeError: If there is no such task.
    """
    evaluate, lm_class, manager_class = _library()
    if nltk_data is not None:
        import nltk

        nltk.data.path.insert(0, str(nltk_data))
    manager = manager_class(include_path=None if include is None else str(include))
    unknown = [task for task in tasks if task not in manager.all_tasks]
    if unknown:
        found = f"lm-eval has no task {', '.join(unknown)}"
        remedy = "Name one of `lm-eval ls tasks`, or the folder of your own by --include"
        raise RecipeError(Problem("--tasks", found, remedy))
    tokenizer = getattr(loaded.processor, "tokenizer", loaded.processor)
    model = lm_class(
        pretrained=unwrap_peft(loaded.model),
        tokenizer=tokenizer,
        backend="causal",
        batch_size=batch_size,
        think_end_token=think_end_token,
        chat_template_args=dict(chat_template_kwargs) if chat_template_kwargs else None,
    )
    rendered = style_of(loaded.processor, style)
    try:
        found = evaluate(
            model=model,
            tasks=list(tasks),
            task_manager=manager,
            num_fewshot=num_fewshot,
            limit=limit,
            batch_size=batch_size,
            apply_chat_template=rendered == "chat",
            log_samples=True,
            **dict.fromkeys(SEEDS, seed),
        )
    except ImportError as error:
        name = f" '{error.name}'" if error.name else ""
        raise UniDPOError(
            f"a task needs a package that is not installed{name} ({error}); pip install it"
        ) from error
    except LookupError as error:  # of NLTK, in a page of text
        first = next((line for line in str(error).splitlines() if "Resource" in line), str(error))
        raise UniDPOError(
            f"a task needs data of NLTK that are not there ({first.strip()}); download them and "
            "name their folder by --nltk-data"
        ) from error
    settings = {
        "tasks": list(tasks),
        "num_fewshot": num_fewshot,
        "limit": limit,
        "style": rendered,
        "think_end_token": think_end_token,
        **variables_of(loaded.checkpoint, chat_template_kwargs or {}),
        "seed": seed,
        "weights": loaded.checkpoint.weights,
        "lm_eval": version("lm_eval"),
    }
    return TextResults(
        model=loaded.checkpoint.name,
        results=found["results"],
        samples=found["samples"],
        settings=settings,
    )


def write_text_results(found: TextResults, folder: Path) -> None:
    """Writes ``text.json``, and the samples of every task as lm-eval logs them."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {"model": found.model, "results": found.results, "settings": found.settings}
    (folder / "text.json").write_text(_json(content, indent=1) + "\n", encoding="utf-8")
    for task, samples in found.samples.items():
        lines = "".join(f"{_json(sample)}\n" for sample in samples)
        (folder / f"samples_{task}.jsonl").write_text(lines, encoding="utf-8")


def _json(value: Any, **more: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str, **more)


def _library() -> tuple[Any, Any, Any]:
    try:
        from lm_eval import simple_evaluate
        from lm_eval.models.huggingface import HFLM
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise UniDPOError(
            f"text tasks are run by lm-eval ({error}); pip install 'unidpo-mm[lm-eval]'"
        ) from error
    return simple_evaluate, HFLM, TaskManager

"""Text benchmarks by lm-eval, which gets the loaded model and scores by its own rules."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console

from unidpo_mm.errors import Problem, RecipeError, UniDPOError
from unidpo_mm.inference.checkpoint import LoadedCheckpoint
from unidpo_mm.inference.local_model import prompt_style
from unidpo_mm.inference.template_variables import TRAINED_WITH, VARIABLES
from unidpo_mm.modeling.logp_model import unwrap_peft

from ..data.predictions import variables_warning
from ..report.text import print_notes, print_table

SEEDS = ("random_seed", "numpy_random_seed", "torch_random_seed", "fewshot_random_seed")


@dataclass(frozen=True, kw_only=True)
class TextTasks:
    """The tasks, and how lm-eval runs them."""

    tasks: Sequence[str]  # Names of lm-eval's tasks, or of those in `include`
    include: Path | None = None  # Directory of further task files
    num_fewshot: int | None = None  # Number of examples in the prompt; `None` for the task's own
    limit: int | None = None  # Maximum number of samples per task; `None` for all
    batch_size: int = 8  # Number of simultaneous requests
    # ``chat`` uses the chat template, ``raw`` does not, ``auto`` if there is one
    style: str = "auto"
    nltk_data: Path | None = None  # Directory of NLTK's data, which some tasks need
    # Variables for the chat template
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    think_end_token: str | None = None  # End of the reasoning; lm-eval scores the text after it
    seed: int = 0  # Seed of few-shot examples and everything else that a task draws


@dataclass(frozen=True, kw_only=True)
class TextResults:
    """The results of lm-eval."""

    model: str
    results: Mapping[str, Mapping[str, Any]]
    samples: Mapping[str, Sequence[Mapping[str, Any]]]
    settings: Mapping[str, Any]


def run_text_tasks(loaded: LoadedCheckpoint, options: TextTasks) -> TextResults:
    """Let lm-eval evaluate a checkpoint."""
    with _missing_dependencies():
        from lm_eval import simple_evaluate
        from lm_eval.models.huggingface import HFLM
        from lm_eval.tasks import TaskManager
    if options.nltk_data is not None:
        import nltk

        nltk.data.path.insert(0, str(options.nltk_data))
    manager = TaskManager(include_path=None if options.include is None else str(options.include))
    unknown = [task for task in options.tasks if task not in manager.all_tasks]
    if unknown:
        text = f"lm-eval has no task {', '.join(unknown)}"
        remedy = "Use a name from `lm-eval ls tasks`, or --include for a directory of tasks"
        raise RecipeError(Problem("--tasks", text, remedy))
    variables = dict(options.chat_template_kwargs)
    style = prompt_style(loaded.processor, options.style)
    model = HFLM(
        pretrained=unwrap_peft(loaded.model),
        tokenizer=getattr(loaded.processor, "tokenizer", loaded.processor),
        backend="causal",
        batch_size=options.batch_size,
        think_end_token=options.think_end_token,
        chat_template_args=variables or None,
    )
    with _missing_dependencies():
        content = simple_evaluate(
            model=model,
            tasks=list(options.tasks),
            task_manager=manager,
            num_fewshot=options.num_fewshot,
            limit=options.limit,
            batch_size=options.batch_size,
            apply_chat_template=style == "chat",
            log_samples=True,
            **dict.fromkeys(SEEDS, options.seed),
        )
    names = ("num_fewshot", "limit", "think_end_token", "seed")
    settings = {name: getattr(options, name) for name in names}
    settings |= {"tasks": list(options.tasks), "style": style, "lm_eval": version("lm_eval")}
    manifest, recorded = loaded.manifest(variables), ("weights", VARIABLES, TRAINED_WITH)
    settings |= {name: manifest[name] for name in recorded if name in manifest}
    return TextResults(
        model=loaded.checkpoint.name,
        results=content["results"],
        samples=content["samples"],
        settings=settings,
    )


def write_text_results(results: TextResults, folder: Path) -> None:
    """Write ``text.json``, and the samples of every task as lm-eval logs them."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {"model": results.model, "results": results.results, "settings": results.settings}
    (folder / "text.json").write_text(_json(content, indent=1), encoding="utf-8")
    for task, samples in results.samples.items():
        lines = "".join(map(_json, samples))
        (folder / f"samples_{task}.jsonl").write_text(lines, encoding="utf-8")


def _json(value: Any, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str, **options) + "\n"


@contextmanager
def _missing_dependencies() -> Iterator[None]:
    """Say how to install what lm-eval or one of its tasks needs."""
    try:
        yield
    except ImportError as error:
        if (error.name or "").startswith("lm_eval"):
            text = f"text tasks need lm-eval ({error})"
            raise UniDPOError(f"{text}. Run pip install 'unidpo-mm[lm-eval]'") from error
        name = f" '{error.name}'" if error.name else ""
        text = f"a task needs the package{name}, which is not installed ({error})"
        raise UniDPOError(f"{text}. Install it with pip") from error
    except LookupError as error:  # raised by NLTK with a page of text
        first = next((line for line in str(error).splitlines() if "Resource" in line), str(error))
        text = f"a task needs NLTK data that are not installed ({first.strip()})"
        raise UniDPOError(f"{text}. Download them and use --nltk-data") from error


def print_text_results(results: Sequence[TextResults], console: Console) -> None:
    """Print a row per task and metric with lm-eval's names, and a column per checkpoint."""
    rows = []
    for task in dict.fromkeys(task for result in results for task in result.results):
        values = [result.results.get(task, {}) for result in results]
        names = dict.fromkeys(name for metrics in values for name in metrics)
        for name in (name for name in names if "," in name and "_stderr," not in name):
            error = name.replace(",", "_stderr,", 1)
            cells = [_with_error(metrics.get(name), metrics.get(error)) for metrics in values]
            rows.append([task, name.removesuffix(",none"), *cells])
    header = ("task", "metric", *(result.model for result in results))
    print_table(console, header, rows, text_columns=2)
    for result in results:
        warnings = [f"{result.model}: {text}" for text in variables_warning(result.settings)]
        print_notes(console, warnings, style="yellow")


def _with_error(value: object, error: object) -> str:
    if not isinstance(value, int | float):
        return "" if value is None else str(value)
    return f"{value:.4f}" + (f" ± {error:.4f}" if isinstance(error, int | float) else "")

"""Commands that run models: `unidpo-mm eval run`, `prefs`, `text` and `parity`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import options as opt

if TYPE_CHECKING:
    from ..run.flow import Parity

DIFFERENT = 1
"""Exit code of `parity` if scores differ."""


@opt.errors_once()
def run_benchmarks(  # noqa: PLR0913, PLR0917 - one parameter per option
    data: opt.Data,
    output: opt.Output,
    checkpoints: Annotated[
        list[str] | None, typer.Argument(help=opt.CHECKPOINTS, metavar="CHECKPOINT")
    ] = None,
    benchmark: Annotated[
        list[str] | None,
        opt.option(opt.BENCHMARK, "--benchmark", "-b"),
    ] = None,
    suite: Annotated[
        str | None, opt.option("Name of a suite, whose benchmarks are evaluated.")
    ] = None,
    protocol: opt.ProtocolName = None,
    scorer: opt.ScorerName = None,
    prompt: Annotated[
        str | None, opt.option("Prompt profile. [default: that of the protocol]")
    ] = None,
    style: opt.Style = "auto",
    chat_template_kwargs: opt.TemplateVariables = None,
    name: opt.Names = None,
    images: opt.Images = None,
    batch_size: opt.BatchSize = 8,
    dtype: opt.DType = "auto",
    max_new_tokens: opt.MaxNewTokens = None,
    limit: opt.Limit = None,
    shuffle_images: Annotated[
        int | None,
        opt.option("Control: give every sample the image of another one, with this seed."),
    ] = None,
    verify_batching: Annotated[
        int,
        typer.Option(
            help="Regenerate this many responses individually and report differences.", min=0
        ),
    ] = 0,
    overwrite: opt.Overwrite = False,
    endpoint: Annotated[
        str | None, opt.option("URL of an OpenAI-compatible server, in place of checkpoints.")
    ] = None,
    served_model: Annotated[str | None, opt.option(opt.SERVED)] = None,
    server: opt.Server = "auto",
    key: opt.Key = None,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for a server's reply.")] = 300.0,
) -> None:
    """Evaluate checkpoints or a server on benchmarks, and compare them.

    An interrupted run resumes with the same command. `accelerate launch -m unidpo_mm eval run ...`
    shares the samples between processes.
    """
    from unidpo_mm.inference.template_variables import parse_variables

    from ..run.flow import run_plan, run_served
    from ..run.plan import EvalPlan

    variables = parse_variables(chat_template_kwargs)
    if variables and style == "raw":
        text = "prompts with --style raw do not use a chat template"
        raise typer.BadParameter(text, param_hint="--chat-template-kwargs")
    if bool(checkpoints) == (endpoint is not None):
        text = "expected either checkpoints or --endpoint"
        raise typer.BadParameter(text, param_hint="CHECKPOINT")
    if endpoint is None and (served_model or key or server != "auto"):
        text = "--served-model, --key and --server require --endpoint"
        raise typer.BadParameter(text, param_hint="--endpoint")
    if endpoint is not None and (style == "raw" or verify_batching or dtype != "auto"):
        text = "not supported with --endpoint, where the server renders prompts and holds weights"
        raise typer.BadParameter(text, param_hint="--style raw, --verify-batching, --dtype")
    plan = EvalPlan.build(
        checkpoints or (),
        data=data,
        output=output,
        benchmarks=benchmark or (),
        suite=suite,
        protocol=protocol,
        scorer=scorer,
        names=name or (),
        limit=limit,
        images=images,
    )
    settings: dict[str, Any] = {
        "prompt": prompt,
        "images": images,
        "max_new_tokens": max_new_tokens,
        "shuffle_images": shuffle_images,
        "chat_template_kwargs": variables,
        "overwrite": overwrite,
    }
    if endpoint is None:
        settings |= {"style": style, "batch_size": batch_size}
        run_plan(plan, dtype=dtype, verify=verify_batching, **settings)
        return
    if served_model is None:
        text = "--endpoint requires the name of a model"
        raise typer.BadParameter(text, param_hint="--served-model")
    from unidpo_mm.inference.endpoint import ChatClient

    client = ChatClient(endpoint, served_model, key_name=key, timeout=timeout, server=server)
    run_served(plan, client, **settings)


@opt.errors_once()
def run_prefs(  # noqa: PLR0917 - one parameter per option
    checkpoints: opt.Checkpoints,
    data: Annotated[Path, typer.Option(help="Data of the benchmark: a file of pairs.")],
    output: opt.Output,
    benchmark: Annotated[
        str,
        typer.Option(
            "--benchmark",
            "-b",
            help="Name of a benchmark of pairs, or a Python file; see `eval list`.",
        ),
    ] = "preferences",
    images: opt.Images = None,
    reference: Annotated[
        str,
        typer.Option(
            help="Baseline of rewards: none (log-prob per token), lora_off (the model without its "
            "LoRA adapter), or a checkpoint."
        ),
    ] = "none",
    beta: Annotated[float, typer.Option(help="Scale of rewards with a reference.")] = 0.1,
    name: opt.Names = None,
    batch_size: opt.BatchSize = 8,
    dtype: opt.DType = "auto",
    style: opt.Style = "auto",
    chat_template_kwargs: opt.TemplateVariables = None,
    overwrite: opt.Overwrite = False,
) -> None:
    """Evaluate checkpoints on preference pairs: accuracy, margins, effect of length."""
    from unidpo_mm.inference.template_variables import parse_variables

    from ..prefs.evaluation import run_preferences

    run_preferences(
        checkpoints,
        data=data,
        output=output,
        benchmark=benchmark,
        images=images,
        reference=reference,
        beta=beta,
        names=name or (),
        batch_size=batch_size,
        dtype=dtype,
        style=style,
        chat_template_kwargs=parse_variables(chat_template_kwargs),
        overwrite=overwrite,
    )


def run_text(  # noqa: PLR0917 - one parameter per option
    checkpoints: opt.Checkpoints,
    tasks: Annotated[str, typer.Option(help="Comma-separated names of lm-eval's tasks.")],
    output: Annotated[Path, typer.Option(help="Directory of results and logged samples.")],
    include: Annotated[Path | None, opt.option("Directory of your own task files.")] = None,
    num_fewshot: Annotated[
        int | None,
        opt.option("Number of examples in the prompt. [default: that of the task]", min=0),
    ] = None,
    limit: Annotated[int | None, opt.option("Maximum number of samples per task.", min=1)] = None,
    name: opt.Names = None,
    batch_size: opt.BatchSize = 8,
    dtype: opt.DType = "auto",
    style: opt.Style = "auto",
    chat_template_kwargs: opt.TemplateVariables = None,
    think_end_token: Annotated[
        str | None,
        opt.option("End of the reasoning, such as </think>; the text after it is scored."),
    ] = None,
    nltk_data: Annotated[
        Path | None, opt.option("Directory of NLTK's data, for tasks that need it.")
    ] = None,
) -> None:
    """Evaluate checkpoints on text benchmarks with lm-eval.

    It is not installed by default: pip install 'unidpo-mm[lm-eval]'.
    """
    from rich.console import Console

    from unidpo_mm.distributed.processes import processes
    from unidpo_mm.inference.checkpoint import find_checkpoints, load_checkpoint
    from unidpo_mm.inference.template_variables import parse_variables

    from ..run.text_tasks import TextTasks, print_text_results, run_text_tasks, write_text_results

    if processes().num_processes > 1:
        text = "lm-eval runs in a single process"
        raise typer.BadParameter(text, param_hint="accelerate launch")
    options = TextTasks(
        tasks=[task.strip() for task in tasks.split(",") if task.strip()],
        include=include,
        num_fewshot=num_fewshot,
        limit=limit,
        batch_size=batch_size,
        style=style,
        nltk_data=nltk_data,
        chat_template_kwargs=parse_variables(chat_template_kwargs),
        think_end_token=think_end_token,
    )
    results = []
    for checkpoint in find_checkpoints(checkpoints, name or ()):
        loaded = load_checkpoint(checkpoint, dtype=dtype, device=processes().device)
        results.append(run_text_tasks(loaded, options))
        del loaded
        write_text_results(results[-1], output / checkpoint.name)
    print_text_results(results, Console())


def run_parity(  # noqa: PLR0913, PLR0917 - one parameter per option
    checkpoint: Annotated[
        str,
        typer.Argument(
            help="Directory of a model or LoRA adapter, or hub name.", metavar="CHECKPOINT"
        ),
    ],
    endpoint: Annotated[str, typer.Option(help="URL of an OpenAI-compatible server.")],
    served_model: Annotated[str, typer.Option(help=opt.SERVED)],
    benchmark: Annotated[list[str], typer.Option("--benchmark", "-b", help=opt.BENCHMARK)],
    data: opt.Data,
    output: opt.Output,
    protocol: opt.ProtocolName = None,
    limit: Annotated[
        int, typer.Option(help="Maximum number of clusters per benchmark.", min=1)
    ] = 50,
    images: opt.Images = None,
    max_new_tokens: opt.MaxNewTokens = None,
    chat_template_kwargs: opt.TemplateVariables = None,
    server: opt.Server = "auto",
    dtype: opt.DType = "auto",
    key: opt.Key = None,
    overwrite: opt.Overwrite = False,
) -> None:
    """Compare a checkpoint in this process with a server of the same model.

    The exit code is 0 if all scores are equal, otherwise 1.
    """
    from unidpo_mm.inference.endpoint import ChatClient
    from unidpo_mm.inference.template_variables import parse_variables

    from ..run.flow import compare_backends
    from ..run.plan import EvalPlan

    plan = EvalPlan.build(
        data=data,
        output=output,
        benchmarks=benchmark,
        protocol=protocol,
        limit=limit,
        allow_judge=False,
        images=images,
    )
    comparisons = compare_backends(
        checkpoint,
        ChatClient(endpoint, served_model, key_name=key, server=server),
        plan,
        dtype=dtype,
        images=images,
        max_new_tokens=max_new_tokens,
        chat_template_kwargs=parse_variables(chat_template_kwargs),
        overwrite=overwrite,
    )
    _print_parity(comparisons)
    if any(parity.equal_scores < parity.n for parity in comparisons):
        raise typer.Exit(DIFFERENT)


def _print_parity(comparisons: "Sequence[Parity]") -> None:
    from rich.console import Console

    from ..report.text import print_notes, print_table

    rows, notes = [], []
    for parity in comparisons:
        values = [f"{result.metrics[result.headline]:.2f}" for result in parity.results]
        counts = (parity.n, parity.equal_responses, parity.equal_scores)
        rows.append([parity.benchmark, *map(str, counts), *values])
        if parity.difference is not None:
            key, here, there = parity.difference
            notes.append(
                f"{parity.benchmark}, '{key}': {here[:200]!r} here, {there[:200]!r} served"
            )
    header = ("benchmark", "n", "equal responses", "equal scores", "here", "served")
    print_table(Console(), header, rows)
    print_notes(Console(), notes, style="yellow")

"""`unidpo-mm chat`: chat with a checkpoint in the terminal."""

import math
from typing import Annotated, Literal

import typer

from ..encoding_choices import PromptStyle

__all__ = ["chat"]


def chat(  # noqa: PLR0913, PLR0917, one parameter per option
    folder: Annotated[
        str,
        typer.Argument(
            help="Directory of a model, LoRA adapter or run; or a hub name.",
            metavar="FOLDER",
            show_default=False,
        ),
    ],
    image: Annotated[
        list[str] | None,
        typer.Option(help="Image for the first message; repeatable.", show_default=False),
    ] = None,
    video: Annotated[
        list[str] | None,
        typer.Option(help="Video for the first message; repeatable.", show_default=False),
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option(
            help="Print the response to this prompt and exit. [default: standard input, unless "
            "that is a terminal]",
            show_default=False,
        ),
    ] = None,
    system: Annotated[str | None, typer.Option(help="System message.", show_default=False)] = None,
    before: Annotated[
        bool,
        typer.Option("--before", help="Also show the responses of the model before training."),
    ] = False,
    compare: Annotated[
        str | None,
        typer.Option(
            help="Compare with this checkpoint: also show its responses.", show_default=False
        ),
    ] = None,
    max_new_tokens: Annotated[
        int, typer.Option(help="Maximum number of tokens of a response.", min=1)
    ] = 512,
    temperature: Annotated[
        float,
        typer.Option(help="Temperature of sampling; 0 selects greedy decoding.", min=0),
    ] = 0.0,
    top_p: Annotated[
        float,
        typer.Option(help="Sample from the most likely tokens that have this total probability."),
    ] = 1.0,
    seed: Annotated[
        int | None,
        typer.Option(help="Seed of the random number generator.", show_default=False, min=0),
    ] = None,
    dtype: Annotated[
        Literal["auto", "bfloat16", "float16", "float32"],
        typer.Option(help="Number format of the weights; auto keeps the saved format."),
    ] = "auto",
    device: Annotated[str, typer.Option(help="Device to run on, for example cuda:1.")] = "auto",
    style: Annotated[
        PromptStyle | None,
        typer.Option(
            help="Style of prompts: chat, raw, or auto (chat if there is a chat template). "
            "[default: the style of the run, or auto]",
            show_default=False,
        ),
    ] = None,
    chat_template_kwargs: Annotated[
        list[str] | None,
        typer.Option(
            help="Variables for the chat template: a JSON object, or NAME=VALUE; repeatable. "
            "[default: the variables of the run]",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Chat with a checkpoint; type /help for the commands of the conversation.

    Prompts are rendered as in training and evaluation.
    """
    if before and compare is not None:
        text = "cannot be combined with --compare"
        raise typer.BadParameter(text, param_hint="--before")
    if not math.isfinite(temperature):
        raise typer.BadParameter(f"{temperature} is not finite", param_hint="--temperature")
    if not 0 < top_p <= 1:
        raise typer.BadParameter(f"{top_p} is not in (0, 1]", param_hint="--top-p")

    from .chat_terminal import ChatTerminal, images_of, prompt_of, videos_of

    question = prompt_of(prompt)
    images, videos = images_of(image or ()), videos_of(video or ())

    from ..inference.chat import ChatOptions, model_before, open_chat  # imports torch
    from ..inference.decoding import Sampling
    from ..inference.template_variables import parse_variables

    options = ChatOptions(
        max_new_tokens=max_new_tokens,
        dtype=dtype,
        device=device,
        style=style,
        chat_template_kwargs=parse_variables(chat_template_kwargs),
        system=system or "",
    )
    models = open_chat(folder, options, compare=model_before(folder) if before else compare)
    sampling = Sampling(temperature=temperature, top_p=top_p) if temperature else None
    terminal = ChatTerminal(models, images, videos, sampling, seed)
    if question is None:
        terminal.run()
    else:
        terminal.print_response(question)

"""The sampling parameters of a request: all of them, so that a server adds none.

vLLM takes every parameter that a request omits from the model's ``generation_config.json``, which
may contain ``top_k: 1`` or a repetition penalty. A greedy response then is not greedy, and several
samples of a prompt are all the same.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import Problem, RecipeError
from .decoding import Sampling
from .endpoint import ChatClient

__all__ = ["greedy_sampling", "random_sampling"]

NEUTRAL: Mapping[str, Any] = {
    "temperature": 0,
    "top_p": 1,
    "frequency_penalty": 0,
    "presence_penalty": 0,
    "seed": 0,
}
EXTENSIONS: Mapping[str, Any] = {"top_k": -1, "min_p": 0, "repetition_penalty": 1.0}
"""Neutral values of parameters that OpenAI's own server does not support."""
MAX_STOPS = 4
"""Maximum number of stop strings for OpenAI's server."""


def greedy_sampling(
    client: ChatClient,
    *,
    max_tokens: int,
    repetition_penalty: float = 1.0,
    stop: Sequence[str] = (),
    chat_template_kwargs: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the fields of a request for a greedy response.

    Raises:
        RecipeError: If the server does not state that it supports a required field.
        ChatFailure: If the server does not reply.
    """
    fields: dict[str, Any] = {**NEUTRAL, "max_tokens": max_tokens}
    if stop:
        fields["stop"] = list(stop) if client.extended else list(stop)[:MAX_STOPS]
    extensions = {
        "repetition_penalty": repetition_penalty,
        "chat_template_kwargs": chat_template_kwargs,
    }
    remedy = "Use --server vllm or --server sglang if it is one"
    return fields | _extensions(extensions, client.address, client.extended, remedy)


def random_sampling(
    sampling: Sampling | None,
    *,
    max_tokens: int,
    where: str,
    extended: bool,
    remedy: str,
    stop: Sequence[str] = (),
    chat_template_kwargs: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the fields of requests for sampled responses, except their seeds and numbers.

    Args:
        sampling: How tokens are drawn; `None` for greedy decoding.
        max_tokens: Maximum number of tokens of a response.
        where: The server, for messages.
        extended: Whether it supports fields beyond OpenAI's.
        remedy: How to state that it does, for messages.
        stop: Strings that end a response.
        chat_template_kwargs: Variables of the chat template.

    Raises:
        RecipeError: If the server does not support a required field, or as many stop strings.
    """
    fields = {name: value for name, value in NEUTRAL.items() if name != "seed"}
    fields["max_tokens"] = max_tokens
    extensions: dict[str, Any] = {"chat_template_kwargs": chat_template_kwargs}
    if sampling is not None:
        fields |= {"temperature": sampling.temperature, "top_p": sampling.top_p}
        extensions |= {"top_k": sampling.top_k or -1, "min_p": sampling.min_p}
    if stop:
        fields["stop"] = list(stop)
    if len(stop) > MAX_STOPS and not extended:
        text = f"there are {len(stop)} stop strings, and OpenAI's protocol allows {MAX_STOPS}"
        raise RecipeError(Problem(where, text, f"{remedy}, or remove stop strings"))
    return fields | _extensions(extensions, where, extended, remedy)


def _extensions(
    values: Mapping[str, Any], where: str, extended: bool, remedy: str
) -> dict[str, Any]:
    """Return the fields beyond OpenAI's, or refuse those that change a response."""
    fields = {name: value for name, value in values.items() if value or name in EXTENSIONS}
    if extended:
        return {**EXTENSIONS, **fields}
    text = "the server does not state that it is vLLM or SGLang, which support"
    problems = [
        Problem(where, f"{text} '{name}'", remedy)
        for name, value in fields.items()
        if value != EXTENSIONS.get(name)
    ]
    if problems:
        raise RecipeError(problems)
    return {}

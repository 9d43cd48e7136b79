"""The sampling parameters of a request: all of them, so that a server adds none.

vLLM takes every parameter that a request omits from the model's ``generation_config.json``, which
may contain ``top_k: 1`` or a repetition penalty. A greedy response then is not greedy.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import Problem, RecipeError
from .endpoint import ChatClient

__all__ = ["greedy_sampling"]

NEUTRAL: Mapping[str, Any] = {
    "temperature": 0,
    "top_p": 1,
    "frequency_penalty": 0,
    "presence_penalty": 0,
    "seed": 0,
}
EXTENSIONS: Mapping[str, Any] = {"top_k": -1, "min_p": 0}
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
    if client.extended:
        fields |= {**EXTENSIONS, "repetition_penalty": repetition_penalty}
        if chat_template_kwargs:
            fields["chat_template_kwargs"] = dict(chat_template_kwargs)
        return fields
    required = ["repetition_penalty"] if repetition_penalty != 1.0 else []
    required += ["chat_template_kwargs"] if chat_template_kwargs else []
    problems = [
        Problem(
            client.address,
            f"the server does not state that it is vLLM or SGLang, which support '{name}'",
            "Use --server vllm or --server sglang if it is one",
        )
        for name in required
    ]
    if problems:
        raise RecipeError(problems)
    return fields

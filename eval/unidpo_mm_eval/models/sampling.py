"""The sampling parameters of a request: all of them, so that a server fills in none by itself.

vLLM takes every parameter that a request leaves out from the model's ``generation_config.json``,
which may hold ``top_k: 1`` or a repetition penalty. A greedy answer then is not greedy.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from unidpo_mm.errors import Problem, RecipeError

from .chat import ChatClient

__all__ = ["SEED", "greedy_sampling"]

SEED = 0
NEUTRAL: Mapping[str, Any] = {
    "temperature": 0,
    "top_p": 1,
    "frequency_penalty": 0,
    "presence_penalty": 0,
    "seed": SEED,
}
EXTENSIONS: Mapping[str, Any] = {"top_k": -1, "min_p": 0}
"""Neutral values of parameters that OpenAI's own server does not know."""
MOST_STOPS = 4
"""OpenAI's server takes so many stop strings."""


def greedy_sampling(
    client: ChatClient,
    *,
    max_tokens: int,
    repetition_penalty: float = 1.0,
    stop: Sequence[str] = (),
    chat_template_kwargs: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the fields of a request for a greedy answer.

    Args:
        client: The server; it gets the fields that it understands.
        max_tokens: Maximum number of new tokens.
        repetition_penalty: 1 for none.
        stop: Strings that end an answer.
        chat_template_kwargs: Variables for the chat template.

    Raises:
        RecipeError: If the server does not say that it understands a field that is needed.
        Failure: If the server does not answer at all.
    """
    fields: dict[str, Any] = {**NEUTRAL, "max_tokens": max_tokens}
    if stop:
        fields["stop"] = list(stop) if client.extended else list(stop)[:MOST_STOPS]
    if client.extended:
        fields |= {**EXTENSIONS, "repetition_penalty": repetition_penalty}
        if chat_template_kwargs:
            fields["chat_template_kwargs"] = dict(chat_template_kwargs)
        return fields
    needed = {
        "repetition_penalty": repetition_penalty != 1.0,
        "chat_template_kwargs": bool(chat_template_kwargs),
    }
    problems = [
        Problem(
            client.address,
            f"the server does not say that it is vLLM or SGLang, which understand '{name}'",
            "Use --server vllm or --server sglang if it is one",
        )
        for name, is_needed in needed.items()
        if is_needed
    ]
    if problems:
        raise RecipeError(problems)
    return fields

"""The parameters of generation, in this process and on a server."""

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as validated

__all__ = ["Decoding"]


@validated(frozen=True, config=ConfigDict(extra="forbid"))
class Decoding:
    """Parameters of generation; decoding is greedy.

    Attributes:
        max_new_tokens: Maximum number of tokens of a response.
        repetition_penalty: As in transformers; 1 disables it.
        stop: Strings that end a response, in addition to the model's own end token.
    """

    max_new_tokens: int = 2048
    repetition_penalty: float = 1.0
    stop: tuple[str, ...] = ()

"""The parameters of generation, in this process and on a server."""

from typing import Annotated

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as validated

__all__ = ["Decoding", "Sampling"]


@validated(frozen=True, config=ConfigDict(extra="forbid"))
class Decoding:
    """Parameters of generation; decoding is greedy unless there is a `Sampling` as well.

    Attributes:
        max_new_tokens: Maximum number of tokens of a response.
        repetition_penalty: As in transformers; 1 disables it.
        stop: Strings that end a response, in addition to the model's own end token.
    """

    max_new_tokens: int = 2048
    repetition_penalty: float = 1.0
    stop: tuple[str, ...] = ()


@validated(frozen=True, config=ConfigDict(extra="forbid"))
class Sampling:
    """Parameters of random responses.

    Attributes:
        temperature: Divides the logits, > 0; lower values make likely tokens more likely.
        top_p: Tokens are drawn from the most likely ones with this total probability, in (0, 1].
        top_k: Number of the most likely tokens that are drawn from; 0 for all.
        min_p: Minimum probability of a token, as a share of that of the most likely one.
    """

    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    top_k: Annotated[int, Field(ge=0)] = 0
    min_p: Annotated[float, Field(ge=0, le=1)] = 0.0

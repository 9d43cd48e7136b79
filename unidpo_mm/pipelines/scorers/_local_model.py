"""Base class of scorers with a model in this process."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

from ..scorer import Scorer

__all__ = ["LocalModelScorer"]


@dataclass(frozen=True)
class LocalModelScorer(Scorer):
    """A scorer with a model that reads each conversation as text, in one forward pass.

    Attributes:
        model: Directory of the model, or its name on the hub.
        dtype: Number format of the weights; ``auto`` keeps the saved one.
        max_length: Maximum number of tokens of a conversation; `None` for that of the model.
    """

    model: str
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    max_length: int | None = None

    paths: ClassVar[frozenset[str]] = frozenset({"model"})

    def __post_init__(self) -> None:
        if self.max_length is not None and self.max_length < 1:
            raise ValueError("max_length must be at least 1")

    def units(self, candidates: int, prompts: int) -> Mapping[str, int]:
        """Return the number of forward passes."""
        return {"forward passes": candidates}

    def fingerprint(self) -> Mapping[str, Any]:
        """Return what identifies the scores: the weights instead of their place."""
        from ._models import weights_of

        settings = {"version": self.version, **asdict(self)}
        return settings | {"model": weights_of(self.model) or self.model}

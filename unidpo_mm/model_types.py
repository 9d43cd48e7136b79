"""The properties of model types, for `unidpo-mm list models` and docs/model_types.md."""

from collections.abc import Sequence
from dataclasses import dataclass

from .encoding_choices import ImageUnit

__all__ = ["Decoder", "ModelSize", "ModelType"]

Matrix = tuple[int, int, int]
"""Inputs and outputs of a linear layer, and how many there are of this size."""


@dataclass(frozen=True, kw_only=True)
class Decoder:
    """The sizes of a language model.

    Attributes:
        hidden: Size of a hidden state.
        layers: Number of layers.
        vocabulary: Number of tokens.
        tied: Whether the output head is the embedding.
        queries: Size of the queries of all heads of a layer.
        keys: The same of the keys.
        intermediate: Size of the state inside a feed-forward layer, for one token.
        linear: The linear layers, without the head.
        experts: Number of weights that are not in linear layers, such as those of experts.
    """

    hidden: int
    layers: int
    vocabulary: int
    tied: bool
    queries: int
    keys: int
    intermediate: int
    linear: tuple[Matrix, ...]
    experts: int = 0

    @classmethod
    def dense(
        cls,
        sizes: tuple[int, int, int],
        heads: tuple[int, int, int],
        vocabulary: int,
        *,
        tied: bool = False,
        merged: bool = False,
    ) -> "Decoder":
        """Return a decoder with attention and a gated feed-forward layer in every layer.

        Args:
            sizes: Size of a hidden state, number of layers, size inside a feed-forward layer.
            heads: Number of heads, number of heads of keys and values, size of a head.
            vocabulary: Number of tokens.
            tied: Whether the output head is the embedding.
            merged: Whether the two inner layers of a feed-forward layer are one.
        """
        hidden, layers, intermediate = sizes
        queries, keys = heads[0] * heads[2], heads[1] * heads[2]
        inner = (hidden, 2 * intermediate, layers) if merged else (hidden, intermediate, 2 * layers)
        return cls(
            hidden=hidden,
            layers=layers,
            vocabulary=vocabulary,
            tied=tied,
            queries=queries,
            keys=keys,
            intermediate=intermediate,
            linear=(
                (hidden, queries, layers),
                (hidden, keys, 2 * layers),
                (queries, hidden, layers),
                inner,
                (intermediate, hidden, layers),
            ),
        )

    @property
    def linear_weights(self) -> int:
        """Number of weights of the linear layers."""
        return sum(inputs * outputs * count for inputs, outputs, count in self.linear)

    @property
    def weights(self) -> int:
        """Number of weights, with embedding and head, and without norms and biases."""
        embeddings = self.vocabulary * self.hidden * (1 if self.tied else 2)
        return embeddings + self.linear_weights + self.experts

    def lora_weights(self, rank: int) -> int:
        """Return the number of weights of a LoRA adapter on the linear layers."""
        return rank * sum((inputs + outputs) * count for inputs, outputs, count in self.linear)


@dataclass(frozen=True)
class ModelSize:
    """A common size of a model type.

    Attributes:
        name: The name of the model.
        decoder: Its language model.
        others: Number of weights of all other parts: vision tower and projector.
    """

    name: str
    decoder: Decoder
    others: int


@dataclass(frozen=True, kw_only=True)
class ModelType:
    """The properties of a model type.

    Attributes:
        name: Its name in configurations, `config.model_type`; empty for all that have no entry.
        title: The name of its models.
        images: Maximum number of images of a row, in words: ``none`` or ``several``.
        videos: Whether rows with videos are supported.
        image_unit: The unit of `model.image_max_size`; `None` if images have a fixed size.
        packs: Whether the responses to a prompt can share one row.
        caveats: What is special, in a few words each.
        sizes: Common sizes.
    """

    name: str
    title: str = ""
    images: str = "none"
    videos: bool = False
    image_unit: ImageUnit | None = None
    packs: bool = True
    caveats: Sequence[str] = ()
    sizes: Sequence[ModelSize] = ()

    @property
    def layouts(self) -> tuple[str, ...]:
        """The layouts in which the model gives correct log-probs, see `model.layout`."""
        return ("plain", "packed", "joined") if self.packs else ("plain",)

"""The module that accelerate prepares: a model whose forward returns response log-probabilities.

The output head has to run inside the prepared model's own forward: outside it DDP leaves its
gradients unsynchronised and FSDP2 finds sharded weights. So the model is held by a small module
that calls the base model, gathers the response positions and applies the head in chunks. On saving
the module is stripped: checkpoints hold the plain model.
"""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from ..adapter import Adapter
from ..errors import AdapterError, ModelError, Problem
from ..kernels.logprobs import LogitTransform, token_logps
from ..kernels.packing import Packing, packed_rows, plain_positions
from ..records import GroupBatch
from .memory import enable_checkpointing
from .vision import ImageFeatures, takes_features, trains_vision, with_features

__all__ = ["LogpModel", "base_and_head", "compute_logps", "unwrap_peft"]

OPTIONAL_INPUTS = frozenset({"position_ids", "token_type_ids"})
"""Inputs that an adapter may offer and that a model may not know; all others must be taken."""


class LogpModel(nn.Module):
    """Holds a causal language model and scores responses with it.

    Args:
        model: A transformers model with an output head, or a PEFT model around one.
        chunk_size: Response positions whose logits exist at a time.
    """

    def __init__(self, model: nn.Module, *, chunk_size: int = 512) -> None:
        super().__init__()
        self.model = model
        self.chunk_size = chunk_size
        base, _ = base_and_head(model)
        self._accepted, self._takes_any = _forward_keys(base)
        self.takes_features = takes_features(base)
        self.transform = logit_transform(self.config)

    def forward(
        self,
        inputs: Mapping[str, Tensor],
        row: Tensor,
        position: Tensor,
        target_ids: Tensor,
        *,
        packing: Packing | None = None,
        images: ImageFeatures | None = None,
        image_order: Sequence[int] | None = None,
    ) -> Tensor:
        """Return the log-probabilities of the targets.

        Args:
            inputs: Keyword arguments of the base model, from the adapter.
            row: [M], rows of the predicting hidden states.
            position: [M], their positions in those rows.
            target_ids: [M].
            packing: How rows are packed; None for plain rows.
            images: Features of the batch's images from an earlier pass, or a place for them.
            image_order: Which of the images the rows need, see `GroupBatch.image_order`.

        Returns:
            [M], float32.
        """
        base, head = base_and_head(self.model)
        taken: dict[str, Any] = dict(self.checked(inputs))
        if packing is not None:
            positions = plain_positions(base, taken, packing)
            taken |= {} if positions is None else {"position_ids": positions}
        if self.takes_features:
            taken = with_features(
                base,
                taken,
                trains=trains_vision(unwrap_peft(self.model)),
                shared=images,
                order=image_order,
            )
        with packed_rows(packing):
            hidden_BTD = base(**taken, use_cache=False).last_hidden_state
        gathered = hidden_BTD[row, position]
        return token_logps(
            gathered, target_ids, head, transform=self.transform, chunk_size=self.chunk_size
        )

    def generate(self, **inputs: Any) -> Tensor:
        """Generate with the plain model; FSDP gathers the weights for this method too."""
        generated: Tensor = self.model.generate(**inputs)  # type: ignore[operator]
        return generated

    @property
    def generation_config(self) -> Any:
        """The model's generation settings; the trainer aligns their special tokens."""
        return getattr(self.model, "generation_config", None)

    @property
    def config(self) -> Any:
        """The model's configuration; the trainer and accelerate read it."""
        return self.model.config

    @property
    def _no_split_modules(self) -> list[str]:
        """Names of the layers that FSDP shards as units; accelerate reads it.

        A vision-language model names the layers of every tower that it could have, and accelerate
        stops at a name that the model at hand lacks: only those present are given.
        """
        present = {type(module).__name__ for module in self.model.modules()}
        named = getattr(unwrap_peft(self.model), "_no_split_modules", None) or ()
        return sorted(present.intersection(named))

    def activation_checkpointing_enable(
        self, activation_checkpointing_kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> None:
        """Switch checkpointing on where gradients flow; called by the trainer."""
        enable_checkpointing(self.model, activation_checkpointing_kwargs, **options)

    def gradient_checkpointing_enable(
        self, gradient_checkpointing_kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> None:
        """The same under the name that older transformers call."""
        enable_checkpointing(self.model, gradient_checkpointing_kwargs, **options)

    def checked(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the inputs that the model takes; refuses those it would swallow unread."""
        if self._takes_any:
            return dict(inputs)
        unknown = inputs.keys() - self._accepted
        if unknown - OPTIONAL_INPUTS:
            raise AdapterError(
                Problem(
                    f"forward of {type(unwrap_peft(self.model)).__name__}",
                    f"the adapter offers {', '.join(sorted(unknown - OPTIONAL_INPUTS))}, which the "
                    "model does not take",
                    "Repair the adapter's forward_inputs",
                )
            )
        return {name: tensor for name, tensor in inputs.items() if name in self._accepted}


def compute_logps(
    logp_model: nn.Module,
    adapter: Adapter,
    batch: GroupBatch,
    images: ImageFeatures | None = None,
) -> Tensor:
    """Return the log-probabilities [M] of a batch's targets, by one call of `logp_model`.

    Args:
        logp_model: A `LogpModel`, or what accelerate prepared of it.
        adapter: Turns the batch into forward inputs.
        batch: On the logp_model's device.
        images: Features of its images from an earlier pass, or a place for them.
    """
    packing = None if batch.layout == "plain" else Packing(batch.segment, batch.row_position)
    logps: Tensor = logp_model(
        adapter.forward_inputs(batch),
        batch.row,
        batch.position,
        batch.target_ids,
        packing=packing,
        images=images,
        image_order=batch.image_order,
    )
    return logps


def unwrap_peft(model: nn.Module) -> Any:
    """Return the transformers model inside a PEFT model, or the model itself."""
    inner = getattr(model, "get_base_model", None)
    return inner() if callable(inner) else model


def base_and_head(model: nn.Module) -> tuple[nn.Module, nn.Module]:
    """Return the decoder that yields hidden states, and the output head, of a model.

    Raises:
        ModelError: If the model has no output head.
    """
    inner = unwrap_peft(model)
    head = inner.get_output_embeddings()
    base = getattr(inner, inner.base_model_prefix, None) or getattr(inner, "model", None)
    if head is None or base is None:
        raise ModelError(
            Problem(
                type(inner).__name__,
                "the model has no language-model head",
                "Load a causal language model or an image-text-to-text model",
            )
        )
    return base, head


def logit_transform(config: Any) -> LogitTransform:
    """Read from a configuration what the model does to its logits.

    The names are shared by transformers' configurations: `logit_scale` multiplies,
    `logits_scaling` divides, `final_logit_softcapping` caps.
    """
    text = config.get_text_config()
    scale = float(getattr(text, "logit_scale", None) or 1.0)
    scale /= float(getattr(text, "logits_scaling", None) or 1.0)
    return LogitTransform(scale, getattr(text, "final_logit_softcapping", None))


def _forward_keys(base: nn.Module) -> tuple[frozenset[str], bool]:
    """Return the names that a forward takes, and whether only its catch-all would take others.

    A catch-all passes unknown names on without a word, so it does not count as taking them.
    """
    parameters = inspect.signature(base.forward).parameters
    named = frozenset(
        name for name, p in parameters.items() if p.kind is not inspect.Parameter.VAR_KEYWORD
    )
    wrapped = {"args", "kwargs"} >= named  # a decorator hid the signature: nothing can be checked
    return named, wrapped

"""A wrapper around a language model whose forward pass returns the log-probs of response tokens.

It is what accelerate prepares. The output head must run inside the forward pass of the prepared
module: outside of it, DDP does not synchronize the gradients of the head and FSDP2 leaves its
weights sharded. So the wrapper calls the base model, gathers the response positions and applies the
head in chunks. Checkpoints contain the model without the wrapper.
"""

import contextlib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..adapter import Adapter
from ..distributed import maximum
from ..errors import AdapterError, ModelError, Problem
from ..kernels.logprobs import CHUNK_SIZE, chunk_count, chunk_positions, token_logps
from ..kernels.packing import Packing, packed_rows, plain_positions, positions_of_rows
from ..records import EncoderInputs, GroupBatch, MediaKind, ModelInputs
from .activation_memory import enable_checkpointing
from .logit_transform import observed_transform
from .vision import MediaFeatures, takes_features, trains_vision, with_features

__all__ = [
    "LogpModel",
    "base_and_head",
    "compute_logps",
    "compute_own_logps",
    "evaluating",
    "unwrap_peft",
]

OPTIONAL_INPUTS = frozenset({"position_ids", "token_type_ids"})
"""Inputs from an adapter that a model may lack; it must accept all others."""


class LogpModel(nn.Module):
    """A causal language model that computes log-probs of responses.

    Args:
        model: A transformers model with an output head, or a PEFT model around one.
        chunk_size: Number of response positions whose logits exist at a time; `None` for as many as
            suit the device, see `chunk_positions`.

    Attributes:
        same_chunks: Whether the output head is called equally often on every process, as it must be
            if a call gathers its weights.
    """

    def __init__(self, model: nn.Module, *, chunk_size: int | None = None) -> None:
        super().__init__()
        self.model = model
        self.chunk_size = chunk_size
        self.same_chunks = False
        base, head = base_and_head(model)
        self._accepted, self._takes_any = _forward_keys(base)
        self.takes_features = takes_features(base)
        self.transform = observed_transform(unwrap_peft(model), base, head)

    def forward(
        self,
        inputs: Mapping[str, Tensor],
        row: Tensor,
        position: Tensor,
        target_ids: Tensor,
        *,
        packing: Packing | None = None,
        media: MediaFeatures | None = None,
        media_orders: Mapping[MediaKind, Sequence[int]] | None = None,
        encoders: Mapping[MediaKind, EncoderInputs] | None = None,
        positions: Tensor | None = None,
        own_logits: bool = False,
    ) -> Any:
        """Return the log-probs of the targets.

        Args:
            inputs: Keyword arguments of the base model, from the adapter.
            row: [M], rows of the predicting hidden states.
            position: [M], their positions in those rows.
            target_ids: [M], the targets.
            packing: The layout of packed rows; `None` for plain rows.
            media: Features of the batch's images and videos, filled by the first pass over it.
            media_orders: The order of the media in the rows, see `ModelInputs.media_orders`.
            encoders: Arguments of the vision tower, see `ModelInputs.encoders`.
            positions: See `ModelInputs.positions`.
            own_logits: Whether to use the logits that the model itself computes for plain rows, to
                check the others.

        Returns:
            [M], float32; with `own_logits` also the largest absolute logit at each position, in the
            format of the logits.
        """
        base, head = base_and_head(self.model)
        arguments: dict[str, Any] = self.checked(inputs)
        if own_logits:
            logits: Tensor = self.model(**arguments, use_cache=False).logits[row, position]
            logps = F.log_softmax(logits.float(), dim=-1).gather(-1, target_ids[:, None])[:, 0]
            return logps, logits.abs().amax(-1)
        if packing is not None and positions is None:
            positions = plain_positions(base, arguments, packing)
        arguments |= {} if positions is None else {"position_ids": positions}
        if self.takes_features:
            arguments = with_features(
                base,
                arguments,
                trains=trains_vision(unwrap_peft(self.model)),
                shared=media,
                orders=media_orders,
                encoders=encoders,
            )
        with packed_rows(packing):
            hidden_BTD = base(**arguments, use_cache=False).last_hidden_state
        gathered = hidden_BTD[row, position]
        chunk_size = self.positions_per_chunk(gathered.device)
        calls = chunk_count(len(gathered), chunk_size)
        return token_logps(
            gathered,
            target_ids,
            head,
            transform=self.transform,
            chunk_size=chunk_size,
            min_chunks=maximum([calls])[0] if self.same_chunks else calls,
        )

    def positions_per_chunk(self, device: torch.device) -> int:
        """Return the number of positions whose logits exist at a time on a device."""
        if self.chunk_size is not None:
            return self.chunk_size
        if device.type != "cuda":
            return CHUNK_SIZE
        return chunk_positions(self.config.get_text_config().vocab_size)

    def count_positions(
        self, arguments: Mapping[str, Tensor], inputs: ModelInputs
    ) -> Tensor | None:
        """Return the positions [3, B, T] that the model would count in its forward pass.

        Counting reads token types and sizes of media one by one, which is slow on a GPU.

        Args:
            arguments: The keyword arguments of the base model, on the CPU.
            inputs: The batch that they come from.

        Returns:
            `None` for models with one position per token, and for batches in which the model counts
            no others.
        """
        base, _ = base_and_head(self.model)
        accepted = self.checked(arguments)
        if inputs.layout != "plain":
            packing = Packing(inputs.segment, inputs.row_position, inputs.spans)
            return plain_positions(base, accepted, packing)
        if "position_ids" in accepted:
            return None
        return positions_of_rows(base, accepted, inputs.media_orders)

    def generate(self, **inputs: Any) -> Tensor:
        """Generate with the wrapped model; FSDP also gathers the weights for this method."""
        generated: Tensor = self.model.generate(**inputs)  # type: ignore[operator]
        return generated

    @property
    def generation_config(self) -> Any:
        """The model's generation settings, whose special tokens the trainer aligns."""
        return getattr(self.model, "generation_config", None)

    @property
    def config(self) -> Any:
        """The model's configuration, which trainer and accelerate read."""
        return self.model.config

    @property
    def _no_split_modules(self) -> list[str]:
        """The class names of the layers that FSDP shards as units, which accelerate reads.

        A vision-language model lists the layers of every tower it could have, and accelerate fails
        on a name that this model lacks; only those present are listed here.
        """
        present = {type(module).__name__ for module in self.model.modules()}
        named = getattr(unwrap_peft(self.model), "_no_split_modules", None) or ()
        return sorted(present.intersection(named))

    def activation_checkpointing_enable(
        self, activation_checkpointing_kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> None:
        """Enable checkpointing of layers that gradients flow through; called by the trainer."""
        enable_checkpointing(self.model, activation_checkpointing_kwargs, **options)

    def checked(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the inputs that the model accepts; raise an error for those it would ignore."""
        if self._takes_any:
            return dict(inputs)
        unknown = inputs.keys() - self._accepted
        if unknown - OPTIONAL_INPUTS:
            raise AdapterError(
                Problem(
                    f"forward of {type(unwrap_peft(self.model)).__name__}",
                    f"the adapter passes {', '.join(sorted(unknown - OPTIONAL_INPUTS))}, which the "
                    "model's forward() does not accept",
                    "Fix the adapter's forward_inputs",
                )
            )
        return {name: tensor for name, tensor in inputs.items() if name in self._accepted}


def compute_logps(
    logp_model: nn.Module,
    adapter: Adapter,
    batch: GroupBatch,
    media: MediaFeatures | None = None,
) -> Tensor:
    """Return the log-probs [M] of a batch's targets, by one call of `logp_model`.

    Args:
        logp_model: A `LogpModel`, or what accelerate prepared of it.
        adapter: Turns the batch into forward inputs.
        batch: A batch on the device of the model.
        media: The features of its images and videos, filled by the first pass over it.
    """
    logps: Tensor = _call(logp_model, adapter, batch, media=media)
    return logps


def compute_own_logps(
    logp_model: nn.Module, adapter: Adapter, batch: GroupBatch
) -> tuple[Tensor, Tensor]:
    """Return the log-probs [M] of plain rows by the logits that the model itself computes.

    Args:
        logp_model: A `LogpModel`, or what accelerate prepared of it.
        adapter: Turns the batch into forward inputs.
        batch: A batch of plain rows on the device of the model.

    Returns:
        The log-probs, and the largest absolute logit at each position in the format of the logits.
    """
    logps, largest = _call(logp_model, adapter, batch, own_logits=True)
    return logps, largest


def _call(logp_model: nn.Module, adapter: Adapter, batch: GroupBatch, **options: Any) -> Any:
    inputs, targets = batch.inputs, batch.targets
    packing = None
    if inputs.layout != "plain":
        packing = Packing(inputs.segment, inputs.row_position, inputs.spans)
    return logp_model(
        adapter.forward_inputs(inputs),
        targets.row,
        targets.position,
        targets.ids,
        packing=packing,
        media_orders=inputs.media_orders,
        encoders=inputs.encoders,
        positions=inputs.positions,
        **options,
    )


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Set a module to evaluation mode inside the block."""
    training = module.training
    module.eval()
    try:
        yield
    finally:
        if training:
            module.train()


def unwrap_peft(model: nn.Module) -> Any:
    """Return the transformers model inside a PEFT model, or the model itself."""
    inner = getattr(model, "get_base_model", None)
    return inner() if callable(inner) else model


def base_and_head(model: nn.Module) -> tuple[nn.Module, nn.Module]:
    """Return the base model, which yields hidden states, and the output head of a model.

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


def _forward_keys(base: nn.Module) -> tuple[frozenset[str], bool]:
    """Return the parameter names of `forward`, and whether they cannot be determined.

    A `**kwargs` parameter silently ignores unknown names, so it does not count as accepting them.
    """
    parameters = inspect.signature(base.forward).parameters
    named = frozenset(
        name for name, p in parameters.items() if p.kind is not inspect.Parameter.VAR_KEYWORD
    )
    wrapped = {"args", "kwargs"} >= named  # a decorator hides the signature
    return named, wrapped

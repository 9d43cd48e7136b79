"""The packed layout inside transformers' own attention: which keys a token of a packed row may see.

A packed row is `[prompt | r0 | r1 | ...]`, a joined one several of these. A token sees its prompt
and its own branch, by the model's own rule (causal, sliding window, ...) at the positions that both
would have in the plain row. The rule reaches every text layer through a registered mask function;
models are not patched. Where the rule is plain causal, no mask is made: attention runs piece by
piece.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from .branch_attention import GroupSpan, by_branch, group_spans
from .last_layer import spare_last_layer
from .token_state import why_stateful

__all__ = ["Packing", "enable_packing", "masks_made", "packed_rows", "plain_positions"]

PREFIX = "packed_"
"""Put before the name of the attention kernel that a model had."""

KERNELS = ("sdpa", "flex_attention", "eager")
"""Kernels that take any mask. The eager one belongs to each model and keeps its name: only its mask
is made by us, and only inside `packed_rows`."""

MaskFunction = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""(batch, head, query, key) indices -> whether the query may see the key; as in transformers."""


@dataclass(frozen=True)
class Packing:
    """Which branch each token of a packed batch belongs to, and where it would stand alone.

    Attributes:
        segment: [B, T], 0 for the prompt, j for branch j, -1 for padding.
        row_position: [B, T], the position in the plain row.
    """

    segment: Tensor
    row_position: Tensor

    @cached_property
    def spans(self) -> Tensor:
        """Where the groups stand, see `group_spans`."""
        return group_spans(self.segment, self.row_position)

    def rule(self, own: MaskFunction) -> MaskFunction:
        """Return the model's own rule at plain positions, between tokens of one branch."""
        segment = self.segment
        first = (segment == 0) & (self.row_position == 0)
        group = first.cumsum(1)
        place = torch.arange(segment.shape[1], device=segment.device).expand_as(segment)
        # where the token would stand if its group were alone and began where it begins here
        position = self.row_position + torch.where(first, place, 0).cummax(1).values

        def visible(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            branch = segment[batch, key]
            related = (branch == 0) | (branch == segment[batch, query])
            related = related & (group[batch, key] == group[batch, query])
            return related & own(batch, head, position[batch, query], position[batch, key])

        return visible


_current: ContextVar[Packing | None] = ContextVar("packing", default=None)
_masks_made: ContextVar[int] = ContextVar("masks made", default=0)


def masks_made() -> int:
    """Return how many masks of whole rows were made in this thread so far."""
    return _masks_made.get()


@contextmanager
def packed_rows(packing: Packing | None) -> Iterator[None]:
    """Make forwards inside the block packed ones; None leaves them plain."""
    token = _current.set(packing)
    try:
        yield
    finally:
        _current.reset(token)


def enable_packing(model: Any) -> str | None:
    """Let a transformers model take packed rows beside plain ones.

    Its attention kernel stays the one it had; only the mask is composed anew, and only inside
    `packed_rows`.

    Args:
        model: A transformers model, without PEFT around it.

    Returns:
        Why rows cannot be packed for this model; None where they can.
    """
    state = why_stateful(model)
    if state is not None:
        return state
    text = model.config.get_text_config()
    kernel = str(text._attn_implementation)
    if kernel.startswith(PREFIX):
        return None
    if kernel not in KERNELS:
        return f"the attention kernel '{kernel}' takes no mask of ours, {' and '.join(KERNELS)} do"
    name = _register(kernel)
    if name == kernel:
        return None
    model.set_attn_implementation(name if text is model.config else {"text_config": name})
    spare_last_layer(model)
    return None


@cache
def _register(kernel: str) -> str:
    """Register attention and mask for packed rows beside those of a kernel; returns their name."""
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, causal_mask_function
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    make_mask = ALL_MASK_ATTENTION_FUNCTIONS[kernel]
    in_pieces = kernel == "sdpa"
    plain_causal: Any = causal_mask_function

    def masked(*args: Any, mask_function: MaskFunction, **kwargs: Any) -> Any:
        packing = _current.get()
        if packing is not None:
            if in_pieces and mask_function is plain_causal:
                return packing.spans
            _masks_made.set(_masks_made.get() + 1)
            mask_function = packing.rule(mask_function)
            kwargs = {**kwargs, "allow_is_causal_skip": False}
        return make_mask(*args, mask_function=mask_function, **kwargs)

    if kernel == "eager":
        ALL_MASK_ATTENTION_FUNCTIONS.register(kernel, masked)
        return kernel
    attend = ALL_ATTENTION_FUNCTIONS[kernel]
    ALL_ATTENTION_FUNCTIONS.register(PREFIX + kernel, by_branch(attend) if in_pieces else attend)
    ALL_MASK_ATTENTION_FUNCTIONS.register(PREFIX + kernel, masked)
    return PREFIX + kernel


def plain_positions(base: nn.Module, inputs: dict[str, Tensor], packing: Packing) -> Tensor | None:
    """Return what a model that counts positions in several dimensions would count itself.

    It counts the prompt by its own rule; answers go on from there, each as if it stood alone.

    Args:
        base: The base model.
        inputs: Its keyword arguments.
        packing: The layout of the batch.

    Returns:
        [3, B, T], or None for models with one position a token.
    """
    count: Any = getattr(base, "get_rope_index", None)
    if count is None:
        return None
    spans = GroupSpan.of(packing.spans)

    def prompts(rows_BT: Tensor) -> Tensor:
        return pad_sequence([rows_BT[s.row, s.first : s.start] for s in spans], batch_first=True)

    grids = {name: inputs[name] for name in ("image_grid_thw",) if name in inputs}
    counted_3GP, _ = count(
        prompts(inputs["input_ids"]),
        mm_token_type_ids=prompts(inputs["mm_token_type_ids"]),
        attention_mask=prompts(torch.ones_like(inputs["input_ids"])),
        **grids,
    )
    positions_3BT = packing.row_position.repeat(3, 1, 1)
    for number, span in enumerate(spans):
        own_3P = counted_3GP[:, number, : span.prompt]
        positions_3BT[:, span.row, span.first : span.start] = own_3P
        positions_3BT[:, span.row, span.start : span.end] += own_3P.amax() + 1 - span.prompt
    return positions_3BT

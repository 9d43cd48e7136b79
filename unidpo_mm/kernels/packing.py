"""The packed layout: all responses to a prompt in one row, so that the prompt is computed once.

A packed row is `[prompt | r0 | r1 | ...]`, a joined row several of these in sequence. Each token
attends to the prompt of its group and to its own response, by the model's own rule (causal, sliding
window, ...) at the positions that both tokens would have in a plain row `[prompt | response]`. So
every token gets the same hidden state as in its plain row.

The rule reaches every text layer through a mask function that is registered with transformers; the
models are not patched. If a layer's rule is plain causal, no mask is built and attention is
computed piece by piece, see `branch_attention.py`.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from ..records import MediaKind
from .branch_attention import Attention, by_branch
from .flexible import by_flex_attention, flex_mask
from .group_spans import GroupSpan, group_spans
from .last_layer import skip_unused_positions
from .token_state import why_stateful

__all__ = [
    "Packing",
    "enable_packing",
    "masks_built",
    "packed_rows",
    "plain_positions",
    "positions_of_rows",
]

PREFIX = "packed_"
"""Prefix of the registered names, before the name of the model's attention kernel."""

FLASH = ("flash_attention_2", "flash_attention_3")
"""Attention kernels that take no masks, only `group_spans`. transformers recognizes them by their
names, so these stay. If a rule needs a mask, `sdpa` computes the layer."""

KERNELS = ("sdpa", "flex_attention", "eager", *FLASH)
"""Attention kernels that rows can be packed for. The eager kernel is part of each model, so its
name stays and only its mask is replaced, inside `packed_rows`."""

IN_PIECES = ("sdpa", *FLASH)
"""Attention kernels that take `group_spans` in place of a mask."""

TOKEN_TYPES = ("mm_token_type_ids", "token_type_ids")
"""Inputs that mark image and video tokens, which some models count positions by."""
GRIDS = ("image_grid_thw", "video_grid_thw", "second_per_grid_ts")
"""Inputs with the numbers of patches of each image and video, and the seconds between the patches
of a video, which positions are counted by."""

MaskFunction = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""(batch, head, query, key) indices -> whether the query may attend to the key."""


@dataclass(frozen=True)
class Packing:
    """The branch of each token of a packed batch, and its position in the plain row.

    Attributes:
        segment: [B, T], 0 for the prompt, j for branch j, -1 for padding.
        row_position: [B, T], the position in the plain row.
        lines: The places of the groups, see `ModelInputs.spans`; if they are empty, they are read
            from the tensors, and a GPU has to be waited for.
    """

    segment: Tensor
    row_position: Tensor
    lines: tuple[tuple[int, ...], ...] = ()

    @cached_property
    def spans(self) -> Tensor:
        """The positions of the groups, see `group_spans`."""
        if not self.lines:
            return group_spans(self.segment, self.row_position)
        width = max(map(len, self.lines))
        return torch.tensor([[*line, *[0] * (width - len(line))] for line in self.lines])

    @cached_property
    def longest_row(self) -> int:
        """Number of tokens of the longest prompt with one of its responses."""
        return max(s.prompt + max(s.branches, default=0) for s in GroupSpan.of(self.spans))

    def mask_function(self, model_rule: MaskFunction) -> MaskFunction:
        """Return the model's rule applied at plain positions, within each branch and its prompt."""
        segment = self.segment
        first = (segment == 0) & (self.row_position == 0)
        group = first.cumsum(1)
        index = torch.arange(segment.shape[1], device=segment.device).expand_as(segment)
        # the position if the group were alone in the row and started where it starts here
        position = self.row_position + torch.where(first, index, 0).cummax(1).values

        def visible(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            branch = segment[batch, key]
            related = (branch == 0) | (branch == segment[batch, query])
            related = related & (group[batch, key] == group[batch, query])
            return related & model_rule(batch, head, position[batch, query], position[batch, key])

        return visible


_current: ContextVar[Packing | None] = ContextVar("packing", default=None)
_masks_built: ContextVar[int] = ContextVar("masks built", default=0)


def masks_built() -> int:
    """Return the number of masks of whole packed rows that this thread has built so far.

    Those of FlexAttention on a GPU do not count: it skips what other groups of a row would cost.
    """
    return _masks_built.get()


@contextmanager
def packed_rows(packing: Packing | None) -> Iterator[None]:
    """Treat the rows of forward passes inside the block as packed; `None` leaves them plain."""
    token = _current.set(packing)
    try:
        yield
    finally:
        _current.reset(token)


def enable_packing(model: Any) -> str | None:
    """Let a transformers model accept packed rows as well as plain ones.

    The model keeps its attention kernel. Only the mask is replaced, and only inside `packed_rows`.

    Args:
        model: A transformers model, without PEFT around it.

    Returns:
        Why this model cannot use packed rows; `None` if it can.
    """
    reason = why_stateful(model)
    if reason is not None:
        return reason
    text = model.config.get_text_config()
    kernel = str(text._attn_implementation)
    if kernel.startswith(PREFIX):
        return None
    if kernel not in KERNELS:
        supported = " and ".join(KERNELS)
        return f"the attention kernel '{kernel}' does not accept custom masks ({supported} do)"
    name = _register(kernel)
    if name != kernel:
        model.set_attn_implementation(name if text is model.config else {"text_config": name})
    if kernel in IN_PIECES:
        skip_unused_positions(model)
    return None


@cache
def _register(kernel: str) -> str:
    """Register attention and mask of packed rows for a kernel; return the name to use for it."""
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    make_mask = ALL_MASK_ATTENTION_FUNCTIONS[kernel]
    make_packed = make_mask if kernel == "eager" else ALL_MASK_ATTENTION_FUNCTIONS["sdpa"]

    def packed_mask(*args: Any, mask_function: MaskFunction, **kwargs: Any) -> Any:
        packing = _current.get()
        if packing is None or not _is_of(packing, kwargs):
            return make_mask(*args, mask_function=mask_function, **kwargs)
        if kernel in IN_PIECES and _is_causal(mask_function, packing):
            return packing.spans
        mask_function = packing.mask_function(mask_function)
        if kernel == "flex_attention" and packing.segment.is_cuda:
            rows, width = packing.segment.shape
            return flex_mask(mask_function, rows, width, packing.segment.device)
        _masks_built.set(_masks_built.get() + 1)
        kwargs = {**kwargs, "allow_is_causal_skip": False}
        return make_packed(*args, mask_function=mask_function, **kwargs)

    if kernel == "eager":
        ALL_MASK_ATTENTION_FUNCTIONS.register(kernel, packed_mask)
        return kernel
    name = kernel if kernel in FLASH else PREFIX + kernel
    attend = ALL_ATTENTION_FUNCTIONS[kernel]
    if kernel in FLASH:
        attend = _masked_by(ALL_ATTENTION_FUNCTIONS["sdpa"], attend)
    attend = by_branch(attend, kernel) if kernel in IN_PIECES else by_flex_attention(attend)
    ALL_ATTENTION_FUNCTIONS.register(name, attend)
    ALL_MASK_ATTENTION_FUNCTIONS.register(name, packed_mask)
    return name


def _is_of(packing: Packing, kwargs: Mapping[str, Any]) -> bool:
    """Return whether a mask is one of the packed rows, and not one of a vision tower."""
    shape = tuple(packing.segment.shape)
    return (kwargs.get("batch_size", shape[0]), kwargs.get("q_length", shape[1])) == shape


def _is_causal(rule: MaskFunction, packing: Packing) -> bool:
    """Return whether a rule is plain causal, at least for rows of these lengths.

    A sliding window that is not shorter than the longest plain row does not restrict anything.
    """
    from transformers.masking_utils import causal_mask_function, sliding_window_causal_mask_function

    plain: Any = causal_mask_function
    if rule is plain:
        return True
    parts = _parts(rule)
    pattern = _parts(sliding_window_causal_mask_function(1))
    if [part.__code__ for part in parts] != [part.__code__ for part in pattern] or not parts:
        return False
    (window,) = (cell.cell_contents for cell in parts[0].__closure__)
    return isinstance(window, int) and window >= packing.longest_row


def _parts(rule: Any) -> Sequence[Any]:
    """Return the rules that `and_masks` of transformers combines; none for any other rule."""
    cells = [cell.cell_contents for cell in getattr(rule, "__closure__", None) or ()]
    return cells[0] if len(cells) == 1 and isinstance(cells[0], tuple) else ()


def _masked_by(masked: Attention, attend: Attention) -> Attention:
    """Return `attend`, with `masked` in its place if there is a mask for each query and key."""

    def attend_masked(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Any, **kwargs: Any
    ) -> tuple[Tensor, Any]:
        run = masked if mask is not None and mask.ndim == 4 else attend
        return run(module, query, key, value, mask, **kwargs)

    return attend_masked


def plain_positions(base: nn.Module, inputs: dict[str, Tensor], packing: Packing) -> Tensor | None:
    """Return the position ids that a model with multi-dimensional positions would compute itself.

    The model counts the positions of each prompt by its own rule. Those of every response follow
    the prompt, as if the response were alone.

    Args:
        base: The base model.
        inputs: Its keyword arguments.
        packing: The layout of the batch.

    Returns:
        [3, B, T], or `None` for models with one position per token.
    """
    count: Any = getattr(base, "get_rope_index", None)
    if count is None:
        return None
    spans = GroupSpan.of(packing.spans)

    def prompts(rows_BT: Tensor) -> Tensor:
        return pad_sequence([rows_BT[s.row, s.first : s.start] for s in spans], batch_first=True)

    accepted = inspect.signature(count).parameters
    token_types = {
        name: prompts(inputs[name]) for name in TOKEN_TYPES if name in inputs and name in accepted
    }
    grids = {name: inputs[name] for name in GRIDS if name in inputs and name in accepted}
    counted_3GP, _ = count(
        prompts(inputs["input_ids"]),
        attention_mask=prompts(torch.ones_like(inputs["input_ids"])),
        **token_types,
        **grids,
    )
    positions_3BT = packing.row_position.repeat(3, 1, 1).to(counted_3GP.dtype)  # floats in some
    for number, span in enumerate(spans):
        prompt_3P = counted_3GP[:, number, : span.prompt]
        positions_3BT[:, span.row, span.first : span.start] = prompt_3P
        positions_3BT[:, span.row, span.start : span.end] += prompt_3P.amax() + 1 - span.prompt
    return positions_3BT


def positions_of_rows(
    base: nn.Module, inputs: dict[str, Tensor], orders: Mapping[MediaKind, Sequence[int]]
) -> Tensor | None:
    """Return the positions that a model with multi-dimensional positions counts in plain rows.

    Args:
        base: The base model.
        inputs: Its keyword arguments.
        orders: Kind of media -> for each image (or video) in the rows, its index in the inputs.

    Returns:
        [3, B, T], or `None` for models with one position per token, and for rows without media,
        whose positions the model counts as those of a text.
    """
    count: Any = getattr(base, "get_rope_index", None)
    grids = {name: inputs[name] for name in GRIDS if name in inputs}
    if count is None or not grids or not any(name in inputs for name in TOKEN_TYPES):
        return None
    for name, grid in grids.items():
        order = orders.get("image" if name.startswith("image") else "video")
        if order is not None:
            if len(set(order)) != len(grid):
                return None  # its parts are not whole images
            grids[name] = grid[list(order)]
    accepted = inspect.signature(count).parameters
    names = ("input_ids", "attention_mask", *TOKEN_TYPES)
    arguments = {**{name: inputs[name] for name in names if name in inputs}, **grids}
    positions: Tensor
    positions, _ = count(**{name: value for name, value in arguments.items() if name in accepted})
    return positions

"""Attention over shared prompts in two kernel calls per layer, however many responses there are.

Attention over some keys can be computed in parts and merged: each part returns its output and the
log-sum-exp of its scores, and the outputs are averaged with weights that follow from the latter.
So one call computes what every prompt and every response attends to in itself, and a second one
what the responses attend to in their prompt:

    row        p p p p | a a a | b b        a prompt and two responses
    1st call   p over p, a over a, b over b, causally
    2nd call   a and b, as one sequence, over p, without a mask

There is no mask, keys and values are not repeated, and no kernel depends on the shapes of a batch.
The backward pass calls the kernel's backward twice, with the merged output and the merged
log-sum-exp, which gives the exact gradient of each part; those of the prompt's keys and values are
added.

`branch_attention.py` computes the same in more and smaller pieces, and is the reference.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .group_spans import GroupSpan
from .varlen import Inputs, Sequences, VarlenKernel

__all__ = ["attend_in_two_calls"]


def attend_in_two_calls(
    inputs: Inputs,
    spans: Sequence[GroupSpan],
    width: int,
    scale: float | None,
    kernel: VarlenKernel,
) -> Tensor:
    """Attend within each group.

    Args:
        inputs: All positions of a batch, N = B * T.
        spans: The groups to attend in.
        width: T, the number of positions of a row.
        scale: The factor of the scores; `None` for 1 / sqrt(D).
        kernel: What computes a call.

    Returns:
        [B * T, H, D]. At positions whose output is not used, it is finite and without meaning.
    """
    groups = tuple(span._replace(unused=0) for span in spans)  # the last layer shares the plan
    plan = _plan(groups, len(inputs.queries), width, str(inputs.queries.device))
    scale = inputs.queries.shape[-1] ** -0.5 if scale is None else scale
    output: Tensor = _TwoCalls.apply(_Calls(plan, scale, kernel), *inputs)
    return output


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """The sequences of both calls.

    Attributes:
        alone: Every prompt and every response over itself; also what lies between groups.
        shared: The responses of each group, as one sequence, over their prompt; `None` if there are
            no responses.
        responses: [R], the positions of all tokens of responses in the batch.
        prompts: [P], the positions of the prompts that have responses.
    """

    alone: Sequences
    shared: Sequences | None
    responses: Tensor
    prompts: Tensor


@lru_cache(maxsize=4)  # all layers and passes of a batch share it
def _plan(spans: tuple[GroupSpan, ...], tokens: int, width: int, device: str) -> _Plan:
    alone, responses, prompts = [0], [], []
    for span in sorted(spans):
        first = span.row * width + span.first
        ends = [first, first + span.prompt]
        for length in span.branches:
            ends.append(ends[-1] + length)
        alone += ends
        if ends[-1] > ends[1]:
            prompts.append(range(first, ends[1]))
            responses.append(range(ends[1], ends[-1]))
    alone = sorted({*alone, tokens})
    bounds = [alone, *([0, *_cumulated(ranges)] for ranges in (responses, prompts))]
    positions = [[i for places in ranges for i in places] for ranges in (responses, prompts)]
    # one copy to the device for all of it
    sizes = [len(numbers) for numbers in (*bounds, *positions)]
    joined = torch.tensor([number for numbers in (*bounds, *positions) for number in numbers])
    own_ends, query_ends, key_ends, *places = joined.to(device, non_blocking=True).split(sizes)
    own_ends, query_ends, key_ends = (ends.int() for ends in (own_ends, query_ends, key_ends))
    longest = _longest(alone)
    shared = None
    if responses:
        lengths = _longest(bounds[1]), _longest(bounds[2])
        shared = Sequences(query_ends, key_ends, *lengths, causal=False)
    return _Plan(
        alone=Sequences(own_ends, own_ends, longest, longest, causal=True),
        shared=shared,
        responses=places[0],
        prompts=places[1],
    )


def _cumulated(ranges: Sequence[range]) -> list[int]:
    return [sum(map(len, ranges[: count + 1])) for count in range(len(ranges))]


def _longest(ends: Sequence[int]) -> int:
    return max(end - start for start, end in pairwise(ends))


class _Calls(NamedTuple):
    """The sequences of both calls, the scale of their scores and their kernel.

    Attributes:
        plan: The sequences.
        scale: The factor of the scores.
        kernel: What computes a call.
    """

    plan: _Plan
    scale: float
    kernel: VarlenKernel


class _TwoCalls(torch.autograd.Function):
    """Both calls and their merged result."""

    @staticmethod
    def forward(ctx: Any, calls: _Calls, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        inputs = Inputs(queries, keys, values)
        output, lse = calls.kernel.forward(inputs, calls.plan.alone, calls.scale)
        if calls.plan.shared is not None:
            _add_prompts(output, lse, inputs, calls)
        ctx.save_for_backward(*inputs, output, lse)
        ctx.calls = calls
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        *inputs, output, lse = ctx.saved_tensors
        plan, scale, kernel = ctx.calls
        gradient = gradient.contiguous()
        results = kernel.backward(gradient, Inputs(*inputs), output, lse, plan.alone, scale)
        if plan.shared is not None:
            here, there = plan.responses, plan.prompts
            parts = kernel.backward(
                gradient[here],
                _of_prompts(Inputs(*inputs), plan),
                output[here],
                lse[:, here].contiguous(),
                plan.shared,
                scale,
            )
            for total, places, part in zip(results, (here, there, there), parts, strict=True):
                # every position occurs once, so unlike `index_add_` this needs no atomic additions
                total.index_copy_(0, places, total[places] + part)
        return (None, *results)


def _of_prompts(inputs: Inputs, plan: _Plan) -> Inputs:
    """Return the inputs of the second call."""
    queries, keys, values = inputs
    return Inputs(queries[plan.responses], keys[plan.prompts], values[plan.prompts])


def _add_prompts(output: Tensor, lse: Tensor, inputs: Inputs, calls: _Calls) -> None:
    """Add what responses attend to in their prompt to the output [N, H, D] and the lse [H, N]."""
    plan, scale, kernel = calls
    assert plan.shared is not None
    of_prompts, prompts_lse = kernel.forward(_of_prompts(inputs, plan), plan.shared, scale)
    here = plan.responses
    own_lse = lse[:, here]
    share = torch.sigmoid(prompts_lse - own_lse).t().unsqueeze(-1)  # of the prompt
    merged = torch.lerp(output[here].to(share.dtype), of_prompts.to(share.dtype), share)
    output.index_copy_(0, here, merged.to(output.dtype))
    lse.index_copy_(1, here, torch.logaddexp(own_lse, prompts_lse))

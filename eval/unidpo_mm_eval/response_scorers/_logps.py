"""Log-probs of responses under a model of this process, for scorers."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from unidpo_mm.adapter import encode_checked
from unidpo_mm.distributed.processes import processes
from unidpo_mm.errors import DataError
from unidpo_mm.inference.checkpoint import LoadedCheckpoint, find_checkpoint, load_checkpoint
from unidpo_mm.inference.local_model import prompt_style
from unidpo_mm.inference.memory import run_in_parts
from unidpo_mm.pipelines.scorer import Candidate, Fault
from unidpo_mm.records import EncodedGroup, PreferenceRow, Response

from ..prefs.logps import PairModel

Dtype = Literal["auto", "bfloat16", "float16", "float32"]
OUT_OF_MEMORY = Fault("memory", "out of memory for a single response", temporary=True)


@dataclass(frozen=True)
class RowLogps:
    """The log-probs of the responses of a row.

    Attributes:
        group: The encoded row.
        tokens: For each response, the log-prob of each token.
        reference: For each response, the sum of the log-probs of the reference; `None` without one.
    """

    group: EncodedGroup
    tokens: Sequence[Sequence[float]]
    reference: Sequence[float] | None


def load_logp_model(
    name: str,
    *,
    dtype: Dtype,
    variables: Mapping[str, Any],
    reference: LoadedCheckpoint | str | None = None,
) -> PairModel:
    """Load a model that computes log-probs.

    Args:
        name: Directory or hub name of a model or a LoRA adapter.
        dtype: Number format of the weights.
        variables: Variables of the chat template.
        reference: As in `PairModel.build`.
    """
    loaded = load_checkpoint(find_checkpoint(name), dtype=dtype, device=processes().device)
    style = prompt_style(loaded.processor, "auto")
    return PairModel.build(loaded, style=style, reference=reference, variables=variables)


def logps_of(
    model: PairModel, rows: Sequence[PreferenceRow], *, batch_size: int
) -> list[RowLogps | Fault]:
    """Return the log-probs of the responses of rows, in batches of similar lengths."""
    results: dict[int, RowLogps | Fault] = {}
    encoded: list[tuple[int, EncodedGroup]] = []
    for number, row in enumerate(rows):
        try:
            encoded.append((number, encode_checked(model.adapter, row)))
        except DataError as error:
            results[number] = Fault("prompt", str(error))
    encoded.sort(key=lambda item: -_length(item[1]))

    def run(part: Sequence[tuple[int, EncodedGroup]]) -> list[RowLogps | Fault]:
        return [*_row_logps(model, [group for _, group in part])]

    for start in range(0, len(encoded), batch_size):
        part = encoded[start : start + batch_size]
        computed = run_in_parts(run, part, lambda item: OUT_OF_MEMORY)
        results |= zip((number for number, _ in part), computed, strict=True)
    return [results[number] for number in range(len(rows))]


def _length(group: EncodedGroup) -> int:
    return group.prompt_ids.numel() + sum(ids.numel() for ids in group.response_ids)


def _row_logps(model: PairModel, groups: Sequence[EncodedGroup]) -> list[RowLogps]:
    policy, reference = model.logps(groups, tokens=True)
    assert policy.tokens is not None
    lengths = [int(length) for length in policy.length.tolist()]
    table = policy.tokens.tolist()
    tokens = [row[:length] for row, length in zip(table, lengths, strict=True)]
    sums = None if reference is None else reference.sum.tolist()
    results, start = [], 0
    for group in groups:
        end = start + len(group.response_ids)
        results.append(
            RowLogps(group, tokens[start:end], None if sums is None else sums[start:end])
        )
        start = end
    return results


def response_row(candidate: Candidate) -> PreferenceRow:
    """Return the prompt with a response exactly as it is written, including its reasoning."""
    responses = (Response(candidate.text),)
    return dataclasses.replace(candidate.prompt, responses=responses, reasoning="keep")


def mean_logp(result: RowLogps) -> float:
    """Return the log-prob per token of the only response of a row."""
    (tokens,) = result.tokens
    return math.fsum(tokens) / len(tokens)

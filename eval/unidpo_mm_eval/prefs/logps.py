"""Log-probs of both responses of every pair, under a model and optionally a reference."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from unidpo_mm.adapter import Adapter, AdapterOptions
from unidpo_mm.conformance import check_log_probs, check_untested_type
from unidpo_mm.data.collate import collate
from unidpo_mm.errors import DataError, ModelError, Problem
from unidpo_mm.inference.checkpoint import LoadedCheckpoint
from unidpo_mm.inference.local_model import Style
from unidpo_mm.inference.memory import run_in_parts
from unidpo_mm.kernels.logprobs import sequence_logps
from unidpo_mm.kernels.packing import enable_packing
from unidpo_mm.modeling.logp_model import LogpModel, compute_logps, unwrap_peft
from unidpo_mm.modeling.references.kinds import LoraOff, Reference
from unidpo_mm.modeling.vision import MediaFeatures
from unidpo_mm.records import EncodedGroup, GroupBatch, Layout, PreferenceRow, SequenceLogps

from ..run.store import PredictionStore

IMAGE_LENGTH = 4000
"""Assumed length of an image in characters, for sorting rows by size."""
VIDEO_LENGTH = 8 * IMAGE_LENGTH
"""The same for a video."""


@dataclass(frozen=True)
class PairModel:
    """A model that computes log-probs of responses."""

    model: LogpModel  # The module that computes log-probs
    adapter: Adapter  # Adapter of the model's family
    layout: Layout  # ``packed`` runs prompt and images once for all responses of a row
    reference: Reference | None  # Baseline of rewards; `None` for the model alone
    device: Any  # Device of the model

    @classmethod
    def build(
        cls,
        loaded: LoadedCheckpoint,
        *,
        style: Style,
        reference: LoadedCheckpoint | str | None,
        variables: Mapping[str, Any],
        rows: Sequence[PreferenceRow] = (),
    ) -> "PairModel":
        """Build the model from a checkpoint, and check that its log-probs are right.

        Args:
            loaded: The checkpoint.
            style: How prompts are rendered.
            reference: The baseline of rewards: another checkpoint, ``lora_off``, or `None`.
            variables: Variables of the chat template.
            rows: The rows, of which the first is checked if the model refuses a short text.

        Raises:
            ModelError: If they are not, or the reference has another vocabulary.
        """
        options = AdapterOptions(prompt_style=style, chat_template_kwargs=variables)
        adapter = loaded.adapter(options)
        model = LogpModel(loaded.model).eval()
        packs = enable_packing(unwrap_peft(loaded.model)) is None
        baseline: Reference | None = None
        if isinstance(reference, LoadedCheckpoint):
            _check_vocabulary(loaded, reference)
            packs = packs and enable_packing(unwrap_peft(reference.model)) is None
            other = LogpModel(reference.model).eval()
            _check(other, reference, adapter, rows)
            baseline = _OtherModel(other, adapter)
        elif reference is not None:
            baseline = LoraOff(model, adapter)
        _check(model, loaded, adapter, rows)
        return cls(model, adapter, "packed" if packs else "plain", baseline, loaded.device)

    @torch.no_grad()
    def logps(
        self, groups: Sequence[EncodedGroup], *, tokens: bool = False
    ) -> tuple[SequenceLogps, SequenceLogps | None]:
        """Return the log-probs of the responses of some rows, and those of the reference.

        Args:
            groups: The encoded rows.
            tokens: Whether to return the log-prob of each token, too.
        """
        pad = self.adapter.pad_token_id
        batch = collate(groups, pad_token_id=pad, layout=self.layout).to(self.device)
        policy_M = compute_logps(self.model, self.adapter, batch)
        policy = sequence_logps(policy_M, batch.targets, tokens=tokens)
        if self.reference is None:
            return policy, None
        token_logps = self.reference.token_logps(self.model, batch)
        return policy, sequence_logps(token_logps, batch.targets)


def _check(
    model: LogpModel, loaded: LoadedCheckpoint, adapter: Adapter, rows: Sequence[PreferenceRow]
) -> None:
    with contextlib.suppress(DataError):  # the problem of a row is reported with this row
        check_log_probs(model, adapter, loaded.device, rows)
    check_untested_type(model, loaded.family, adapter, loaded.device)


def _check_vocabulary(loaded: LoadedCheckpoint, reference: LoadedCheckpoint) -> None:
    """Refuse a reference with another vocabulary, whose log-probs would be meaningless."""
    first, second = (getattr(x.processor, "tokenizer", x.processor) for x in (loaded, reference))
    if loaded.family is not reference.family or first.get_vocab() != second.get_vocab():
        text = f"'{reference.checkpoint.name}' is of another family, or has another vocabulary"
        raise ModelError(Problem("--reference", text, "Use a model of the same kind"))


class _OtherModel:
    """Another model as the reference."""

    def __init__(self, model: LogpModel, adapter: Adapter) -> None:
        self.model, self.adapter = model, adapter

    def token_logps(
        self, policy: Any, batch: GroupBatch, media: MediaFeatures | None = None
    ) -> torch.Tensor:
        """Return the log-probs of the target tokens, [M]."""
        return compute_logps(self.model, self.adapter, batch)


def compute_pair_logps(
    model: PairModel,
    rows: Sequence[PreferenceRow],
    store: PredictionStore,
    *,
    batch_size: int,
    rank: int = 0,
    world_size: int = 1,
    on_progress: Callable[[int], None] = lambda count: None,
) -> None:
    """Compute the log-probs of rows that are not stored yet, and store one record per row."""
    order = sorted(range(len(rows)), key=lambda n: (-_size(rows[n]), n))
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    for batch in batches[rank::world_size]:
        if any(rows[n].id not in store.done for n in batch):
            records = _records(model, [rows[n] for n in batch])
            store.add([record for record in records if record["id"] not in store.done])
        on_progress(len(batch))


def _records(model: PairModel, rows: Sequence[PreferenceRow]) -> list[dict[str, Any]]:
    encoded, records = [], []
    for row in rows:
        try:
            encoded.append(model.adapter.encode(row))
        except DataError as error:
            records.append({"id": row.id, "error": str(error)})
    if encoded:
        records += run_in_parts(
            partial(_logp_records, model),
            encoded,
            lambda group: {"id": group.row.id, "error": "out of memory for a single row"},
        )
    return records


def _logp_records(model: PairModel, groups: Sequence[EncodedGroup]) -> list[dict[str, Any]]:
    """Return the records of some rows."""
    policy, reference = model.logps(groups)
    records: list[dict[str, Any]] = []
    start = 0
    for group in groups:
        end = start + len(group.response_ids)
        record = {
            "id": group.row.id,
            "logps": policy.sum[start:end].tolist(),
            "tokens": [int(n) for n in policy.length[start:end].tolist()],
        }
        if reference is not None:
            record["reference"] = reference.sum[start:end].tolist()
        records.append(record)
        start = end
    return records


def _size(row: PreferenceRow) -> int:
    length = sum(len(message.text) for message in row.messages)
    length += sum(len(response.text) for response in row.responses)
    return length + IMAGE_LENGTH * len(row.images) + VIDEO_LENGTH * len(row.videos)

"""Log-probabilities of both answers of every pair, under a model and, where asked, a reference."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from unidpo_mm.adapter import Adapter, AdapterOptions
from unidpo_mm.data.collate import collate
from unidpo_mm.errors import DataError, ModelError, Problem
from unidpo_mm.modeling.logprobs import sequence_logps
from unidpo_mm.modeling.packing import enable_packing
from unidpo_mm.modeling.reference import LoraOff, Reference
from unidpo_mm.modeling.scoring import ScoringModel, score, unwrap_peft
from unidpo_mm.modeling.vision import PictureFeatures
from unidpo_mm.records import EncodedGroup, GroupBatch, Layout, PreferenceRow, SequenceLogps

from ..models.checkpoint import LoadedCheckpoint
from ..run.eval_run import Style
from ..run.store import PredictionStore

__all__ = ["Scorer", "score_pairs"]

Told = Callable[[int], None]


@dataclass(frozen=True)
class Scorer:
    """A model that scores answers.

    Attributes:
        model: The scoring module.
        adapter: Of the model's family.
        layout: ``packed`` runs prompt and pictures once for all answers of a row.
        reference: What rewards are measured against; None for the model alone.
        device: Where the model is.
    """

    model: ScoringModel
    adapter: Adapter
    layout: Layout
    reference: Reference | None
    device: Any

    @classmethod
    def of(
        cls,
        loaded: LoadedCheckpoint,
        *,
        style: Style,
        reference: LoadedCheckpoint | str | None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
    ) -> "Scorer":
        """Returns the scorer of a checkpoint.

        Args:
            loaded: The checkpoint.
            style: How prompts are rendered.
            reference: Another checkpoint, ``lora_off``, or None.
            chat_template_kwargs: Variables for the chat template.
        """
        variables = dict(chat_template_kwargs or {})
        adapter = loaded.adapter(AdapterOptions(prompt_style=style, chat_template_kwargs=variables))
        model = ScoringModel(loaded.model).eval()
        packs = enable_packing(unwrap_peft(loaded.model)) is None
        found: Reference | None = None
        if isinstance(reference, LoadedCheckpoint):
            _refuse_other_words(loaded, reference)
            other = ScoringModel(reference.model).eval()
            packs = packs and enable_packing(unwrap_peft(reference.model)) is None
            found = _Other(other, adapter)
        elif reference is not None:
            found = LoraOff(model, adapter)
        layout: Layout = "packed" if packs else "plain"
        return cls(model, adapter, layout, found, loaded.device)

    @torch.no_grad()
    def logps(
        self, groups: Sequence[EncodedGroup]
    ) -> tuple[GroupBatch, SequenceLogps, SequenceLogps | None]:
        """Returns the batch of some rows with what both models say of their answers."""
        batch = collate(groups, pad_token_id=self.adapter.pad_token_id, layout=self.layout).to(
            self.device
        )
        own = sequence_logps(score(self.model, self.adapter, batch), batch)
        if self.reference is None:
            return batch, own, None
        other = sequence_logps(self.reference.token_logps(self.model, batch), batch)
        return batch, own, other


def _refuse_other_words(loaded: LoadedCheckpoint, reference: LoadedCheckpoint) -> None:
    """Refuses a reference with another vocabulary, whose numbers would mean nothing."""
    words = [getattr(one.processor, "tokenizer", one.processor) for one in (loaded, reference)]
    if loaded.family is not reference.family or words[0].get_vocab() != words[1].get_vocab():
        found = f"'{reference.checkpoint.name}' is of another family, or has other tokens"
        raise ModelError(Problem("--reference", found, "Name a model of the same kind"))


class _Other:
    """Another model as the reference."""

    def __init__(self, model: ScoringModel, adapter: Adapter) -> None:
        self.model, self.adapter = model, adapter

    def token_logps(
        self, policy: Any, batch: GroupBatch, pictures: PictureFeatures | None = None
    ) -> torch.Tensor:
        """Returns its log-probabilities [M]."""
        return score(self.model, self.adapter, batch)


def score_pairs(
    scorer: Scorer,
    rows: Sequence[PreferenceRow],
    store: PredictionStore,
    *,
    batch_size: int,
    rank: int = 0,
    world: int = 1,
    told: Told = lambda count: None,
) -> None:
    """Scores the rows that are not scored yet, and appends one record for each row.

    Args:
        scorer: The model.
        rows: All of them.
        store: Where records go: sums and numbers of tokens of all answers, under both models.
        batch_size: Most rows of a batch.
        rank: Number of this process.
        world: How many there are.
        told: Is told how many rows were scored.
    """
    order = sorted(range(len(rows)), key=lambda n: (-_size(rows[n]), n))
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    for numbers in batches[rank::world]:
        if any(rows[n].id not in store.done for n in numbers):
            found = _records(scorer, [rows[n] for n in numbers])
            store.add([one for one in found if one["id"] not in store.done])
        told(len(numbers))


def _records(scorer: Scorer, rows: Sequence[PreferenceRow]) -> list[dict[str, Any]]:
    encoded, records = [], []
    for row in rows:
        try:
            encoded.append(scorer.adapter.encode(row))
        except DataError as error:
            records.append({"id": row.id, "error": str(error)})
    records += _scored(scorer, encoded) if encoded else []
    return records


def _scored(scorer: Scorer, groups: Sequence[EncodedGroup]) -> list[dict[str, Any]]:
    """Returns the records of some rows; where memory runs out, of the halves."""
    try:
        _, own, other = scorer.logps(groups)
    except (torch.OutOfMemoryError, MemoryError):
        if len(groups) == 1:
            return [{"id": groups[0].row_id, "error": "out of memory for this row alone"}]
        own = None
    if own is None:
        half = len(groups) // 2
        return [*_scored(scorer, groups[:half]), *_scored(scorer, groups[half:])]
    records, at = [], 0
    for group in groups:
        end = at + len(group.response_ids)
        record = {
            "id": group.row_id,
            "logps": own.sum[at:end].tolist(),
            "tokens": [int(n) for n in own.length[at:end].tolist()],
        }
        if other is not None:
            record["reference"] = other.sum[at:end].tolist()
        records.append(record)
        at = end
    return records


def _size(row: PreferenceRow) -> int:
    words = sum(len(message.text) for message in row.messages)
    return words + sum(len(one.text) for one in row.responses) + 4000 * len(row.images)

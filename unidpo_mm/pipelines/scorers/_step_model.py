"""The model of the scorer `prm`: a backbone, and a head that is read from the checkpoint."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from ...errors import ModelError, Problem
from ...modeling.tensor_files import TensorFiles
from ._models import Dtype, TextModel, load_text_model

__all__ = ["StepModel", "load_step_model"]

HEAD = ("score.0.weight", "score.0.bias", "score.2.weight", "score.2.bias")
"""Tensors of the two linear layers of the head; between them is a ReLU."""
LABELS = 2
GOOD = 1
"""Index of the label of a right step."""


@dataclass(frozen=True)
class StepModel:
    """A process reward model.

    Attributes:
        text: The backbone with its tokenizer.
        head: (hidden states [..., H]) -> logits [..., 2].
        mark_id: Id of the mark after each step.
    """

    text: TextModel
    head: nn.Module
    mark_id: int

    def step_rewards(self, rows: Sequence[Sequence[int]]) -> list[list[float]]:
        """Return the rewards of the steps of conversations, from 0 to 1.

        A boolean mask selects the marks, so that a reward of exactly 0 keeps its place.
        """
        inputs = self.text.padded(rows)
        hidden = self.text.model(**inputs).last_hidden_state
        is_mark = (inputs["input_ids"] == self.mark_id) & inputs["attention_mask"].bool()
        probabilities = self.head(hidden[is_mark]).float().softmax(-1)[:, GOOD]
        counts = is_mark.sum(1).tolist()
        return [part.tolist() for part in probabilities.split(counts)]


def load_step_model(name: str, *, mark: str, dtype: Dtype, max_length: int | None) -> StepModel:
    """Load a process reward model without running code of its checkpoint.

    Args:
        name: Directory, or name on the hub.
        mark: The token after each step.
        dtype: Number format of the weights.
        max_length: Maximum number of tokens; `None` for that of the model.

    Raises:
        ModelError: If it cannot be loaded, has no such head, or the mark is not a token.
    """
    with _without_loading_report():
        text = load_text_model(name, "AutoModel", dtype=dtype, max_length=max_length)
    ids = text.tokenizer(mark, add_special_tokens=False)["input_ids"]
    if len(ids) != 1:
        problem = f"the step mark '{mark}' is {len(ids)} tokens of the tokenizer, not one"
        raise ModelError(Problem(name, problem, "Set mark to the token that the model was trained"))
    return StepModel(text, _head(text), ids[0])


@contextmanager
def _without_loading_report() -> Iterator[None]:
    """Hide the report of transformers that the backbone does not use the weights of the head."""
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


def _head(text: TextModel) -> nn.Module:
    files = TensorFiles(text.name)
    missing = [name for name in HEAD if name not in files.shapes]
    if missing:
        problem = f"its head has no {', '.join(missing)}"
        remedy = f"Use a process reward model with the tensors {', '.join(HEAD)}"
        raise ModelError(Problem(text.name, problem, remedy))
    inner, hidden = files.shapes[HEAD[0]]
    labels = files.shapes[HEAD[2]][0]
    width = text.model.config.get_text_config().hidden_size
    if (hidden, labels) != (width, LABELS):
        problem = f"its head maps {hidden} numbers to {labels} labels, not {width} to {LABELS}"
        raise ModelError(Problem(text.name, problem, "Use a head that fits the model"))
    head = nn.Sequential(nn.Linear(hidden, inner), nn.ReLU(), nn.Linear(inner, labels))
    tensors = files.read(HEAD)
    head.load_state_dict({name.removeprefix("score."): tensors[name] for name in HEAD})
    dtype: torch.dtype = next(text.model.parameters()).dtype
    return head.to(text.device, dtype).eval()

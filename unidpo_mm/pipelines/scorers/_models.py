"""Models of scorers that read a conversation as text: loading, rendering and batches."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from ...distributed.processes import processes
from ...errors import ModelError, Problem, UniDPOError
from ...inference.checkpoint import find_checkpoint
from ...inference.memory import run_in_parts
from ...modeling.load import ModelSource, load_config, load_processor, load_weights
from ...plugins import load_family
from ...records import PreferenceRow
from ..scorer import Candidate, Fault, Scored

__all__ = [
    "Dtype",
    "TextModel",
    "load_text_model",
    "rendered",
    "scored_by_length",
    "turns_of",
    "weights_of",
]

Dtype = Literal["auto", "bfloat16", "float16", "float32"]
Item = TypeVar("Item")
MAX_LENGTH = 10**9
"""Lengths from which the limit of a tokenizer means that it has none."""


@dataclass(frozen=True)
class TextModel:
    """A model with its tokenizer, in evaluation mode.

    Attributes:
        name: Its path or name, for messages.
        model: The model.
        tokenizer: Its tokenizer.
        max_length: Maximum number of tokens; `None` without a limit.
        device: The device of the model.
        pad_token_id: Padding according to its configuration; `None` if it has none.
    """

    name: str
    model: Any
    tokenizer: Any
    max_length: int | None
    device: Any
    pad_token_id: int | None

    def padded(self, rows: Sequence[Sequence[int]]) -> dict[str, Tensor]:
        """Return ids and mask of sequences, padded on the right.

        Classifiers pool the last token that is not the padding of their configuration. If they have
        none, padding must be a token that no sequence contains.
        """
        width, pad = max(map(len, rows)), self.pad_token_id
        if pad is None:
            used = {token for row in rows for token in row}
            pad = next(token for token in range(len(used) + 1) if token not in used)
            self.model.config.get_text_config().pad_token_id = pad
        ids = torch.tensor([[*row, *[pad] * (width - len(row))] for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
        return {"input_ids": ids.to(self.device), "attention_mask": mask.to(self.device)}


def weights_of(name: str) -> str:
    """Return a hash of the weights of a model, or its revision on the hub."""
    return find_checkpoint(name).weights


def load_text_model(
    name: str,
    auto_class: str,
    *,
    dtype: Dtype,
    trust_remote_code: bool = False,
    max_length: int | None = None,
) -> TextModel:
    """Load a model with a class of transformers.

    Args:
        name: Directory, or name on the hub.
        auto_class: The class, such as ``AutoModel``.
        dtype: Number format of the weights.
        trust_remote_code: Whether code that comes with the checkpoint may run.
        max_length: Maximum number of tokens; `None` for that of the model.

    Raises:
        ModelError: If it cannot be loaded, or weights of it are missing, which would be random.
    """
    source = ModelSource(
        name_or_path=name, dtype=dtype, trust_remote_code=trust_remote_code, base_key=None
    )
    family = dataclasses.replace(load_family("text"), auto_class=auto_class)
    try:
        config = load_config(source).get_text_config()
        model: Any = load_weights(source, family, is_trainable=False)
        tokenizer = load_processor(source, family)
    except ModelError as error:
        raise ModelError([_renamed(problem) for problem in error.problems]) from error
    model.config.use_cache = False  # every conversation runs once
    device = processes().device
    limits = (getattr(config, "max_position_embeddings", None), tokenizer.model_max_length)
    valid = [limit for limit in limits if limit is not None and limit < MAX_LENGTH]
    limit = max_length or min(valid, default=None)
    pad = getattr(config, "pad_token_id", None)
    return TextModel(name, model.to(device).eval(), tokenizer, limit, device, pad)


def _renamed(problem: Problem) -> Problem:
    """Return a problem of a training recipe in the words of a scorer."""
    remedy = problem.remedy.replace("model.trust_remote_code", "trust_remote_code")
    return Problem(problem.where.replace("model.name_or_path", "model"), problem.message, remedy)


def turns_of(prompt: PreferenceRow) -> list[dict[str, Any]]:
    """Return the messages of a prompt as chat templates take them, as text without media."""
    return [{**message.turn(), "content": message.text} for message in prompt.messages]


def rendered(model: TextModel, turns: Sequence[Mapping[str, Any]]) -> list[int]:
    """Return the token ids of a conversation, with exactly one token at its beginning.

    Templates may write the token that begins a text, and tokenizers may add it, too.

    Raises:
        ModelError: If there is no template, or it writes the token twice.
        DataError: If the template refuses the conversation.
    """
    tokenizer = model.tokenizer
    if not tokenizer.chat_template:
        remedy = "Use a model whose tokenizer has one"
        raise ModelError(Problem(model.name, "the tokenizer has no chat template", remedy))
    text = tokenizer.apply_chat_template(list(turns), tokenize=False)
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    bos = tokenizer.bos_token_id
    if bos is None:
        return ids
    if ids[:2] == [bos, bos]:
        problem = f"the chat template begins with two tokens '{tokenizer.bos_token}'"
        raise ModelError(Problem(model.name, problem, "Correct the template of the model"))
    adds = tokenizer("a")["input_ids"][:1] == [bos]
    return [bos, *ids] if adds and ids[:1] != [bos] else ids


def scored_by_length(
    model: TextModel,
    candidates: Sequence[Candidate],
    encode: Callable[[Candidate], "Item | Fault"],
    ids_of: Callable[[Item], Sequence[int]],
    run: Callable[[Sequence[Item]], list[Scored]],
    *,
    batch_size: int,
) -> list[Scored]:
    """Return the scores of candidates, which run in batches of similar lengths.

    Args:
        model: The model.
        candidates: The responses.
        encode: Returns the input of a response, or why it has none.
        ids_of: Returns the token ids of an input.
        run: Scores a batch of inputs.
        batch_size: Maximum number of inputs of a batch.
    """
    scored: dict[int, Scored] = {}
    items: list[tuple[int, Item]] = []
    for number, candidate in enumerate(candidates):
        item = _encoded(model, candidate, encode, ids_of)
        if isinstance(item, Fault):
            scored[number] = item
        else:
            items.append((number, item))
    items.sort(key=lambda entry: -len(ids_of(entry[1])))

    def run_part(part: Sequence[tuple[int, Item]]) -> list[Scored]:
        with torch.inference_mode():
            return run([item for _, item in part])

    for start in range(0, len(items), batch_size):
        part = items[start : start + batch_size]
        results = run_in_parts(run_part, part, lambda entry: OUT_OF_MEMORY)
        scored |= zip((number for number, _ in part), results, strict=True)
    return [scored[number] for number in range(len(candidates))]


OUT_OF_MEMORY = Fault("memory", "out of memory for a single response", temporary=True)


def _encoded(
    model: TextModel,
    candidate: Candidate,
    encode: Callable[[Candidate], "Item | Fault"],
    ids_of: Callable[[Item], Sequence[int]],
) -> "Item | Fault":
    if not candidate.text_without_reasoning:
        return Fault("no answer", "the response has no text after its reasoning")
    try:
        item = encode(candidate)
    except UniDPOError:
        raise
    except Exception as error:  # templates raise any exception
        return Fault("template", f"the chat template refuses the conversation: {error}")
    if isinstance(item, Fault):
        return item
    length, limit = len(ids_of(item)), model.max_length
    if limit is not None and length > limit:
        text = f"the conversation has {length:,} tokens, and the model takes {limit:,}"
        return Fault("too long", text)
    return item

"""The sizes of a model that a row must fit: the rows of its embedding, and learned positions.

A token without an embedding, or a row longer than the learned positions, would end a run with an
index error deep inside the model; on a GPU, with a device-side assert that names neither. The
limits follow from the configuration.
"""

import copy
import itertools
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from unidpo_mm.errors import DataError, Problem, RowTooLong
from unidpo_mm.records import EncodedGroup, PreferenceRow

from ._images import feature_token_id, input_tokens

__all__ = ["ModelLimits"]

ROTARY = ("rope_parameters", "rope_theta", "rope_scaling")
POSITION_NAMES = ("position", "wpe", "pos_emb", "pos_enc")
"""Parts of the names of modules and buffers that hold one entry per position."""


@dataclass(frozen=True)
class ModelLimits:
    """The sizes of a model that a row must fit.

    Attributes:
        embeddings: Number of token embeddings; `None` if unknown.
        positions: Maximum number of tokens of a row, for models that learn a vector per position;
            `None` for models without such a limit.
        reserved: Ids that the model looks for in its inputs, so that padding must not have them.
        replaced: Ids that the model replaces before it looks up embeddings.
    """

    embeddings: int | None = None
    positions: int | None = None
    reserved: frozenset[int] = frozenset()
    replaced: frozenset[int] = frozenset()

    @classmethod
    def of(cls, config: Any, *, replaces_image_token: bool = False) -> "ModelLimits":
        """Return the limits of a configuration.

        Args:
            config: The configuration.
            replaces_image_token: Whether the model needs no embedding for its image token.
        """
        text = config.get_text_config()
        embeddings = getattr(text, "vocab_size", None)
        token = feature_token_id(config) if replaces_image_token else None
        return cls(
            embeddings=embeddings if isinstance(embeddings, int) else None,
            positions=_learned_positions(text),
            reserved=input_tokens(config),
            replaced=frozenset() if token is None else frozenset({token}),
        )

    def pad_token_id(self, tokenizer: Any) -> int:
        """Return the id of padding: that of the tokenizer if it can be used, else another one.

        It needs an embedding, and must not stand for an image: models count image tokens without
        regard to the mask.
        """
        for number in (tokenizer.pad_token_id, tokenizer.eos_token_id):
            if number is None or number in self.reserved:
                continue
            if self.embeddings is None or number < self.embeddings:
                return int(number)
        return next(number for number in itertools.count() if number not in self.reserved)

    def check(self, row: PreferenceRow, group: EncodedGroup, tokenizer: Any) -> None:
        """Refuse a row that the model cannot take.

        Raises:
            RowTooLong: If the row is longer than the learned positions.
            DataError: If a token has no embedding.
        """
        fields = ["prompt", *map(row.response_field, range(len(group.response_ids)))]
        problems = []
        for field, ids in zip(fields, (group.prompt_ids, *group.response_ids), strict=True):
            token = max(set(ids.tolist()) - self.replaced, default=0)
            if self.embeddings is not None and token >= self.embeddings:
                problems.append(
                    Problem(
                        f"{row.where}, field '{field}'",
                        f"the token {tokenizer.convert_ids_to_tokens(token)!r} has the id {token}, "
                        f"and the model's embedding has {self.embeddings} rows",
                        "Use the tokenizer that belongs to the model, or resize the embedding "
                        "(model.resize_token_embeddings(len(tokenizer))) and save the model",
                    )
                )
        if problems:
            raise DataError(problems)
        responses = (ids.numel() for ids in group.response_ids)
        longest = group.prompt_ids.numel() + max(responses, default=0)
        if self.positions is not None and longest > self.positions:
            raise RowTooLong(
                Problem(
                    f"{row.where}, field 'prompt'",
                    f"the row has {longest} tokens with its longest response, and the model has "
                    f"learned {self.positions} positions",
                    f"Set data.max_length to {self.positions} or less, shorten the row, or choose "
                    "another model",
                )
            )


def _learned_positions(text: Any) -> int | None:
    """Return the number of positions that a text model has learned; `None` for other models.

    Models with rotary positions have no such limit. Other models are built without weights, to look
    for a table with an entry per position.
    """
    limit = getattr(text, "max_position_embeddings", None)
    if not isinstance(limit, int) or any(getattr(text, name, None) for name in ROTARY):
        return None
    from transformers import AutoModelForCausalLM

    try:
        with torch.device("meta"):
            model: nn.Module = AutoModelForCausalLM.from_config(
                copy.deepcopy(text), trust_remote_code=False
            )
    except Exception:  # a model that cannot be built this way has unknown limits
        return None
    for name, module in model.named_modules():
        if hasattr(module, "make_weights"):  # sinusoids, recomputed for longer rows
            continue
        tables = dict(module.named_buffers(name, recurse=False))
        if isinstance(module, nn.Embedding):
            tables[name] = module.weight
        for table_name, table in tables.items():
            by_position = any(part in table_name for part in POSITION_NAMES)
            # some models start counting at 2
            if by_position and table.ndim > 1 and limit <= table.shape[0] <= limit + 2:
                return limit
    return None

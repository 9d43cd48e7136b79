"""The model that is checked, and its log-probs of made-up rows."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ..adapter import Adapter, AdapterFamily
from ..data.collate import collate
from ..errors import DataError
from ..modeling.families import VISION
from ..modeling.logp_model import LogpModel, compute_logps, evaluating, unwrap_peft
from ..modeling.vision import MediaFeatures
from ..records import EncodedGroup, GroupBatch, PreferenceRow
from .probe import rows_with_images, rows_with_videos, rows_without_images

__all__ = ["Subject"]

TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-4}
"""Maximum difference between log-probs, which are computed in another order."""
MIN_LOW_PRECISION_TOLERANCE = 0.02
"""Its minimum in half precision, which rounds the logits themselves."""
PADDING_FACTOR = 5
"""The tolerance in half precision, as a multiple of the differences that padding makes."""
SPACING_FACTOR = 2
"""The same as a multiple of the spacing of numbers as large as the log-probs."""


@dataclass
class Subject:
    """A model, its adapter and the rows that it is checked with.

    Attributes:
        logp_model: The model inside the module that computes log-probs.
        family: Its family, with the parts of this model.
        adapter: The adapter of the family.
        device: The device of the model.
        rows: The rows that it is checked with: for families with images, with images and, if the
            adapter accepts them, with videos and without media.
    """

    logp_model: LogpModel
    family: AdapterFamily
    adapter: Adapter
    device: Any = "cpu"
    rows: list[PreferenceRow] = field(init=False)

    def __post_init__(self) -> None:
        without = rows_without_images()
        if not self.has_images:
            self.rows = without
            return
        self.rows = rows_with_images()
        for row in (*rows_with_videos(), without[0]):
            with contextlib.suppress(DataError):  # some models take no videos, or only images
                self.adapter.encode(row)
                self.rows.append(row)

    @property
    def has_images(self) -> bool:
        """Whether the family has images."""
        return VISION in self.family.parts

    @property
    def model(self) -> Any:
        """The transformers model, without PEFT around it."""
        return unwrap_peft(self.logp_model.model)

    @property
    def base(self) -> Any:
        """The base model, which computes hidden states and image features."""
        return getattr(self.model, self.model.base_model_prefix, None) or self.model.model

    @cached_property
    def tolerance(self) -> float:
        """The maximum difference of log-probs by rounding.

        In half precision, it follows from the difference between padding on the left and on the
        right, which changes neither tokens nor images, and from the size of the log-probs.
        """
        kind = torch.device(self.device).type
        dtype = next(self.logp_model.parameters()).dtype
        if torch.is_autocast_enabled(kind):
            dtype = torch.get_autocast_dtype(kind)
        if dtype in TOLERANCE:
            return TOLERANCE[dtype]
        right = self.logps()
        padding = float((right - self.logps(padding_side="left")).abs().max())
        spacing = torch.finfo(dtype).eps * float(right.abs().max())
        return max(MIN_LOW_PRECISION_TOLERANCE, PADDING_FACTOR * padding, SPACING_FACTOR * spacing)

    def groups(self, rows: Sequence[PreferenceRow] | None = None) -> list[EncodedGroup]:
        """Return encoded rows; by default all."""
        return [self.adapter.encode(row) for row in (self.rows if rows is None else rows)]

    def batch(self, rows: Sequence[PreferenceRow] | None = None, **options: Any) -> GroupBatch:
        """Return rows as a batch; by default all."""
        pad = self.adapter.pad_token_id
        return collate(self.groups(rows), pad_token_id=pad, **options).to(self.device)

    @torch.no_grad()
    def logps(
        self,
        rows: Sequence[PreferenceRow] | None = None,
        *,
        media: MediaFeatures | None = None,
        **options: Any,
    ) -> Tensor:
        """Return the log-probs of the responses to rows, on the CPU.

        Args:
            rows: The rows; `None` for all.
            media: Shared image and video features, see `compute_logps`.
            **options: Options of `collate`.
        """
        batch = self.batch(rows, **options)
        with evaluating(self.logp_model):
            return compute_logps(self.logp_model, self.adapter, batch, media).float().cpu()

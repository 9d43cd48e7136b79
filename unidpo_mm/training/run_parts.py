"""The parts of a run that is ready to train: the result of `setup.prepare_run`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..adapter import Adapter, AdapterFamily
from ..cache.feature_store import FeatureStore
from ..data.measure import Measurements
from ..data.preflight import Preflight
from ..data.stream_batches import StreamPlan
from ..modeling.logp_model import LogpModel
from ..modeling.references.kinds import Reference
from ..records import Layout, PreferenceRow
from .configured_loss import ConfiguredLoss

__all__ = ["LayoutChoice", "RunParts"]


@dataclass(frozen=True, kw_only=True)
class RunParts:
    """The model, data, reference and loss of a run.

    Attributes:
        logp_model: The policy inside the module that computes log-probs.
        reference: The reference; `None` if the loss uses none.
        family, adapter: The model's family and its adapter.
        settings: The loss with all of its parameters.
        features: Cache of image features; `None` if it is off, or if a module between pixels and
            language model is trained.
        unpackable: Why rows of this model cannot be packed; `None` if they can.
        train_rows, eval_rows: The rows for training and evaluation.
        eval_sets: Name of an evaluation set -> its rows; empty unless `eval_dataset` is a dict.
        preflight: Counts from the check of all rows; `None` if the check is off.
        stream: How the training rows are read while the run trains; then `train_rows` are the
            first of them. `None` if all rows were read.
        lengths: Tokens of `train_rows`; `None` unless micro-batches are limited by tokens.
    """

    logp_model: LogpModel
    reference: Reference | None
    family: AdapterFamily
    adapter: Adapter
    settings: ConfiguredLoss
    features: FeatureStore | None
    unpackable: str | None
    train_rows: Sequence[PreferenceRow]
    eval_rows: Sequence[PreferenceRow]
    eval_sets: Mapping[str, Sequence[PreferenceRow]]
    preflight: Preflight | None
    lengths: Measurements | None = None
    stream: StreamPlan | None = None

    @property
    def reference_name(self) -> str:
        """The kind of the reference, for reports."""
        return "none" if self.reference is None else type(self.reference).__name__


@dataclass(frozen=True)
class LayoutChoice:
    """The layout of a run.

    Attributes:
        layout: Its name.
        reason: Why responses do not share their prompt, if it is ``plain``.
    """

    layout: Layout
    reason: str = ""

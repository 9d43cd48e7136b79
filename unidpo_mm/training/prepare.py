"""Prepare the rows of a run: read, check, encode, split and group them.

`prepare` is the only path from data to rows: training, `data check`, sweeps and evaluation on pairs
call it, so that they accept the same rows and report the same problems in the same words.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..adapter import Adapter, AdapterFamily
from ..config import LoraOptions, SourceOptions
from ..config.python import UniDPOConfig
from ..config.python_remedies import in_python
from ..data.groups import repeat_sources, weight_by_group
from ..data.load import (
    DataFiles,
    Loaded,
    ReadOptions,
    SourceReport,
    read_records,
    read_sources,
    scores_are_optional,
)
from ..data.measure import Measurements, measure_with_index
from ..data.preflight import Preflight, survey
from ..data.row_table import columns_of, concatenated
from ..data.scores import scale_problems
from ..data.split import split_rows
from ..data.stream_batches import StreamPlan
from ..data.stream_sources import is_stream
from ..distributed import limit_waiting, machines_first
from ..errors import DataError, Problem, RecipeError, UniDPOError
from ..modeling.lora_targets import RECIPE_KEYS
from ..modeling.parts import lora_part_problems, part_problems
from ..records import PreferenceRow
from .configured_loss import ConfiguredLoss
from .loss_rows import loss_problems, token_limit_problems, units_of
from .streaming import later_sources, mixture_problems, plan_stream, stream_problems

__all__ = ["Prepared", "check_part_names", "prepare", "read_options"]

LoadAdapter = Callable[[], tuple[AdapterFamily, Adapter]]
"""Loads the model family and the adapter that encodes the rows; may raise any `UniDPOError`."""


@dataclass(kw_only=True)
class Prepared:
    """The rows of a run.

    Attributes:
        training: The training rows as they were read, and the reports of their sources.
        evaluation: Name of an evaluation set -> its rows and reports; the name is empty if there is
            a single set without a name.
        family, adapter: The model family and the adapter that encodes the rows; `None` if they were
            not requested or cannot be loaded.
        preflight: Counts from encoding all rows; `None` if the preflight is off.
        lengths: Tokens of `train_rows`; `None` unless micro-batches are limited by tokens.
        stream: How the training rows are read while the run trains; then `train_rows` are the
            first of them. `None` if all rows were read.
        problems: All problems that prevent the run.
        train_rows: The rows to train on; empty if there are problems.
        eval_sets: Name of an evaluation set -> the rows to evaluate on; empty if there are
            problems.
    """

    training: Loaded
    evaluation: dict[str, Loaded]
    family: AdapterFamily | None = None
    adapter: Adapter | None = None
    preflight: Preflight | None = None
    lengths: Measurements | None = None
    stream: StreamPlan | None = None
    problems: list[Problem]
    train_rows: Sequence[PreferenceRow]
    eval_sets: dict[str, Sequence[PreferenceRow]]

    @property
    def loaded_eval_rows(self) -> Sequence[PreferenceRow]:
        """The rows of all evaluation sets as they were read."""
        return concatenated([loaded.rows for loaded in self.evaluation.values()])

    @property
    def eval_rows(self) -> Sequence[PreferenceRow]:
        """The rows to evaluate on, of all evaluation sets."""
        return concatenated(list(self.eval_sets.values()))

    @property
    def reports(self) -> list[SourceReport]:
        """The reports of all sources."""
        return [
            report
            for loaded in (self.training, *self.evaluation.values())
            for report in loaded.reports
        ]

    def raise_problems(self) -> None:
        """Raise `DataError` with all problems, if there are any."""
        if self.problems:
            raise DataError(map(in_python, self.problems))


def prepare(
    train_dataset: Any,
    eval_dataset: Any,
    args: UniDPOConfig,
    loss: ConfiguredLoss,
    load_adapter: LoadAdapter | None,
    *,
    lora: Any = None,
    any_loss: bool = False,
    measure: bool = False,
) -> Prepared:
    """Read and check the rows of a run; if there are no problems, split and group them.

    Args:
        train_dataset: `DataFiles`, or a data set in memory.
        eval_dataset: The same for evaluation, a dict of several by name, or `None`.
        args: Options of the run.
        loss: The loss.
        load_adapter: Loads the adapter; `None` to check the rows without encoding them.
        lora: Options of a new LoRA adapter, whose parts are checked; `None` if there is none.
        any_loss: Whether no loss was chosen: sources without scores are accepted, because losses
            other than the default can use them.
        measure: Whether to encode the rows even if `args.preflight` is off, and to keep the
            measurements of each row in `Preflight.measured`.

    Raises:
        UniDPOError: If the adapter cannot be loaded and the rows have no problems, or the names of
            evaluation sets are invalid. Problems of rows are in the result instead.
    """
    named_sets = _named_sets(eval_dataset)
    streamed = is_stream(train_dataset)
    needs_scores = scores_are_optional if any_loss else loss.needs_scores
    limit_waiting(args.ddp_timeout)
    with machines_first():  # the others open the rows that the first one has written
        if streamed:
            training, plan = _stream(train_dataset, args, loss, needs_scores)
        else:
            training, plan = _read(train_dataset, "data", args, needs_scores), None
        evaluation = {
            name: _read(dataset, f"evaluation data {name}".rstrip(), args, needs_scores)
            for name, dataset in named_sets.items()
        }
    prepared = Prepared(
        training=training,
        evaluation=evaluation,
        stream=plan,
        problems=[],
        train_rows=[],
        eval_sets={},
    )
    problems = prepared.problems
    problems += mixture_problems(train_dataset, named_sets.values(), streamed=streamed)
    problems += stream_problems(args, loss, any_loss=any_loss) if streamed else ()
    for loaded in (training, *evaluation.values()):
        problems += loaded.problems
    if not problems and not training.rows and isinstance(train_dataset, DataFiles):
        text = "there are no rows to train on"
        problems.append(Problem("data.sources", text, "Use data with preference pairs"))
        return prepared
    if load_adapter is not None:
        try:
            prepared.family, prepared.adapter = load_adapter()
            check_part_names(args, lora, prepared.family)
        except UniDPOError as error:
            if not problems:
                raise
            problems += error.problems
            return prepared
    rows = concatenated([training.rows, prepared.loaded_eval_rows])
    sources = columns_of(rows).sources
    if streamed:
        later = later_sources(train_dataset, training.rows, loss)
        sources = list(dict.fromkeys([*sources, *later]))
    problems += [] if any_loss else loss.check_sources(sources)
    problems += loss_problems(
        training.rows, prepared.loaded_eval_rows, args, loss, any_loss=any_loss
    )
    problems += token_limit_problems(args, loss)
    if prepared.adapter is not None:
        _encode(prepared, prepared.adapter, args, measure=measure)
    if not problems:
        _split_and_group(prepared, train_dataset, args, loss)
    return prepared


def check_part_names(args: UniDPOConfig, lora: Any, family: AdapterFamily) -> None:
    """Check that the parts named in options, also of a new LoRA adapter, exist in the family.

    Raises:
        RecipeError: If some do not; lists all of them.
    """
    problems: list[Problem] = []
    for part in args.learning_rates or {}:
        problems += part_problems([part], family, f"train.learning_rates.{part}")
    problems += part_problems(args.freeze or (), family, RECIPE_KEYS.freeze)
    if isinstance(lora, LoraOptions):
        problems += lora_part_problems(lora, family, args.freeze)
    if problems:
        raise RecipeError(list(dict.fromkeys(problems)))


def _named_sets(eval_dataset: Any) -> dict[str, Any]:
    """Return evaluation sets by name; the name is empty for a single set without a name.

    Raises:
        DataError: If a name cannot be part of a metric's name, or a set is `None`.
    """
    if eval_dataset is None:
        return {}
    if not isinstance(eval_dataset, Mapping):
        return {"": eval_dataset}
    problems = []
    for name, dataset in eval_dataset.items():
        where = f"eval_dataset[{name!r}]"
        if not isinstance(name, str) or not name.strip():
            problems.append(
                Problem(where, "the name is empty or not text", "Use a name such as 'val'")
            )
        elif dataset is None:
            problems.append(Problem(where, "the data set is None", "Remove the name"))
    if not eval_dataset:
        problems.append(Problem("eval_dataset", "the dict is empty", "Pass None, or a data set"))
    if problems:
        raise DataError(problems)
    return dict(eval_dataset)


def _read(
    dataset: Any, name: str, args: UniDPOConfig, needs_scores: Callable[[str], bool]
) -> Loaded:
    """Read files, or convert a data set in memory; existing `PreferenceRow`s are kept."""
    options = _training_options(dataset, args, needs_scores)
    if isinstance(dataset, DataFiles):
        loaded = read_sources(dataset.sources, options)
    else:
        source = _memory_source(name, args)
        loaded = read_records(() if dataset is None else dataset, source, options)
    loaded.problems += scale_problems(loaded.rows, args.score_scale, _scale_key(dataset))
    return loaded


def _training_options(
    dataset: Any, args: UniDPOConfig, needs_scores: Callable[[str], bool]
) -> ReadOptions:
    options = read_options(dataset, args)
    return dataclasses.replace(options, needs_scores=needs_scores, used_only=True)


def _memory_source(name: str, args: UniDPOConfig) -> SourceOptions:
    """Return the options of a data set in memory."""
    return SourceOptions(
        path=name,
        name=name,
        images=None if args.images is None else str(args.images),
        scores=args.score_options,
        reasoning=args.reasoning,
    )


def _stream(
    dataset: Any, args: UniDPOConfig, loss: ConfiguredLoss, needs_scores: Callable[[str], bool]
) -> tuple[Loaded, StreamPlan | None]:
    """Read the first rows of a data set that is streamed, and plan how the others are read."""
    options = _training_options(dataset, args, needs_scores)
    loaded, plan = plan_stream(dataset, _memory_source("data", args), args, options, loss)
    loaded.problems += scale_problems(loaded.rows, args.score_scale, _scale_key(dataset))
    return loaded, plan


def _scale_key(dataset: Any) -> str:
    return "data.score_scale" if isinstance(dataset, DataFiles) else "score_scale"


def read_options(dataset: Any, args: UniDPOConfig) -> ReadOptions:
    """Return the options for reading a data set, without requiring scores."""
    if not isinstance(dataset, DataFiles):
        return ReadOptions(score_scale=args.score_scale)
    return ReadOptions(
        score_scale=args.score_scale,
        max_pixels=dataset.images.max_pixels,
        private_downloads=dataset.images.fetch_private_addresses,
    )


def _encode(prepared: Prepared, adapter: Adapter, args: UniDPOConfig, *, measure: bool) -> None:
    """Encode every row once, which also opens every image."""
    rows, problems = prepared.training.rows, prepared.problems
    drop_long = args.length_policy == "drop"
    if not args.preflight:
        if drop_long or args.max_skipped_fraction > 0:
            text = "rows can only be skipped if all rows are checked before training"
            problems.append(Problem("data.preflight", text, "Set it to true (preflight=True)"))
        if not measure:
            return
    prepared.preflight, row_problems = survey(
        concatenated([rows, prepared.loaded_eval_rows]),
        adapter,
        training=len(rows),
        workers=max(args.dataloader_num_workers or 0, 0),
        drop_long=drop_long,
        max_skipped_fraction=args.max_skipped_fraction,
        keep=measure,
    )
    problems += row_problems
    skipped = sum(number < len(rows) for number in prepared.preflight.skipped)
    if not row_problems and rows and skipped == len(rows):
        remedy = "Raise max_length, or correct the images"
        text = f"every row is skipped ({prepared.preflight.reasons()})"
        problems.append(Problem("data", text, remedy))


def _split_and_group(
    prepared: Prepared, dataset: Any, args: UniDPOConfig, loss: ConfiguredLoss
) -> None:
    """Set the rows to train and evaluate on: remove skipped rows, split, group and weight."""
    train_rows = prepared.training.rows
    sets: dict[str, Sequence[PreferenceRow]]
    sets = {name: loaded.rows for name, loaded in prepared.evaluation.items()}
    if prepared.preflight is not None:
        first = len(train_rows)
        for name, rows in sets.items():
            sets[name] = prepared.preflight.kept(rows, first=first)
            first += len(rows)
        train_rows = prepared.preflight.kept(train_rows)
    if args.eval_fraction > 0 and not any(sets.values()):
        seed = args.seed if args.data_seed is None else args.data_seed
        train_rows, sets[""] = split_rows(train_rows, args.eval_fraction, seed=seed)
    try:
        train_rows, sets = _with_units(train_rows, sets, args, loss)
    except DataError as error:
        prepared.problems += error.problems
        return
    if args.image_term is not None and args.image_term.view == "shuffle":
        _measure_again(prepared, (train_rows, *sets.values()))
    if isinstance(dataset, DataFiles):
        train_rows = repeat_sources(
            train_rows, {source.source_name: source.repeat for source in dataset.sources}
        )
    if args.tokens_per_micro_batch is not None and prepared.adapter is not None:
        workers = args.dataloader_num_workers or 0
        prepared.lengths = measure_with_index(train_rows, prepared.adapter, workers=workers)
    if args.pair_weighting == "group":
        train_rows = weight_by_group(train_rows)
    prepared.train_rows, prepared.eval_sets = train_rows, sets


def _with_units(
    train_rows: Sequence[PreferenceRow],
    sets: Mapping[str, Sequence[PreferenceRow]],
    args: UniDPOConfig,
    loss: ConfiguredLoss,
) -> tuple[Sequence[PreferenceRow], dict[str, Sequence[PreferenceRow]]]:
    """Return the rows to train and evaluate on with the units of the loss."""
    size, eval_size = args.per_device_train_batch_size, args.per_device_eval_batch_size
    units = units_of(train_rows, args, loss, max_units=size)
    if loss.loss.unit == "response":  # pairs are evaluated with such losses
        return units, dict(sets)
    return units, {
        name: units_of(rows, args, loss, max_units=eval_size, others=train_rows)
        for name, rows in sets.items()
    }


def _measure_again(prepared: Prepared, sets: Iterable[Sequence[PreferenceRow]]) -> None:
    """Add the problems of rows that cannot be encoded with the images of other rows."""
    if prepared.preflight is None or prepared.adapter is None:
        return
    for rows in sets:
        measured = measure_with_index(rows, prepared.adapter)
        for refused in measured.refused.values():
            prepared.problems += refused.problems

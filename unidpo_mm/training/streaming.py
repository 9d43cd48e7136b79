"""Prepare a run on data that are read while it trains."""

import functools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ..config import SourceOptions
from ..config.python import UniDPOConfig
from ..data.groups import repeat_problems
from ..data.joining import weigh_by_group
from ..data.load import DataFiles, Loaded, ReadOptions, SourceReport
from ..data.row_table import columns_of
from ..data.stream_batches import StreamPlan
from ..data.stream_sources import first_rows, streamed_sources
from ..data.streams import RowStream, StreamedSource
from ..data.views import view_problems, with_changed_images
from ..errors import DataError, Problem
from ..records import PreferenceRow
from .configured_loss import ConfiguredLoss

__all__ = ["later_sources", "mixture_problems", "plan_stream", "stream_problems"]

CHECKED_ROWS = 64
"""Number of rows of each streamed source that are checked before training starts."""


def plan_stream(
    dataset: Any,
    source: SourceOptions,
    args: UniDPOConfig,
    options: ReadOptions,
    loss: ConfiguredLoss,
) -> tuple[Loaded, StreamPlan | None]:
    """Return the first rows of each source, and how a run reads them; `None` if it cannot.

    Args:
        dataset: `DataFiles`, or an iterable data set.
        source: Options of an iterable data set.
        args: Options of the run.
        options: Options for reading.
        loss: The loss.
    """
    files = isinstance(dataset, DataFiles)
    chosen = dataset.sources if files else [source]
    try:
        sources = streamed_sources(dataset, None if files else source, options)
    except DataError as error:
        loaded = Loaded(reports=[SourceReport(item.source_name) for item in chosen])
        loaded.refuse(error.problems)
        return loaded, None
    loaded = first_rows(sources, CHECKED_ROWS)
    seed = args.seed if args.data_seed is None else args.data_seed
    opened = functools.partial(_open, sources, seed, args.stream_block)
    has_videos = any(row.videos for row in loaded.rows)
    prepare = functools.partial(
        _prepared, args=args, loss=loss, videos=has_videos or args.world_size == 1
    )
    return loaded, StreamPlan(open=opened, prepare=prepare)


def later_sources(dataset: Any, rows: Sequence[PreferenceRow], loss: ConfiguredLoss) -> list[str]:
    """Return the names of sources that rows of a stream may have, even if the first have not.

    Args:
        dataset: `DataFiles`, or an iterable data set.
        rows: The first rows.
        loss: The loss.
    """
    if isinstance(dataset, DataFiles):
        return [source.source_name for source in dataset.sources]
    # several names are those of existing `PreferenceRow`s, so later ones may have others
    return list(loss.by_source) if len(columns_of(rows).sources) > 1 else []


def _open(
    sources: Sequence[StreamedSource], seed: int, block: int, state: Sequence[int] | None
) -> RowStream:
    return RowStream(sources, seed=seed, block=block, state=state)


def _prepared(
    row: PreferenceRow, *, args: UniDPOConfig, loss: ConfiguredLoss, videos: bool
) -> PreferenceRow | None:
    """Return a row as the loss uses it; `None` if the loss does not train on it.

    Raises:
        DataError: If the loss cannot use it.
    """
    if row.videos and not videos:
        text = (
            f"the first {CHECKED_ROWS} rows of each source have no video, so processes are not "
            "prepared for one"
        )
        raise DataError(Problem(row.where, text, "Move a row with a video to the beginning"))
    term = args.image_term
    if problems := [
        *loss.check_rows([row]),
        *view_problems([row], term),
    ]:
        raise DataError(problems)
    if loss.loss.unit == "response":
        row = row.for_responses() if row.targets() else None  # type: ignore[assignment]
    if loss.loss.needs_labels and row is not None:
        row = row.for_labels(None)
    if term is not None and row is not None and term.view != "shuffle" and term.view != "column":
        row = with_changed_images(row, view=term.view, kept=term.kept)
    if row is not None and args.pair_weighting == "group":
        row = weigh_by_group(row)
    return row


def stream_problems(
    args: UniDPOConfig, loss: ConfiguredLoss, *, any_loss: bool
) -> Iterator[Problem]:
    """Yield a problem for each option that needs all rows before training starts.

    Args:
        args: Options of the run.
        loss: The loss.
        any_loss: Whether neither a loss nor the number of steps was chosen, see `prepare`.
    """
    all_rows = "it needs all rows before training, and the data are streamed"
    refused = (
        (
            "train.max_steps",
            args.max_steps <= 0 and not any_loss,
            "a stream has no end",
            "Set the number of steps",
        ),
        ("data.eval_fraction", args.eval_fraction > 0, all_rows, "Use data.eval_sources"),
        ("data.group_by_prompt", args.group_by_prompt, all_rows, "Set it to false"),
        (
            "data.length_policy",
            args.length_policy == "drop",
            all_rows,
            "Use truncate_response or shrink_image",
        ),
        (
            "data.images.max_skipped_fraction",
            args.max_skipped_fraction > 0,
            all_rows,
            "Set it to 0, and remove rows with damaged images from the data",
        ),
        (
            "train.tokens_per_micro_batch",
            args.tokens_per_micro_batch is not None,
            all_rows,
            "Set train.per_device_train_batch_size instead",
        ),
        (
            "train.memory",
            args.memory is not None,
            "it needs the longest row, which is not known if the data are streamed",
            "Set train.activation_checkpointing to true instead",
        ),
        (
            "train.reference",
            args.reference == "cached",
            "rows of a stream may occur only once, so nothing would be reused",
            "Use auto",
        ),
    )
    mismatched = loss.loss.needs_labels and loss.loss.needs_mismatched(loss.config)
    if mismatched and not any_loss:
        text = "it is estimated with responses to other prompts, which a row of a stream lacks"
        yield Problem("loss.kl", text, "Set it to none, or data.sources.streaming to false")
    if args.image_term is not None and args.image_term.view == "shuffle":
        text = "rows of a stream do not have the images of other rows"
        yield Problem("train.image_preference.view", text, "Use crop, mask, noise or column")
    for where, wrong, text, remedy in refused:
        if wrong:
            yield Problem(where, text, remedy)
    configured = [loss.config, *map(_Values, loss.by_source.values())]
    medians = (getattr(config, "tau_good", None) == "median" for config in configured)
    if any(medians) and not any_loss:
        text = "the median needs the scores of all rows, which a stream does not have"
        yield Problem("loss.tau_good", text, "Set it to a number")


class _Values:
    """Parameters of a source as attributes."""

    def __init__(self, values: Any) -> None:
        vars(self).update(values)


def mixture_problems(
    dataset: Any, eval_datasets: Iterable[Any], *, streamed: bool
) -> Iterator[Problem]:
    """Yield the problems of weights and repetitions of sources, which only `DataFiles` have.

    Args:
        dataset: The training data.
        eval_datasets: The data for evaluation.
        streamed: Whether the training data are streamed.
    """
    if isinstance(dataset, DataFiles):
        yield from repeat_problems(dataset.sources)
    sets = [(dataset, False), *((other, True) for other in eval_datasets)]
    sources = (
        (source, evaluation)
        for files, evaluation in sets
        if isinstance(files, DataFiles)
        for source in files.sources
    )
    for source, evaluation in sources:
        where = f"data source '{source.source_name}'"
        if evaluation and source.streaming:
            text = "data for evaluation cannot be streamed"
            yield Problem(f"{where}, streaming", text, "Set it to false")
        if source.weight != 1 and (evaluation or not streamed):
            text = "only rows that are streamed are drawn by weights"
            yield Problem(f"{where}, weight", text, "Use repeat, or set streaming to true")
        if source.repeat != 1 and (evaluation or streamed):
            text = "rows for evaluation occur once" if evaluation else "a stream has no epochs"
            remedy = "Remove it" if evaluation else "Use weight instead"
            yield Problem(f"{where}, repeat", text, remedy)

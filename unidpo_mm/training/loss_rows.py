"""The rows as the loss uses them: their units, other images, and what the loss cannot use."""

import logging
from collections.abc import Iterator, Sequence

import numpy

from ..config.python import UniDPOConfig
from ..config.training_arguments import training_arguments
from ..data.groups import group_by_prompt, train_on_labels, train_on_responses
from ..data.row_table import columns_of, concatenated, take_rows
from ..data.scores import zero_weight_problems
from ..data.views import view_problems, with_views
from ..errors import DataError, Problem, counted
from ..records import PreferenceRow
from .configured_loss import ConfiguredLoss

__all__ = ["loss_problems", "token_limit_problems", "units_of"]


logger = logging.getLogger(__name__)


def units_of(
    rows: Sequence[PreferenceRow],
    args: UniDPOConfig,
    loss: ConfiguredLoss,
    *,
    max_units: int,
    others: Sequence[PreferenceRow] = (),
) -> Sequence[PreferenceRow]:
    """Return the rows with the units of the loss, grouped by prompt if that is requested.

    Args:
        rows: The rows, as they were read.
        args: Options of the run.
        loss: The loss.
        max_units: Maximum number of units of a joined row.
        others: The training rows, if `rows` are for evaluation: their responses may be mismatched
            ones, if all `rows` have the same prompt.

    Raises:
        DataError: If the loss needs mismatched responses, or images of other rows, and there are
            none.
    """
    if loss.loss.unit == "response":
        return train_on_responses(rows)
    labels = loss.loss.needs_labels
    if args.group_by_prompt:
        rows = group_by_prompt(rows, max_units=max_units, labels=labels)
    if labels:
        mismatched = loss.loss.needs_mismatched(loss.config)
        return train_on_labels(rows, mismatched=mismatched, others=others)
    term = args.image_term
    if term is not None:
        rows = with_views(rows, term.view, kept=term.kept)
        if term.view == "shuffle":
            _check_partners(rows, required=not others)
    return rows


def _check_partners(rows: Sequence[PreferenceRow], *, required: bool) -> None:
    """Warn of rows that do not have the images of another row; refuse them if all do not."""
    columns = columns_of(rows)
    has_images = columns.images > 0
    alone = int((has_images & (columns.other_images == 0)).sum())
    if required and alone and alone == has_images.sum():
        text = "no other row has other images, as many as the row"
        raise DataError(Problem("train.image_preference.view", text, "Set it to crop"))
    if alone:
        logger.warning(
            "%s without image preference: no other row has other images, as many as the row",
            counted(alone, "row is", "rows are"),
        )


def loss_problems(
    train_rows: Sequence[PreferenceRow],
    eval_rows: Sequence[PreferenceRow],
    args: UniDPOConfig,
    loss: ConfiguredLoss,
    *,
    any_loss: bool,
) -> list[Problem]:
    """Return a problem for each row that lacks the pairs, scores or weights that the loss needs."""
    if any_loss:
        rows = concatenated([train_rows, eval_rows])
        columns = columns_of(rows)
        rows = take_rows(rows, numpy.flatnonzero(columns.labels.lengths == 0).tolist())
        columns = columns_of(rows)  # a loss of labeled responses can use the others
        scored = columns.scores.owners[~numpy.isnan(columns.scores.values)]
        of_scored = numpy.isin(columns.source, columns.source[scored])
        problems = loss.check_rows(take_rows(rows, numpy.flatnonzero(of_scored).tolist()))
        return [*problems, *zero_weight_problems(train_rows)]
    sets = (train_rows, eval_rows)
    views = [problem for rows in sets for problem in view_problems(rows, args.image_term)]
    problems = [*views, *loss.check_rows(train_rows), *zero_weight_problems(train_rows)]
    if loss.loss.unit == "pair":
        problems += loss.check_rows(eval_rows)
    return problems


def token_limit_problems(args: UniDPOConfig, loss: ConfiguredLoss) -> Iterator[Problem]:
    """Yield the problems of options that contradict a limit of tokens."""
    if args.tokens_per_micro_batch is None:
        return
    where = "train.tokens_per_micro_batch"
    if not args.preflight:
        remedy = "Set data.preflight to true (preflight=True), or remove it"
        yield Problem(where, "the lengths of the rows are only known if all are checked", remedy)
    pairs = args.per_device_train_batch_size
    if pairs != training_arguments()["per_device_train_batch_size"]:
        text = f"train.per_device_train_batch_size, {pairs}, cannot be combined with a token limit"
        yield Problem(where, text, "Remove one of the two")
    if args.image_term is not None:
        text = "it does not count the tokens of other images, which train.image_preference adds"
        yield Problem(where, text, "Set train.per_device_train_batch_size instead")
    if loss.loss.batch_dependent(loss.config):
        text = (
            f"the {loss.loss.noun}s of a micro-batch affect each other in the loss "
            f"'{loss.loss.name}', and their number would vary"
        )
        yield Problem(where, text, "Set train.per_device_train_batch_size instead")

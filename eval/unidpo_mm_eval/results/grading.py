"""Scores predictions: samples and responses joined by id, judged one by one, metrics over all."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING

from unidpo_mm.errors import DataError, Problem, RecipeError
from unidpo_mm.reasoning import strip_reasoning

from ..benchmarks import JUDGE_ERROR, Benchmark, Rules, Verdicts
from ..data.dataset import DataSet
from ..data.predictions import OPENED, Predictions
from ..data.samples import Judged, Prediction, Sample, ScoredSample
from ..models.template_variables import different_variables
from ..protocols import Protocol, load_protocol, protocol_names
from ..scorers.reasoning import DESCRIPTIONS, scored_text
from .result import Reasoning, Result, Source

if TYPE_CHECKING:
    from ..judge.judges import Judge

__all__ = ["score"]

SHOWN = 5
"""Ids that a warning names."""
MOST = 50.0
"""Percent of responses in the expected format below which something is probably wrong."""
CLOSED = frozenset({"yes_no", "options"})
"""Kinds of questions with few possible answers."""
CONSTANT = 10
"""Minimum number of understood answers for the warning that all of them are the same."""
CUT = "length"
"""The finish reason of a response that met the limit of new tokens."""


def score(
    benchmark: Benchmark,
    data: DataSet,
    predictions: Predictions,
    protocol: Protocol,
    *,
    model: str | None = None,
    judge: "Judge | None" = None,
    leave_out_errors: bool = False,
) -> Result:
    """Returns what the predictions score.

    A sample without prediction is wrong and counted. Predictions of ids that the data do not have
    are told, and never scored.

    Args:
        benchmark: The benchmark.
        data: Its samples.
        predictions: Responses by id.
        protocol: Names the rules.
        model: What the model is called.
        judge: Who says what responses are worth, where rules do not.
        leave_out_errors: Samples that the judge did not judge do not count; else they are wrong.

    Raises:
        DataError: If no prediction is one of the data's.
        RecipeError: If there is no judge where one is needed.
    """
    rules = benchmark.rules(protocol.scoring)
    if rules.by_judge and judge is None:
        found = f"{benchmark.title} is scored by a judge"
        raise RecipeError(Problem("--judge", found, "Name its address, or local:CHECKPOINT"))
    who = Verdicts(judge.name, leave_out_errors) if rules.by_judge and judge else None
    warnings = [*data.notes, *_unmatched(data, predictions, rules), *_odd(predictions)]
    said = [(sample, predictions.by_id.get(sample.id)) for sample in data.samples]
    opened = bool(predictions.manifest.get(OPENED))
    texts = {one.id: _text(one, protocol, opened=opened) for _, one in said if one}
    asked = [(sample, texts[one.id].scored) for sample, one in said if one and one.error is None]
    judged = iter(rules.judged(asked, {**protocol.options, "judge": judge}))
    scored = [
        _scored(
            sample,
            one,
            next(judged) if one and one.error is None else Judged(0.0, None),
            texts[one.id] if one else None,
        )
        for sample, one in said
    ]
    metrics = rules.measured(scored, who).values() | rates(scored, benchmark)
    headline = rules.headline if rules.headline_of is None else rules.headline_of(scored)
    if who is not None:
        headline = f"{headline}[judge={who.name}]"
        metrics["judge_error_rate"] = _judge_errors(scored)
        if metrics["judge_error_rate"]:
            how = "are left out" if leave_out_errors else "count as wrong"
            first = next(one for one in scored if one.note.startswith(JUDGE_ERROR))
            text = (
                f"responses that the judge did not judge {how}: {metrics['judge_error_rate']:.1f} %"
            )
            warnings.append(f"{text}, as of '{first.id}': {first.note}")
    if rules.once is not None:
        metrics |= rules.once(scored)
    reasoning = _reasoning(scored, protocol)
    warnings += [
        *_about_reasoning(benchmark, reasoning, protocol),
        *_out_of_form(benchmark, metrics),
        *_meaningless(benchmark, protocol, scored, metrics),
    ]
    return Result(
        benchmark=benchmark.name,
        title=benchmark.title,
        protocol=protocol,
        headline=headline,
        metrics=metrics,
        per_sample=tuple(scored),
        data=Source(str(data.path), data.sha256, len(data.samples), len(data.dropped)),
        predictions=Source(str(predictions.path), predictions.sha256, len(predictions.by_id)),
        model=model,
        manifest=predictions.manifest,
        warnings=tuple(warnings),
        judge=who,
        libraries={name: version(name) for name in rules.libraries},
        reasoning=reasoning,
    )


@dataclass(frozen=True)
class _Text:
    """A response, and the part of it that is scored."""

    scored: str
    reasoning: bool
    unclosed: bool


def _text(prediction: Prediction, protocol: Protocol, *, opened: bool) -> _Text:
    stripped = strip_reasoning(prediction.response, opened=opened)
    text = scored_text(prediction.response, protocol.reasoning, opened=opened)
    return _Text(text, stripped.has_reasoning, stripped.unclosed)


def _reasoning(scored: Sequence[ScoredSample], protocol: Protocol) -> Reasoning:
    return Reasoning(
        rule=protocol.reasoning,
        description=DESCRIPTIONS[protocol.reasoning],
        responses=sum(sample.reasoning for sample in scored),
        removed=sum(sample.scored is not None for sample in scored),
        unclosed=sum(sample.unclosed for sample in scored),
    )


def rates(scored: Sequence[ScoredSample], benchmark: Benchmark) -> dict[str, float]:
    """Returns what is reported of every benchmark: counts, and shares in percent of all samples.

    Responses whose finish reason nobody wrote down count as not truncated. The share in the
    expected format is one of the responses, where the benchmark asks for a format.
    """
    share = 100 / max(len(scored), 1)
    found = {
        "n": len(scored),
        "n_clusters": len({one.cluster for one in scored}),
        "unparsed_rate": share * sum(one.unparsed for one in scored),
        "truncated_rate": share * sum(bool(one.truncated) for one in scored),
        "empty_rate": share * sum(one.empty for one in scored),
        "error_rate": share * sum(one.error is not None for one in scored),
        "missing": sum(one.missing for one in scored),
    }
    form = benchmark.form
    said = [one for one in scored if one.response is not None and one.error is None]
    if form is not None and said:
        in_form = sum(form.has(one, _scored_part(one)) for one in said)
        found["expected_format_rate"] = 100 * in_form / len(said)
    return found


def _scored_part(sample: ScoredSample) -> str:
    return (sample.response or "") if sample.scored is None else sample.scored


def _odd(predictions: Predictions) -> list[str]:
    """Returns what is to be said of how predictions were made."""
    told = []
    seed = predictions.manifest.get("shuffled_pictures")
    if seed is not None:
        told.append(f"the control: every picture is that of another, shuffled by seed {seed}")
    if (other := different_variables(predictions.manifest)) is not None:
        told.append(other)
    failed = [one for one in predictions.by_id.values() if one.error]
    if failed:
        first = f"'{failed[0].id}': {failed[0].error}"
        told.append(f"predictions that are errors, which count as wrong: {len(failed)}, {first}")
    return told


def _judge_errors(scored: Sequence[ScoredSample]) -> float:
    """Returns the percent of samples that the judge did not judge."""
    found = sum(one.note.startswith(JUDGE_ERROR) for one in scored)
    return 100 * found / max(len(scored), 1)


def _out_of_form(benchmark: Benchmark, metrics: Mapping[str, float]) -> list[str]:
    """Returns a warning where most responses do not look as they should."""
    rate = metrics.get("expected_format_rate", 100.0)
    if benchmark.form is None or rate >= MOST:
        return []
    text = f"only {rate:.1f} % of the responses are {benchmark.form.name}"
    return [f"{text}: a wrong chat template shows there first"]


def _about_reasoning(benchmark: Benchmark, reasoning: Reasoning, protocol: Protocol) -> list[str]:
    """Return warnings about thoughts that are scored as answers, or that have no end."""
    warnings = []
    if reasoning.responses and protocol.reasoning == "none":
        others = [
            name
            for name, sample in ((name, load_protocol(name)) for name in protocol_names())
            if sample.reasoning != "none" and sample.scoring in benchmark.families
        ]
        remedy = f": to score the answers alone, use {' or '.join(others)}" if others else ""
        warnings.append(
            f"{reasoning.responses} responses contain reasoning, and '{protocol.label}' scores "
            f"them whole, as its rules do by default{remedy}"
        )
    if reasoning.unclosed:
        how = {
            "clean": "their reasoning is no answer",
            "none": "their reasoning is scored as the answer",
        }.get(protocol.reasoning, "an unclosed block is scored as the answer, as the toolkit does")
        warnings.append(
            f"{reasoning.unclosed} responses end inside a reasoning block, and {how}: "
            "raise the maximum number of new tokens"
        )
    return warnings


def _meaningless(
    benchmark: Benchmark,
    protocol: Protocol,
    scored: Sequence[ScoredSample],
    metrics: Mapping[str, float],
) -> list[str]:
    """Return warnings where the numbers describe the format of the responses, not the model."""
    warnings = []
    if metrics["unparsed_rate"] >= MOST:
        text = (
            f"'{protocol.label}' finds no answer in {metrics['unparsed_rate']:.1f} % of the "
            "responses: the metrics describe their format, not the model"
        )
        if metrics.get("expected_format_rate", 0.0) >= MOST:
            text += (
                f". {metrics['expected_format_rate']:.1f} % of them do look like "
                f"{benchmark.form.name if benchmark.form else 'an answer'}, so this protocol is "
                "stricter than the prompt"
            )
            if protocol.scoring != "clean" and "clean" in benchmark.families:
                text += "; compare with --protocol clean"
        warnings.append(text)
    for rate, what in (("empty_rate", "empty"), ("truncated_rate", "cut at the token limit")):
        if metrics[rate] >= MOST:
            warnings.append(f"{metrics[rate]:.1f} % of the responses are {what}")
    answers = Counter(sample.answer for sample in scored if sample.answer is not None)
    correct = {sample.answers[:1] for sample in scored}
    closed = benchmark.form is not None and benchmark.form.kind in CLOSED
    if closed and len(answers) == 1 and answers.total() >= CONSTANT and len(correct) > 1:
        (answer,) = answers
        warnings.append(
            f"all {answers.total()} understood answers are {answer!r}: the metrics are those of a "
            "constant answer"
        )
    return warnings


def _scored(
    sample: Sample, prediction: Prediction | None, judged: Judged, text: _Text | None
) -> ScoredSample:
    answered = prediction is not None and prediction.error is None
    reason = prediction.finish_reason if prediction else None
    shortened = None
    if prediction is not None and text is not None and text.scored != prediction.response:
        shortened = text.scored
    return ScoredSample(
        id=sample.id,
        question=sample.question,
        answers=sample.answers,
        options=sample.options,
        labels=sample.labels,
        cluster=sample.cluster,
        unit=sample.unit,
        extras=sample.extras,
        response=prediction.response if prediction else None,
        score=judged.score,
        answer=judged.answer,
        unparsed=answered and judged.answer is None and not judged.note.startswith(JUDGE_ERROR),
        truncated=None if reason is None else reason == CUT,
        empty=prediction is not None and answered and not prediction.response.strip(),
        missing=prediction is None,
        error=prediction.error if prediction else None,
        note=judged.note,
        details=judged.details,
        reasoning=text is not None and text.reasoning,
        unclosed=text is not None and text.unclosed,
        scored=shortened,
    )


def _unmatched(data: DataSet, predictions: Predictions, rules: Rules) -> list[str]:
    """Returns what is to be said of ids that stand in one of the two files only."""
    known = {sample.id for sample in data.samples} | set(data.dropped)
    extra = [one for own, one in predictions.by_id.items() if own not in known]
    missing = [sample for sample in data.samples if sample.id not in predictions.by_id]
    if len(missing) == len(data.samples):
        example, own = next(iter(predictions.by_id)), data.samples[0].id
        found = f"no prediction has an id of the data: '{example}' here, '{own}' there"
        raise DataError(Problem(str(predictions.path), found, "Write the ids of the data"))
    told = []
    if missing:
        rows = ", ".join(f"{one.where} (id '{one.id}')" for one in missing[:SHOWN])
        how = "count as wrong" if rules.missing_are_wrong else "count for nothing"
        told.append(f"samples without prediction, which {how}: {len(missing)}, {rows}")
    if extra:
        rows = ", ".join(f"{one.where} (id '{one.id}')" for one in extra[:SHOWN])
        told.append(f"predictions without sample, which are not scored: {len(extra)}, {rows}")
    return [text + (" ..." if text.count("(id '") == SHOWN else "") for text in told]

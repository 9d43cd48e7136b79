"""Grading of predictions: samples and responses are joined by id, scored, and summarized."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version

from unidpo_mm.errors import DataError, Problem, RecipeError
from unidpo_mm.reasoning import strip_reasoning

from ..benchmarks import JUDGE_ERROR, Benchmark, JudgeInfo, Scorer
from ..data.dataset import Dataset
from ..data.predictions import OPENED, Predictions, variables_warning
from ..data.samples import Grade, GradedSample, Prediction, Sample
from ..judge.judges import Judge
from ..protocols import Protocol, load_protocol, protocol_names
from ..scorers.reasoning import DESCRIPTIONS, scored_text
from .result import Reasoning, Result, Source

MAX_EXAMPLES = 5
"""Maximum number of ids in a warning."""
MAJORITY = 50.0
"""Percentage of unusual responses from which the numbers probably mean nothing."""
CLOSED = frozenset({"yes_no", "options"})
"""Kinds of questions with few possible answers."""
MIN_CONSTANT = 10
"""Minimum number of parsed answers for the warning that all of them are equal."""


def grade_predictions(
    benchmark: Benchmark,
    data: Dataset,
    predictions: Predictions,
    protocol: Protocol,
    *,
    model: str | None = None,
    judge: Judge | None = None,
    skip_judge_errors: bool = False,
) -> Result:
    """Grade predictions.

    A sample without a prediction is wrong and counted, and so is one without a verdict unless
    `skip_judge_errors`. Predictions for unknown ids are reported and not graded.
    """
    scorer = benchmark.scorer(protocol.scoring)
    if scorer.uses_judge and judge is None:
        text = f"{benchmark.title} is scored by a judge"
        raise RecipeError(Problem("--judge", text, "Use its URL, or local:CHECKPOINT"))
    info = JudgeInfo(judge.name, skip_judge_errors) if scorer.uses_judge and judge else None
    warnings = [*data.notes, *_unmatched(data, predictions, scorer)]
    warnings += _manifest_warnings(predictions)
    samples = _grade(scorer, data, predictions, protocol, judge)
    metrics = scorer.measure(samples, info).values() | rates(samples, benchmark)
    headline = scorer.headline if scorer.headline_of is None else scorer.headline_of(samples)
    if info is not None:
        headline = f"{headline}[judge={info.name}]"
        metrics["judge_error_rate"], texts = _judge_errors(samples, info)
        warnings += texts
    if scorer.extra_metrics is not None:
        metrics |= scorer.extra_metrics(samples)
    reasoning = Reasoning(
        rule=protocol.reasoning,
        description=DESCRIPTIONS[protocol.reasoning],
        responses=sum(sample.reasoning for sample in samples),
        removed=sum(sample.scored is not None for sample in samples),
        unclosed=sum(sample.unclosed for sample in samples),
    )
    warnings += _reasoning_warnings(benchmark, reasoning, protocol)
    warnings += _response_warnings(benchmark, protocol, samples, metrics)
    return Result(
        benchmark=benchmark.name,
        title=benchmark.title,
        benchmark_file=benchmark.file,
        protocol=protocol,
        headline=headline,
        metrics=metrics,
        per_sample=tuple(samples),
        data=Source(str(data.path), data.sha256, len(data.samples), len(data.dropped)),
        predictions=Source(str(predictions.path), predictions.sha256, len(predictions.by_id)),
        model=model,
        manifest=predictions.manifest,
        warnings=tuple(warnings),
        judge=info,
        libraries={name: version(name) for name in scorer.libraries},
        reasoning=reasoning,
    )


def rates(samples: Sequence[GradedSample], benchmark: Benchmark | None = None) -> dict[str, float]:
    """Return what every result reports: counts, and rates in percent of all samples.

    Responses with an unknown finish reason count as not truncated. The rate of the expected format
    is relative to the responses, and omitted for benchmarks without one.
    """

    def rate(test: Callable[[GradedSample], object]) -> float:
        return 100 / max(len(samples), 1) * sum(bool(test(sample)) for sample in samples)

    metrics = {
        "n": len(samples),
        "n_clusters": len({sample.cluster for sample in samples}),
        "unparsed_rate": rate(lambda sample: sample.unparsed),
        "truncated_rate": rate(lambda sample: sample.truncated),
        "empty_rate": rate(lambda sample: sample.empty),
        "error_rate": rate(lambda sample: sample.error is not None),
        "missing": sum(sample.missing for sample in samples),
    }
    expected = benchmark.response_format if benchmark else None
    responses = [s for s in samples if s.response is not None and s.error is None]
    if expected is not None and responses:
        matches = sum(expected.matches(sample, sample.scored_text) for sample in responses)
        metrics["expected_format_rate"] = 100 * matches / len(responses)
    return metrics


def _grade(
    scorer: Scorer, data: Dataset, predictions: Predictions, protocol: Protocol, judge: Judge | None
) -> list[GradedSample]:
    opened = bool(predictions.manifest.get(OPENED))
    pairs = [(sample, predictions.by_id.get(sample.id)) for sample in data.samples]
    texts = {
        prediction.id: scored_text(prediction.response, protocol.reasoning, opened=opened)
        for _, prediction in pairs
        if prediction
    }
    responses = [(sample, texts[p.id]) for sample, p in pairs if p and p.error is None]
    grades = iter(scorer.grade_responses(responses, {**protocol.options, "judge": judge}))
    return [
        _graded_sample(
            sample,
            prediction,
            next(grades) if prediction and prediction.error is None else Grade(0.0, None),
            texts.get(sample.id),
            opened=opened,
        )
        for sample, prediction in pairs
    ]


def _graded_sample(
    sample: Sample, prediction: Prediction | None, grade: Grade, text: str | None, *, opened: bool
) -> GradedSample:
    response = prediction.response if prediction else None
    has_response = prediction is not None and prediction.error is None
    reason = prediction.finish_reason if prediction else None
    stripped = strip_reasoning(response or "", opened=opened)
    return GradedSample(
        id=sample.id,
        question=sample.question,
        answers=sample.answers,
        options=sample.options,
        labels=sample.labels,
        cluster=sample.cluster,
        unit=sample.unit,
        extras=sample.extras,
        response=response,
        score=grade.score,
        answer=grade.answer,
        unparsed=has_response and grade.answer is None and not grade.note.startswith(JUDGE_ERROR),
        truncated=None if reason is None else reason == "length",
        empty=has_response and not (response or "").strip(),
        missing=prediction is None,
        error=prediction.error if prediction else None,
        note=grade.note,
        details=grade.details,
        reasoning=prediction is not None and stripped.has_reasoning,
        unclosed=prediction is not None and stripped.unclosed,
        scored=None if text == response else text,
    )


def _judge_errors(samples: Sequence[GradedSample], judge: JudgeInfo) -> tuple[float, list[str]]:
    """Return the percentage of samples without a verdict, and a warning if there are some."""
    failed = [sample for sample in samples if sample.note.startswith(JUDGE_ERROR)]
    rate = 100 * len(failed) / max(len(samples), 1)
    effect = "are skipped" if judge.errors_left_out else "count as wrong"
    text = f"responses without a verdict {effect}: {rate:.1f} %"
    return rate, [f"{text}, for example '{s.id}': {s.note}" for s in failed[:1]]


def _manifest_warnings(predictions: Predictions) -> list[str]:
    """Return warnings about how predictions were made."""
    warnings = []
    seed = predictions.manifest.get("shuffled_images")
    if seed is not None:
        warnings.append(f"control: every image was replaced by another one, with seed {seed}")
    warnings += variables_warning(predictions.manifest)
    failed = [prediction for prediction in predictions.by_id.values() if prediction.error]
    if failed:
        example = f"for example '{failed[0].id}': {failed[0].error}"
        warnings.append(f"predictions with errors count as wrong: {len(failed)}, {example}")
    return warnings


def _reasoning_warnings(
    benchmark: Benchmark, reasoning: Reasoning, protocol: Protocol
) -> list[str]:
    """Return warnings about reasoning that is scored as an answer, or that has no end."""
    warnings = []
    if reasoning.responses and protocol.reasoning == "none":
        others = [
            other.id
            for other in map(load_protocol, protocol_names())
            if other.reasoning != "none" and other.scoring in benchmark.scorers
        ]
        remedy = f": to score only the answers, use {' or '.join(others)}" if others else ""
        warnings.append(
            f"{reasoning.responses} responses contain reasoning, and '{protocol.label}' scores the "
            f"complete responses, which is the default of its rules{remedy}"
        )
    if reasoning.unclosed:
        effect = {
            "clean": "their reasoning is not an answer",
            "none": "their reasoning is scored as the answer",
        }.get(protocol.reasoning, "an unclosed block is scored as the answer, as in the toolkit")
        warnings.append(
            f"{reasoning.unclosed} responses end inside a reasoning block, and {effect}: "
            "increase the maximum number of new tokens"
        )
    return warnings


def _response_warnings(
    benchmark: Benchmark,
    protocol: Protocol,
    samples: Sequence[GradedSample],
    metrics: Mapping[str, float],
) -> list[str]:
    """Return warnings if the numbers describe the format of the responses, not the model."""
    warnings = []
    expected = benchmark.response_format
    description = expected.description if expected else "an answer"
    format_rate = metrics.get("expected_format_rate", 100.0 if expected is None else 0.0)
    if "expected_format_rate" in metrics and format_rate < MAJORITY:
        text = f"only {format_rate:.1f} % of the responses are {description}"
        warnings.append(f"{text}: the chat template may be wrong")
    if metrics["unparsed_rate"] >= MAJORITY:
        text = (
            f"'{protocol.label}' finds no answer in {metrics['unparsed_rate']:.1f} % of the "
            "responses: the metrics describe their format, not the model"
        )
        if "expected_format_rate" in metrics and format_rate >= MAJORITY:
            text += (
                f". But {format_rate:.1f} % of them are {description}, so this protocol is "
                "stricter than the prompt"
            )
            if protocol.scoring != "clean" and "clean" in benchmark.scorers:
                text += "; compare with --protocol clean"
        warnings.append(text)
    for rate, state in (("empty_rate", "empty"), ("truncated_rate", "truncated")):
        if metrics[rate] >= MAJORITY:
            warnings.append(f"{metrics[rate]:.1f} % of the responses are {state}")
    answers = Counter(sample.answer for sample in samples if sample.answer is not None)
    correct = {sample.answers[:1] for sample in samples}
    is_closed = expected is not None and expected.kind in CLOSED
    if is_closed and len(answers) == 1 and answers.total() >= MIN_CONSTANT and len(correct) > 1:
        (answer,) = answers
        warnings.append(
            f"all {answers.total()} parsed answers are {answer!r}: the metrics are those of a "
            "constant answer"
        )
    return warnings


def _unmatched(data: Dataset, predictions: Predictions, scorer: Scorer) -> list[str]:
    """Return warnings about ids that occur in only one of the two files."""
    sample_ids = {sample.id for sample in data.samples} | set(data.dropped)
    extra = [p for sample_id, p in predictions.by_id.items() if sample_id not in sample_ids]
    missing = [sample for sample in data.samples if sample.id not in predictions.by_id]
    if len(missing) == len(data.samples):
        example, expected = next(iter(predictions.by_id)), data.samples[0].id
        text = f"no prediction has an id of the data: got '{example}', expected '{expected}'"
        raise DataError(Problem(str(predictions.path), text, "Use the ids of the data"))
    effect = "count as wrong" if scorer.missing_is_wrong else "are ignored"
    warnings = []
    for text, rows in (
        (f"samples without a prediction, which {effect}", missing),
        ("predictions without a sample, which are ignored", extra),
    ):
        if rows:
            examples = ", ".join(f"{row.where} (id '{row.id}')" for row in rows[:MAX_EXAMPLES])
            ellipsis = " ..." if len(rows) > MAX_EXAMPLES else ""
            warnings.append(f"{text}: {len(rows)}, {examples}{ellipsis}")
    return warnings

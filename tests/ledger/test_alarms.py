"""Alarms: each one is raised by a constructed ledger, and none by an ordinary one."""

from collections.abc import Callable
from typing import Any

import numpy
import pytest

from unidpo_mm.ledger.alarms import Visits, find_alarms

STEPS, PER_STEP = 50, 8


def visits(change: Callable[[dict[str, Any]], object] = lambda c: None, **loss: Any) -> Visits:
    """Return the visits of an ordinary run, with some columns changed in place."""
    draw = numpy.random.default_rng(0)
    count = STEPS * PER_STEP
    step = numpy.repeat(numpy.arange(1, STEPS + 1), PER_STEP)
    progress = step / STEPS
    lengths = draw.integers(5, 40, (2, count)).astype(float)
    margin = progress * (1 + draw.normal(size=count))
    score_margin = draw.choice([0.5, 1.0, 2.0, 3.0], count)
    w_qual = 1 / (1 + numpy.exp(-0.7 * score_margin))
    w_perf = (1 / (1 + numpy.exp(margin - 2))) ** 3
    reference = -1.5 * lengths[0]
    columns = {
        "step": step,
        "weight": numpy.ones(count),
        "source": numpy.where(numpy.arange(count) % 2, "math", "images"),
        "domain": numpy.where(numpy.arange(count) % 2, "math", "multimodal"),
        "score_chosen": 1 + score_margin,
        "score_margin": score_margin,
        "chosen_length": lengths[0],
        "rejected_length": lengths[1],
        "reference_chosen_logp": reference,
        "policy_chosen_logp": reference + lengths[0] * draw.normal(0, 0.1, count),
        "reward_margin": margin,
        "w_qual": w_qual,
        "w_perf": w_perf,
        "nll_gate": (draw.random(count) < 0.3).astype(float),
        "contribution": w_qual * w_perf / (1 + numpy.exp(margin)),
    }
    change(columns)
    return Visits(
        columns, {"name": "uni_dpo", "eta": 0.7, "nll_lambda": 0.001, "tau_good": 9.0, **loss}
    )


def raised(*args: Any, **loss: Any) -> list[str]:
    return [alarm.name for alarm in find_alarms(visits(*args, **loss))]


def chosen_fall(columns: dict[str, Any]) -> None:
    columns["policy_chosen_logp"] -= columns["chosen_length"] * columns["step"] / STEPS


def chosen_fall_without_reference(columns: dict[str, Any]) -> None:
    chosen_fall(columns)
    columns["reference_chosen_logp"] = numpy.full_like(columns["policy_chosen_logp"], numpy.nan)


def contributions_collapse(columns: dict[str, Any]) -> None:
    columns["contribution"] *= 10.0 ** (-4 * columns["step"] / STEPS)


def gate_opens_always(columns: dict[str, Any]) -> None:
    columns["nll_gate"][:] = 1


def gate_opens_never(columns: dict[str, Any]) -> None:
    columns["nll_gate"][:] = 0


def one_source(columns: dict[str, Any]) -> None:
    columns["contribution"][columns["source"] == "math"] *= 100


def longer_is_heavier(columns: dict[str, Any]) -> None:
    columns["w_perf"] = columns["chosen_length"] / 40


@pytest.mark.parametrize(
    ("change", "loss", "name"),
    [
        (chosen_fall, {}, "chosen log-probs fall"),
        (chosen_fall_without_reference, {}, "chosen log-probs fall"),
        (contributions_collapse, {}, "contributions collapse"),
        (gate_opens_always, {}, "gate always open"),
        (gate_opens_never, {}, "gate never open"),
        (one_source, {}, "one part of the data dominates"),
        (lambda c: None, {"eta": 0.01}, "score range unfit for eta"),
        (lambda c: None, {"eta": 50.0}, "score range unfit for eta"),
        (lambda c: None, {"by_source": {"math": {"eta": 50.0}}}, "score range unfit for eta"),
        (longer_is_heavier, {}, "weights depend on length"),
    ],
)
def test_each_alarm_is_raised_alone(change: Any, loss: dict[str, Any], name: str) -> None:
    assert raised(change, **loss) == [name]


def test_an_ordinary_run_raises_none() -> None:
    assert raised() == []


def test_a_gate_that_is_not_needed_raises_none() -> None:
    def likely(columns: dict[str, Any]) -> None:
        columns["nll_gate"][:] = 0
        columns["policy_chosen_logp"] = columns["reference_chosen_logp"] + 1

    assert raised(likely) == []


def test_a_gate_of_weight_0_raises_none() -> None:
    assert raised(gate_opens_always, nll_lambda=0.0) == []


def test_a_loss_without_scores_and_weights_raises_none() -> None:
    def plain(columns: dict[str, Any]) -> None:
        for name in ("w_qual", "w_perf", "nll_gate"):
            del columns[name]
        columns["score_margin"][:] = numpy.nan

    assert raised(plain) == []


def test_a_visit_that_is_not_finite_hides_nothing() -> None:
    def broken(columns: dict[str, Any]) -> None:
        chosen_fall(columns)
        columns["policy_chosen_logp"][-1] = numpy.nan
        columns["contribution"][-1] = numpy.inf

    assert raised(broken) == ["chosen log-probs fall"]


def test_a_gate_that_no_good_response_needs_raises_none() -> None:
    assert raised(gate_opens_never, tau_good=2.0) == []
    assert raised(gate_opens_never, tau_good=9.0) == ["gate never open"]


def test_quality_weights_that_are_off_need_no_scale() -> None:
    assert raised(eta=50.0, quality_weight="none") == []


def test_runs_of_a_few_steps_raise_none() -> None:
    def short(columns: dict[str, Any]) -> None:
        gate_opens_always(columns)
        columns["step"] = columns["step"] % 3 + 1

    assert raised(short) == []


def test_too_few_visits_raise_none() -> None:
    few = visits(gate_opens_always)
    first = {name: values[:63] for name, values in few.columns.items()}
    assert find_alarms(Visits(first, few.loss)) == []
    assert find_alarms(None) == []

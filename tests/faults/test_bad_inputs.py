"""Invalid recipes, command lines and environments end with one clear message and exit code 2."""

from pathlib import Path

import pytest
from faults.bad_inputs import (
    CASES,
    compare_all,
    compare_commands,
    make_world,
    preload,
    recipe,
    run_all,
    run_case,
    table,
    verdict_of,
)

QUICK = CASES[3::11]
"""Every eleventh case, so that each group of cases is represented."""

COMPARED = [case for case in CASES if case.in_both_commands]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    preload()
    return make_world(tmp_path_factory.mktemp("world"))


def test_there_are_150_distinct_bad_inputs():
    assert len({case.name for case in CASES}) == len(CASES) >= 150
    assert {case.kind for case in CASES} == {"recipe", "text", "command", "environment"}
    assert all(case.expects for case in CASES)


@pytest.mark.parametrize("case", QUICK, ids=lambda case: case.name)
def test_a_bad_input_is_reported_in_a_single_message(case, world: Path):
    done = run_case(case, world)
    assert verdict_of(case, done) == "ok", done.output


@pytest.mark.parametrize("case", COMPARED[2::16], ids=lambda case: case.name)
def test_data_check_and_train_report_the_same_problems(case, world: Path):
    assert compare_commands(case, world) == "ok"


@pytest.mark.slow
def test_data_check_and_train_report_the_same_problems_of_all_recipes():
    number, different = compare_all()
    assert number > 200
    assert not different


def test_the_recipe_of_all_cases_trains(world: Path):
    case = recipe("good", "", "1 step done in", code=0, late=True)
    done = run_case(case, world)
    assert verdict_of(case, done) == "ok", done.output


@pytest.mark.slow
def test_every_bad_input_is_reported_in_a_single_message():
    rows, failures = run_all()
    assert not failures, table(rows)

"""The pairs of the study: what each condition changes, and that held-out pairs stay right."""

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
from support.ledgers import write_ledger
from unidpo_mm_quickstart.study import StudyTuningRunner
from unidpo_mm_quickstart.study_images import FILES, StudyImagesRunner, write_conditions
from unidpo_mm_quickstart.study_rows import CONDITIONS, HELD_OUT, UNSURE_MARGIN, write_study
from unidpo_mm_quickstart.training_rows import DemoData, write_jsonl
from unidpo_mm_quickstart.wrong_labels import figures_of, wrong_rows

from unidpo_mm.config.shipped import shipped_recipe
from unidpo_mm.ledger.tables import read_ledger
from unidpo_mm.sweep.plan import read_sweep
from unidpo_mm.sweep.runner import load_runner

Rows = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Rows]:
    folder = tmp_path_factory.mktemp("study")
    write_study(folder, seed=0, split="heldout")
    return {path.stem: read(path) for path in folder.glob("*.jsonl")}


def read(path: Path) -> Rows:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert len({row["id"] for row in rows}) == len(rows)
    return {row["id"]: row for row in rows}


def margin(row: dict[str, Any]) -> float:
    return row["score_chosen"] - row["score_rejected"]


def test_every_condition_has_as_many_pairs(files: dict[str, Rows]) -> None:
    assert files.keys() == {*CONDITIONS, HELD_OUT}
    assert {len(files[name]) for name in CONDITIONS} == {160}
    assert len(files[HELD_OUT]) == 240


@pytest.mark.parametrize("percent", [20, 40])
def test_wrong_labels_are_the_same_with_and_without_informed_scores(
    files: dict[str, Rows], percent: int
) -> None:
    clean = files["clean"]
    flipped = {}
    for kind in ("informed", "blind"):
        rows = files[f"flip{percent}_{kind}"]
        assert list(rows) == list(clean)  # also in the same order
        flipped[kind] = {name for name in rows if rows[name]["chosen"] != clean[name]["chosen"]}
        for name in flipped[kind]:
            assert rows[name]["chosen"] == clean[name]["rejected"]
            assert rows[name]["rejected"] == clean[name]["chosen"]
            wrong = margin(rows[name])
            expected = UNSURE_MARGIN if kind == "informed" else margin(clean[name])
            assert wrong == pytest.approx(expected)
        untouched = rows.keys() - flipped[kind]
        assert all(rows[name] == clean[name] for name in untouched)
    assert flipped["informed"] == flipped["blind"]
    assert len(flipped["informed"]) == 160 * percent // 100


def test_the_ledger_tells_what_wrong_labels_weighed(tmp_path: Path) -> None:
    write_study(tmp_path, seed=0, split="validation")
    right = tmp_path / "clean.jsonl"
    wrong = wrong_rows(tmp_path / "flip20_informed.jsonl", right)
    assert len(wrong) == 32
    assert wrong_rows(right, right) == wrong_rows(tmp_path / "uniform.jsonl", right) == set()

    write_ledger(tmp_path, [f"r{n}" for n in range(10)])
    rows = {f"r{n}" for n in range(3)}
    visits = read_ledger(tmp_path).visits.collect()
    is_wrong = [name in rows for name in visits["row_id"]]
    figures = figures_of(tmp_path, rows)
    contribution = visits["contribution"] * visits["weight"]
    of_wrong = sum(value for value, bad in zip(contribution, is_wrong, strict=True) if bad)
    assert figures["wrong/contribution"] == pytest.approx(of_wrong / sum(contribution))
    values = {bad: [] for bad in (True, False)}
    for bad, value in zip(is_wrong, visits["w_perf"], strict=True):
        values[bad].append(value)
    expected = mean(values[True]) - mean(values[False])
    assert figures["wrong/w_perf"] == pytest.approx(expected)
    assert figures_of(tmp_path, set()) == {}


def test_wrong_labels_of_captions(tmp_path: Path) -> None:
    data = DemoData(folder=tmp_path, train=(), test=())
    rows = [{"id": f"r{n}", "chosen": f"{n} right", "rejected": f"{n} wrong"} for n in range(50)]
    scored = [{**row, "score_chosen": 9.5, "score_rejected": 4.0} for row in rows]
    write_jsonl(data.file("multimodal"), scored)
    write_conditions(data, seed=0)
    wrong = {name: wrong_rows(data.file(name), data.file("multimodal")) for name in FILES}
    assert wrong["flip40_informed"] == wrong["flip40_blind"]
    assert len(wrong["flip40_blind"]) == 20
    for name, informed in FILES.items():
        for row in read(data.file(name)).values():
            unsure = informed and row["id"] in wrong[name]
            assert margin(row) == pytest.approx(UNSURE_MARGIN if unsure else 5.5)


def test_a_larger_share_of_wrong_labels_contains_the_smaller_one(files: dict[str, Rows]) -> None:
    clean = files["clean"]
    smaller, larger = (
        {name for name, row in files[f"flip{p}_blind"].items() if row != clean[name]}
        for p in (20, 40)
    )
    assert smaller < larger


def test_repeated_pairs_are_three_quarters_of_duplicated(files: dict[str, Rows]) -> None:
    rows = files["duplicated"].values()
    texts = [(row["prompt"][0]["content"][0]["text"], row["rejected"]) for row in rows]
    easy = [text for text, row in zip(texts, rows, strict=True) if row["domain"] == "text"]
    hard = [text for text, row in zip(texts, rows, strict=True) if row["domain"] == "math"]
    assert (len(easy), len(set(easy))) == (120, 8)
    assert len(hard) == len(set(hard)) == 40


def test_uniform_pairs_have_one_margin(files: dict[str, Rows]) -> None:
    assert {margin(row) for row in files["uniform"].values()} == {7.0}
    assert {row["domain"] for row in files["uniform"].values()} == {"math"}


def test_held_out_prompts_occur_in_no_condition(files: dict[str, Rows]) -> None:
    def prompts(rows: Rows) -> set[str]:
        return {row["prompt"][0]["content"][0]["text"] for row in rows.values()}

    for name in CONDITIONS:
        assert not prompts(files[name]) & prompts(files[HELD_OUT])
    assert all(margin(row) > 0 for row in files[HELD_OUT].values())


def test_another_seed_has_other_pairs_and_the_same_seed_the_same(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_study(tmp_path / name, seed=seed, split="validation")
    for condition in CONDITIONS:
        a, b, c = ((tmp_path / name / f"{condition}.jsonl").read_bytes() for name in "abc")
        assert a == b != c


@pytest.mark.parametrize(
    ("name", "runner", "files", "arms"),
    [
        ("text_tuning", StudyTuningRunner, CONDITIONS, 48),
        ("text_tuning_rate", StudyTuningRunner, CONDITIONS, 36),
        ("images", StudyImagesRunner, ("multimodal", *FILES), 18),
    ],
)
def test_the_sweeps_of_the_study_use_its_runners_and_conditions(
    name: str, runner: type, files: Sequence[str], arms: int
) -> None:
    sweep = read_sweep(shipped_recipe(f"studies/{name}.yaml"))
    assert type(load_runner(sweep.runner)) is runner
    assert len(sweep.arms) == arms
    assert len(sweep.seeds) >= 3
    for overrides in sweep.arms.values():
        (data,) = (item for item in overrides if item.startswith("data.sources="))
        assert data.split("$DATA/")[1].split(".jsonl")[0] in files

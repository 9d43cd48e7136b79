"""The results of `unidpo-mm data check` equal numbers counted by hand, on screen and in files."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import make_image
from support.commands import run_command as run

from unidpo_mm import UniDPOConfig
from unidpo_mm.check import CheckOptions, check_data
from unidpo_mm.check.numbers import (
    effective_share,
    histogram,
    optional_summary,
    spearman,
    summarize,
)
from unidpo_mm.check.page import page
from unidpo_mm.config import ScoreOptions, SourceOptions
from unidpo_mm.data.load import DataFiles

Checkpoint = Callable[[str], Path]


def write(folder: Path, name: str, records: list[dict[str, Any]]) -> str:
    path = folder / name
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def pair(question: str, chosen: str, rejected: str, **fields: Any) -> dict[str, Any]:
    return {"prompt": question, "chosen": chosen, "rejected": rejected, **fields}


def scored(question: str, chosen: str, rejected: str, better: float, worse: float, **fields: Any):
    return pair(question, chosen, rejected, score_chosen=better, score_rejected=worse, **fields)


def run_options(**options: Any) -> UniDPOConfig:
    return UniDPOConfig(output_dir="unused", report_to="none", **options)


@pytest.fixture
def rows(tmp_path: Path) -> list[dict[str, Any]]:
    for number in (1, 2, 3):
        make_image(number).save(tmp_path / f"{number}.png")
    make_image(1).save(tmp_path / "copy.png")
    return [
        scored("How many?", "two", "three", 4, 1, images=["1.png"]),
        scored("How many?", "two", "a lot", 5, 2, images=["copy.png"]),  # the same image
        scored("How many?", "one", "seven", 3, 3, images=["2.png"]),
        scored("What is 2 + 2?", "4", "five", 5, 0, domain="math"),
        scored("What is 2 + 2?", "4", "five", 5, 0, domain="math"),  # there twice
        scored("Why?", "so", "because it is", 1, 4),
    ]


def test_rows_prompts_pairs_and_images_are_counted(
    tmp_path: Path, rows: list[dict[str, Any]]
) -> None:
    report = check_data(
        DataFiles(sources=[SourceOptions(path=write(tmp_path, "rows.jsonl", rows))])
    )
    assert not report.problems
    assert (report.rows, report.pairs, report.responses) == (6, 6, 12)
    assert report.prompts == 4  # equal images in two files are one
    assert report.pairs_per_prompt == {1: 2, 2: 2}
    assert report.domains == {"multimodal": 3, "math": 2, "text": 1}
    assert report.images.distinct == 3 - 1
    assert report.images.per_row == {0: 3, 1: 3}
    assert report.images.formats == {"PNG": 2}
    assert report.overlap.duplicates == 1
    assert report.overlap.first_duplicates[0][0].endswith("row 5")
    (source,) = report.sources
    assert (source.records, source.rows, dict(source.formats)) == (6, 6, {"pairs": 6})


def test_scores_and_first_weights_are_those_of_the_formula(
    tmp_path: Path, rows: list[dict[str, Any]]
) -> None:
    source = SourceOptions(
        path=write(tmp_path, "rows.jsonl", rows), scores=ScoreOptions(scale=(0.0, 5.0))
    )
    report = check_data(
        DataFiles(sources=[source]),
        CheckOptions(args=run_options(score_scale=(0.0, 10.0)), any_loss=True),
    )
    (scores,) = report.scores
    margins = torch.tensor([6.0, 6.0, 0.0, 10.0, 10.0, -6.0], dtype=torch.float64)
    weights = torch.sigmoid(0.7 * margins)
    assert scores.w_qual.mean == pytest.approx(float(weights.mean()))
    share = float(weights.sum() ** 2 / (6 * (weights**2).sum()))
    assert scores.effective_share == pytest.approx(share)
    assert (scores.misordered, scores.ties) == pytest.approx((1 / 6, 1 / 6))
    assert scores.tau_good == 9.0  # of 8, 10, 6, 10, 10, 2
    assert scores.good == pytest.approx(3 / 6)
    assert sum(scores.margins.counts) == sum(scores.quality.counts) == 6
    assert sum(scores.scores.counts) == 12
    assert any("higher score on the rejected response" in text for text in report.warnings)


def test_lengths_report_how_often_the_longer_response_is_chosen(tmp_path: Path) -> None:
    records = [
        scored(f"Question {n}", "a long answer " * (n + 1), "short", n + 2, 1) for n in range(8)
    ]
    report = check_data(
        DataFiles(sources=[SourceOptions(path=write(tmp_path, "rows.jsonl", records))])
    )
    assert report.lengths is not None
    assert report.lengths.unit == "characters"
    assert report.lengths.chosen_longer == 1.0
    assert report.lengths.margin_correlation == pytest.approx(1.0)
    assert any("the longer response is chosen in 100 %" in text for text in report.warnings)
    plain = sum(2 * 10 + len("a long answer " * (n + 1)) + 5 for n in range(8))
    assert report.lengths.sharing == pytest.approx(plain / (plain - 8 * 10))


def test_held_out_rows_that_are_trained_on_are_reported(
    tmp_path: Path, rows: list[dict[str, Any]]
) -> None:
    held_out = [
        scored("What is  2 + 2?", "4", "six", 5, 1),  # but for a blank
        scored("Which colour?", "red", "blue", 5, 1, images=["copy.png"]),
        scored("How many?", "two", "nine", 5, 1, images=["3.png"]),  # another image
        scored("Where?", "here", "there", 5, 1),
    ]
    report = check_data(
        DataFiles(sources=[SourceOptions(path=write(tmp_path, "rows.jsonl", rows))]),
        held_out=DataFiles(sources=[SourceOptions(path=write(tmp_path, "held.jsonl", held_out))]),
    )
    assert (report.overlap.shared_prompts, report.overlap.shared_images) == (1, 1)
    assert [where.split(" ")[-1] for where in report.overlap.first_shared] == ["1", "2"]
    assert any("1 held-out row shares a prompt" in text for text in report.warnings)


def test_with_a_model_lengths_are_tokens_and_pairs_have_first_weights(
    tmp_path: Path, rows: list[dict[str, Any]], checkpoint: Checkpoint
) -> None:
    source = SourceOptions(path=write(tmp_path, "rows.jsonl", rows))
    settings = CheckOptions(
        model=str(checkpoint("llava")),
        args=run_options(max_length=30, length_policy="drop"),
        any_loss=True,
    )
    report = check_data(DataFiles(sources=[source]), settings)
    assert report.lengths is not None
    assert report.weights is not None
    assert report.lengths.unit == "tokens"
    assert report.images.tokens is not None
    assert report.images.tokens.count == 3
    assert report.weights.pairs == 6 - (report.lengths.dropped or 0)
    assert sum(report.weights.gradient_share.values()) == pytest.approx(1)
    assert 0 < report.weights.w_perf.low <= report.weights.w_perf.high <= 1


# ---- thirty planted faults ----

FAULTS: list[tuple[str, dict[str, Any]]] = [
    ("prompt", {"prompt": ""}),
    ("prompt", {"prompt": 7}),
    ("prompt", {"prompt": []}),
    ("prompt", {"prompt": [{"role": "bot", "content": "x"}]}),
    ("prompt", {"prompt": [{"role": "user"}]}),
    ("prompt", {"prompt": [{"role": "user", "content": [{"type": "audio"}]}]}),
    ("chosen", {"chosen": ""}),
    ("chosen", {"chosen": 3}),
    ("chosen", {"chosen": [{"role": "user", "content": "x"}]}),
    ("rejected", {"rejected": "   "}),
    ("rejected", {"rejected": None}),
    ("rejected", {"rejected": ["x"]}),
    ("score_chosen", {"score_chosen": "9"}),
    ("score_chosen", {"score_chosen": None}),
    ("score_chosen", {"score_chosen": 11}),
    ("score_rejected", {"score_rejected": -1}),
    ("score_rejected", {"score_rejected": True}),
    ("score_rejected", {"score_rejected": float("nan")}),
    ("weight", {"weight": -0.5}),
    ("weight", {"weight": "1"}),
    ("domain", {"domain": "poetry"}),
    ("images", {"images": ["gone.png"]}),
    ("images", {"images": ["../outside.png"]}),
    ("images", {"images": ["https://example.org/p.png"]}),
    ("images", {"images": ["broken.png"]}),
    ("images", {"images": []}),
    ("images", {"images": [5]}),
    ("rejected_images", {"rejected_images": ["p.png"]}),
    ("videos", {"videos": ["gone.mp4"]}),
    ("tools", {"tools": "{"}),
]


@pytest.fixture(scope="module")
def quick_start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of the quick-start, with drawn images instead of downloaded ones."""
    from unidpo_mm_quickstart import training_rows
    from unidpo_mm_quickstart.exercises import math_tasks, text_tasks
    from unidpo_mm_quickstart.images import Canvas

    folder = tmp_path_factory.mktemp("quickstart")
    (folder / "images").mkdir()
    draw = random.Random(0)
    records = []
    for number in range(24):
        kinds = ("animal", "food") if number % 2 else ("animal",)
        file = folder / "images" / f"{number}.png"
        make_image(number, (56, 56)).save(file)
        canvas = Canvas(id=f"c{number}", file=file, kinds=kinds, concepts=kinds)
        records.append(training_rows.caption_pair(canvas, number, draw))
    records += map(training_rows.task_row, math_tasks("train", 24, seed=0))
    records += map(training_rows.task_row, text_tasks("train", 24, seed=0))
    write(folder, "rows.jsonl", records)
    (folder / "broken.png").write_bytes(b"no image")
    return folder


def test_the_data_of_the_quick_start_pass(quick_start: Path) -> None:
    source = SourceOptions(
        path=str(quick_start / "rows.jsonl"), scores=ScoreOptions(scale=(0.0, 10.0))
    )
    report = check_data(
        DataFiles(sources=[source]),
        CheckOptions(args=run_options(score_scale=(0.0, 5.0)), any_loss=True),
    )
    assert not report.problems
    assert report.rows == 72


def test_thirty_planted_faults_are_all_named(quick_start: Path) -> None:
    good = [json.loads(line) for line in (quick_start / "rows.jsonl").read_text().splitlines()]
    records = list(good)
    for number, (_, fault) in enumerate(FAULTS):
        base = good[number % 24]  # rows with images
        records[2 * number] = {**base, "id": f"fault {number}", **fault}
    path = write(quick_start, "faulty.jsonl", records)
    source = SourceOptions(path=path, scores=ScoreOptions(scale=(0.0, 10.0)))
    report = check_data(
        DataFiles(sources=[source]),
        CheckOptions(args=run_options(score_scale=(0.0, 5.0)), any_loss=True),
    )
    named = {problem.where for problem in report.problems}
    expected = {
        f"{path} row {2 * number + 1}, field '{name}'" for number, (name, _) in enumerate(FAULTS)
    }
    assert len(FAULTS) == 30
    assert expected <= named
    others = tuple(f"{path} row {n + 1}," for n in range(72) if n % 2 or n >= 60)
    assert not [where for where in named if where.startswith(others)]


# ---- what is written ----


def test_the_command_prints_tables_and_writes_json_and_a_page(
    tmp_path: Path, rows: list[dict[str, Any]]
) -> None:
    path = write(tmp_path, "rows.jsonl", rows)
    out, html = tmp_path / "r.json", tmp_path / "r.html"
    result = run("data", "check", path, "--scale", "0,5", "--json", str(out), "--html", str(html))
    assert result.exit_code == 0, result.output
    assert "No problems found." in result.output
    assert "2: 2 prompts" in result.output
    report = json.loads(out.read_text())
    assert report["rows"] == 6
    assert report["scores"][0]["source"] == "rows"
    text = html.read_text()
    assert text.count('<img src="data:image/jpeg;base64,') == 3
    assert "http" not in text.replace("http-equiv", "")  # nothing is fetched


def test_a_problem_ends_the_command_with_its_own_code(tmp_path: Path) -> None:
    path = write(tmp_path, "rows.jsonl", [pair("?", "a", "b"), pair("?", "a", "a")])
    result = run("data", "check", path)
    assert result.exit_code == 2
    assert "row 2, field 'chosen': chosen and rejected are the same response" in result.output


def test_data_check_uses_the_loss_of_a_recipe(
    tmp_path: Path, rows: list[dict[str, Any]], checkpoint: Checkpoint
) -> None:
    path = write(tmp_path, "rows.jsonl", rows)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"model: {{name_or_path: {checkpoint('llava')}}}\n"
        f"data: {{score_scale: [0, 1], sources: [{{path: {path}, scores: {{scale: [0, 5]}}}}]}}\n"
        "loss: {name: uni_dpo, eta: 7.0}\n"
    )
    out = tmp_path / "r.json"
    result = run("data", "check", str(recipe), "--json", str(out))
    assert result.exit_code == 0, result.output
    (scores,) = json.loads(out.read_text())["scores"]
    assert scores["eta"] == 7.0
    assert scores["chosen"]["high"] == 1.0


def test_nothing_of_a_row_becomes_a_tag_on_the_page(tmp_path: Path) -> None:
    record = pair("<script>alert(1)</script>", "<b>a</b>", "b", id="<i>")
    report = check_data(
        DataFiles(sources=[SourceOptions(path=write(tmp_path, "<rows>.jsonl", [record]))])
    )
    text = page(report, title="<title>")
    assert "<script>alert" not in text
    assert "<b>a</b>" not in text
    assert "&lt;script&gt;" in text


def test_rows_are_shown_as_the_model_sees_them(
    tmp_path: Path, rows: list[dict[str, Any]], checkpoint: Checkpoint
) -> None:
    path = write(tmp_path, "rows.jsonl", rows)
    result = run("data", "preview", path, "--model", str(checkpoint("llava")), "--limit", "1")
    assert result.exit_code == 0, result.output
    assert "image tokens]" in result.output
    assert "response 0, score 4: two" in result.output


def test_data_are_written_in_another_format(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    path = write(tmp_path, "rows.jsonl", rows)
    out = tmp_path / "trl.jsonl"
    result = run("data", "convert", path, "--output", str(out), "--to", "trl")
    assert result.exit_code == 0, result.output
    assert "6 lines from 6 rows" in result.output
    assert json.loads(out.read_text().splitlines()[0])["images"] == ["1.png"]


# ---- numbers ----


def test_summaries_and_shares() -> None:
    summary = summarize(list(range(101)))
    assert (summary.low, summary.p5, summary.median, summary.p95, summary.high) == (
        0,
        5,
        50,
        95,
        100,
    )
    assert optional_summary([]) is None
    assert effective_share(torch.tensor([1.0, 1.0, 0.0, 0.0])) == 0.5
    assert effective_share(torch.tensor([0.3, 0.3])) == pytest.approx(1)
    counts = histogram(torch.tensor([0.0, 0.5, 1.0])).counts
    assert (counts[0], counts[-1], sum(counts)) == (1, 1, 3)
    assert sum(histogram(torch.tensor([2.0, 2.0])).counts) == 2


def test_ranks_that_tie_share_their_mean() -> None:
    ranks = torch.tensor([1.0, 2.0, 2.0, 4.0])
    assert spearman(ranks, torch.tensor([1.0, 3.0, 3.0, 9.0])) == pytest.approx(1)
    assert spearman(ranks, -ranks) == pytest.approx(-1)
    assert spearman(ranks, torch.tensor([1.0, 1.0, 1.0, 1.0])) is None
    # by hand: ranks 1, 2.5, 2.5, 4 and 1, 2, 3, 4
    assert spearman(ranks, torch.tensor([1.0, 2.0, 3.0, 4.0])) == pytest.approx(4.5 / 22.5**0.5)


# ---- the verdict is that of a run ----


def verdict(folder: Path, model: Path, recipe: str) -> Any:
    path = folder / "recipe.yaml"
    path.write_text(f"model: {{name_or_path: {model}}}\ntrain: {{use_cpu: true}}\n{recipe}")
    return run("data", "check", str(path))


def test_a_recipe_whose_pairs_are_all_dropped_is_refused(
    tmp_path: Path, checkpoint: Checkpoint
) -> None:
    path = write(tmp_path, "rows.jsonl", [scored("?", "a", "b", 1, 3)])
    recipe = f"data: {{sources: [{{path: {path}, scores: {{misordered: drop}}}}]}}\n"
    result = verdict(tmp_path, checkpoint("llama"), recipe)
    assert result.exit_code == 2
    assert "there are no rows to train on" in result.output


def test_rows_that_may_be_skipped_for_their_images_are_not_a_problem(
    tmp_path: Path, checkpoint: Checkpoint
) -> None:
    make_image(1).save(tmp_path / "p.png")
    rows = [
        scored("?", "a", "b", 3, 1, images=["p.png"]),
        scored("!", "a", "b", 4, 1, images=["gone.png"]),
    ]
    path = write(tmp_path, "rows.jsonl", rows)
    report_text = {
        0: "1 row would be skipped because of images",
        2: "gone.png' does not exist",
    }
    for share, code in ((0.5, 0), (0.4, 2)):
        images = f"images: {{max_skipped_fraction: {share}}}"
        result = verdict(
            tmp_path, checkpoint("llava"), f"data: {{sources: [{{path: {path}}}], {images}}}\n"
        )
        assert result.exit_code == code, result.output
        assert report_text[code] in " ".join(result.output.split())


def test_held_out_rows_are_encoded_too(tmp_path: Path, checkpoint: Checkpoint) -> None:
    path = write(tmp_path, "rows.jsonl", [scored("?", "a", "b", 3, 1)])
    held = write(tmp_path, "held.jsonl", [scored("word " * 90, "a", "b", 3, 1)])
    model = str(checkpoint("llama"))
    result = run("data", "check", path, "--held-out", held, "--model", model, "--max-length", "40")
    assert result.exit_code == 2
    assert "held.jsonl row 1, field 'prompt': the prompt has" in result.output


def test_rows_that_all_are_too_long_are_counted(tmp_path: Path, checkpoint: Checkpoint) -> None:
    path = write(tmp_path, "rows.jsonl", [scored("word " * 90, "a", "b", 3, 1)])
    settings = CheckOptions(
        model=str(checkpoint("llama")),
        args=run_options(max_length=40, length_policy="drop"),
        any_loss=True,
    )
    report = check_data(DataFiles(sources=[SourceOptions(path=path)]), settings)
    assert "1 row would be dropped: longer than max_length" in report.warnings
    assert report.problems[-1].message == "every row is skipped (1 longer than max_length)"


def test_sources_without_scores_are_a_problem_only_if_the_loss_needs_them(tmp_path: Path) -> None:
    bare = write(tmp_path, "bare.jsonl", [pair("?", "a", "b")])
    good = write(tmp_path, "good.jsonl", [scored("!", "a", "b", 4, 1), scored("?", "c", "d", 5, 2)])
    result = run("data", "check", bare, good)
    assert result.exit_code == 0
    assert "source 'bare': there are no scores" in result.output
    assert "inf" not in result.output
    assert run("data", "check", bare, "--loss", "dpo").exit_code == 0
    result = run("data", "check", bare, "--loss", "uni_dpo")
    assert result.exit_code == 2
    assert "field 'score_chosen': the score is missing" in result.output


def test_pairs_that_contradict_each_other_are_reported(tmp_path: Path) -> None:
    rows = [scored("?", "a", "b", 4, 1), scored("?", "b", "a", 4, 1)]
    report = check_data(
        DataFiles(sources=[SourceOptions(path=write(tmp_path, "rows.jsonl", rows))])
    )
    assert (report.overlap.duplicates, report.overlap.contradictions) == (0, 2)
    assert any("2 pairs contradict another pair" in text for text in report.warnings)


@pytest.mark.parametrize(
    ("arguments", "report_text"),
    [
        (["recipe.yaml", "--scale", "0,1"], "cannot be combined with --scale"),
        (["recipe.yaml", "rows.jsonl"], "cannot be combined with other sources"),
        (["rows.jsonl", "--scale", "5"], "'5': expected LOW,HIGH"),
        (["rows.jsonl", "--column", "prompt"], "'prompt': expected NAME=COLUMN"),
        (["rows.jsonl", "--html", "no/such/page.html"], "does not exist"),
        (["rows.jsonl", "--json", "."], "is a directory"),
        ([""], "the name of a source is empty"),
    ],
)
def test_a_wrong_command_is_refused_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], report_text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "rows.jsonl", [pair("?", "a", "b")])
    (tmp_path / "recipe.yaml").write_text("model: {name_or_path: x}\ndata: {sources: []}\n")
    result = run("data", "check", *arguments)
    assert result.exit_code == 2
    assert report_text in " ".join(result.output.replace("│", " ").split())


def test_a_source_is_not_written_over(tmp_path: Path) -> None:
    path = write(tmp_path, "rows.jsonl", [pair("?", "a", "b")])
    result = run("data", "convert", path, "--output", path)
    assert result.exit_code == 2
    assert json.loads(Path(path).read_text())["chosen"] == "a"


def test_convert_reports_dropped_rows(tmp_path: Path) -> None:
    path = write(tmp_path, "rows.jsonl", [pair("?", "a", "b", judge="me")])
    result = run("data", "convert", path, "--output", str(tmp_path / "out.jsonl"))
    assert "unused columns: judge (1)" in result.output


def test_labeled_responses_are_counted_without_pairs(tmp_path: Path) -> None:
    records = [{"prompt": f"q{n}", "completion": "a", "label": bool(n % 2)} for n in range(4)]
    result = run("data", "check", write(tmp_path, "labels.jsonl", records))
    assert result.exit_code == 0, result.output
    assert "4 of single responses" in result.output
    assert "longer response chosen" not in result.output
    assert "no scores" not in result.output


def test_other_images_are_no_problem_without_a_recipe(tmp_path: Path) -> None:
    for name in ("p", "o"):
        make_image(len(name)).save(tmp_path / f"{name}.png")
    record = pair("What?", "this", "that", images=["p.png"], rejected_images=["o.png"])
    path = write(tmp_path, "rows.jsonl", [record])
    result = run("data", "check", path)
    assert result.exit_code == 0, result.output

"""Regressions in scoring."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.adversarial_responses import SETS, image_cell
from support.eval_commands import coco, question, run, score, score_rows, text_of
from unidpo_mm_eval.benchmarks import load_benchmark
from unidpo_mm_eval.results.result import read_result
from unidpo_mm_eval.scorers.clean import clean_option
from unidpo_mm_eval.scorers.math.simplerl import equal
from unidpo_mm_eval.stats.intervals import bootstrap
from unidpo_mm_eval.stats.metrics import mean_metrics

__all__ = ["coco"]  # a fixture


def result(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "result.json").read_text())


def test_open_questions_of_mmmu_become_options_and_dev_rows_do_not_count(tmp_path: Path) -> None:
    table = (
        "index\tquestion\tA\tB\tanswer\tsplit\n"
        "1\t?\t\t\t42\tvalidation\n2\t?\tcat\tdog\tB\tvalidation\n3\t?\tcat\tdog\tA\tdev\n"
    )
    done = score(tmp_path, table, {"1": "It is 42", "2": "A", "3": "A"}, "mmmu")
    assert done.exit_code == 0, text_of(done)
    metrics = result(tmp_path)["metrics"]
    assert (metrics["accuracy"], metrics["accuracy/split/dev"]) == (50.0, 100.0)


def test_captions_of_other_images_do_not_change_a_difference(coco: Path) -> None:
    paths = []
    for name, ids in (("a", (1, 2)), ("b", (2, 3))):
        responses, out = coco / f"{name}.jsonl", coco / f"{name}.json"
        lines = [{"id": key, "response": "A dog."} for key in ids]
        responses.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
        done = run(
            "score", "-b", "chair", "--data", coco, "--predictions", responses, "--output", out
        )
        assert "which are ignored: 1" in done.output
        paths.append(out)
    output = run("compare", *paths).output
    assert "0 of 1 better" in output  # the one image with a caption in both


def test_a_resample_without_a_group_is_skipped_for_its_metrics() -> None:
    rows = [
        (str(n), float(n % 3 > 0), {"category": "rare" if n < 2 else "usual"}) for n in range(50)
    ]
    rows[0] = ("0", 1.0, {"category": "rare"})
    rows += [("0", 1.0, {"category": "rare"})]  # so that no interval is Wilson's
    actual = bootstrap(mean_metrics("accuracy", rows), count=500)
    assert actual["accuracy/category/rare"].low == 100.0


def test_the_interval_of_a_sum_includes_rare_parts() -> None:
    made = load_benchmark("mme")
    from unidpo_mm_eval.data.samples import GradedSample

    rows = [
        GradedSample(id=f"{n}{k}", labels={"category": "OCR" if n == 0 else "count"}, score=1.0,
                     cluster=str(n))
        for n in range(20) for k in range(2)
    ]  # fmt: skip
    rows[-1] = GradedSample(id="x", labels={"category": "count"}, score=0.0, cluster="19")
    actual = bootstrap(made.scorers["vlmevalkit"].metrics(rows), count=500)
    assert actual["score/OCR"].low == 200.0
    assert actual["total"].low > 350


def test_a_perfect_score_has_an_interval_below_100_percent() -> None:
    actual = bootstrap(mean_metrics("accuracy", [(str(n), 1.0, {}) for n in range(10)]))
    assert actual["accuracy"].low == pytest.approx(72.25, abs=0.01)  # Wilson's
    assert actual["accuracy"].high == pytest.approx(100.0)


@pytest.mark.parametrize(
    ("responses", "gold", "right"),
    [("10001", "10000", False), ("10000.0", "10000", True), ("0.33334", "0.33333", True)],
)
def test_integers_are_compared_exactly(responses: str, gold: str, right: bool) -> None:
    assert equal(responses, gold) is right


def test_dollar_signs_inside_an_answer_are_removed(tmp_path: Path) -> None:
    (tmp_path / "test.jsonl").write_text('{"question": "?", "answer": "$2$ or $3$"}\n')
    (sample,) = load_benchmark("collegemath").read(tmp_path, False).samples
    assert sample.answers == ("2 or 3",)


def test_questions_without_a_figure_are_skipped_and_counted(tmp_path: Path) -> None:
    row = {"category": "VS", "subcategory": "ocr", "visual_input": "1", "set_id": "0",
           "figure_id": "1", "question_id": "0", "question": "?", "gt_answer": "1"}  # fmt: skip
    rows = [row, row | {"visual_input": "0", "figure_id": "0"}]
    file = tmp_path / "HallusionBench.json"
    file.write_text(json.dumps(rows))
    actual = load_benchmark("hallusionbench").read(file, False)
    assert (len(actual.samples), actual.dropped) == (1, ("0_VS_ocr_0_0_0",))
    assert actual.notes == ("skipped 1 rows without an image",)


def test_missing_circular_copies_are_reported(tmp_path: Path) -> None:
    table = "index\tquestion\tA\tB\tanswer\n1\tWhich?\tcat\tdog\tA\n"
    output = " ".join(score(tmp_path, table, {"1": "A"}, "mmbench").output.split())
    assert "questions without a copy per option: 1; there is no circular" in output
    assert "the headline is vanilla_accuracy_base" in output
    assert "row 1 has 1 for 2 options" in output
    result = read_result(tmp_path / "result.json")
    assert result.headline == "vanilla_accuracy_base"
    assert result.metrics["vanilla_accuracy_base"] == 100.0
    assert "accuracy" not in result.metrics
    done = run("report", tmp_path / "result.json", "--suite", "paper_multimodal")
    assert "mmbench vanilla_accuracy_base" in " ".join(done.output.split())
    assert "63.8" not in done.output  # the published circular accuracy
    table += "2\tWhich?\tcat\tdog\tB\n1000002\tWhich?\tdog\tcat\tA\n"
    output = score(tmp_path, table, {"1": "A", "2": "B", "1000002": "A"}, "mmbench").output
    assert "they count as wrong in the circular accuracy" in " ".join(output.split())
    result = read_result(tmp_path / "result.json")
    assert (result.headline, result.metrics["accuracy"]) == ("accuracy", 50.0)
    assert result.metrics["vanilla_accuracy_base"] == 100.0


@pytest.mark.parametrize("response", ["inf", "1e400", "nan", "-inf"])
def test_a_response_that_is_not_a_finite_number_is_unparsed(tmp_path: Path, response: str) -> None:
    actual = score_rows(
        tmp_path, "mathvista", [question(1, "integer", "3")], [response], "official"
    )
    assert actual["metrics"]["unparsed_rate"] == 100.0


def test_an_unpaired_surrogate_is_reported_and_no_partial_file_remains(tmp_path: Path) -> None:
    table = "index\tquestion\tA\tanswer\n1\t?\tcat\tA\n"
    responses = text_of(score(tmp_path, table, '{"id": 1, "response": "A \\ud83d"}\n'))
    assert (
        "row 1, field 'response': the text contains an unpaired surrogate at position 2"
        in responses
    )
    assert not list(tmp_path.glob("result.json*"))


@pytest.mark.parametrize(
    ("benchmark", "category", "actual"),
    [
        ("amber", "Discriminative-Relation", "got 'Discriminative-Relation'"),
        ("pope", ",", "got ','"),
    ],
)
def test_unknown_categories_are_reported(
    tmp_path: Path, benchmark: str, category: str, actual: str
) -> None:
    table = f"index\tquestion\tanswer\tcategory\n1\t?\tYes\t{category}\n"
    assert actual in text_of(score(tmp_path, table, {"1": "Yes"}, benchmark))


def test_binary_files_are_reported(tmp_path: Path) -> None:
    (tmp_path / "OCR").mkdir()
    (tmp_path / "OCR" / "1.txt").write_bytes("Is it \xe9?\tYes\n".encode("latin-1"))
    responses = tmp_path / "mine.jsonl"
    responses.write_text('{"id": 1, "response": "Yes"}\n')
    output = text_of(run("score", "-b", "mme", "--data", tmp_path, "--predictions", responses))
    assert "1.txt: the file is not valid UTF-8" in output


def test_the_name_option_overrides_the_file_name(tmp_path: Path) -> None:
    table = "index\tquestion\tA\tB\tanswer\n1\t?\tcat\tdog\tA\n"
    score(tmp_path, table, {"1": "A"}, name="tuned")
    assert read_result(tmp_path / "result.json").name == "tuned"


def test_compare_refuses_data_of_other_results(tmp_path: Path) -> None:
    data, responses = SETS["ai2d"]().write(tmp_path)
    out, other = tmp_path / "r.json", tmp_path / "other.tsv"
    run("score", "-b", "ai2d", "--data", data, "--predictions", responses, "--output", out)
    other.write_text(f"index\tquestion\timage\tA\tanswer\n1\t?\t{image_cell(1)}\tcat\tA\n")
    words = ("compare", out, out, "--data", other, "--html", tmp_path / "page.html")
    assert "not the file on which the results were scored" in text_of(run(*words))
    assert "unknown for these scores" in run("compare", out, out).output


def test_all_official_files_of_pope_are_read(tmp_path: Path) -> None:
    row = {"question_id": 1, "image": "1.jpg", "text": "?", "label": "yes"}
    for split in ("random", "popular", "adversarial"):
        (tmp_path / f"coco_pope_{split}.json").write_text(json.dumps(row) + "\n")
    output = " ".join(
        run("data", "check", "--suite", "hallucination", "--data", tmp_path).output.split()
    )
    assert "pope: 3 rows; the complete file has" in output


def test_an_announced_letter_has_priority_over_later_letters() -> None:
    options = {"A": "cat", "B": "dog"}
    assert clean_option("Answer: B because A is wrong", options).letter == "B"

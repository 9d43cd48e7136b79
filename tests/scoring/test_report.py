"""Reports over several benchmarks, parts of data, and the data check."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support.adversarial_responses import SETS, red_image
from support.eval_commands import run, text_of
from unidpo_mm_eval.benchmarks import load_benchmark
from unidpo_mm_eval.data.dataset import draw_clusters
from unidpo_mm_eval.data.tables import list_cell
from unidpo_mm_eval.suites import load_suite, suite_names

NAMES = ("pope", "ocrbench", "chartqa")


def scored(folder: Path, name: str, model: str, right: int, protocol: str = "vlmevalkit") -> Path:
    """Score a set of which every `right`-th response is correct."""
    made = SETS[name]()
    place = folder / name
    place.mkdir(exist_ok=True)
    data, _ = made.write(place)
    replies, result = place / f"{model}.jsonl", place / f"{model}-{protocol}.json"
    lines = []
    for row in made.rows:
        key = row["index"]
        gold = (list_cell(row["answer"]) or [row["answer"]])[0]
        text = gold if int(key) % right == 0 else made.responses[key]
        lines.append(json.dumps({"id": key, "response": text}) + "\n")
    replies.write_text("".join(lines), encoding="utf-8")
    words = ("-b", name, "--data", data, "--predictions", replies, "--protocol", protocol)
    done = run("score", *words, "--output", result)
    assert done.exit_code == 0, text_of(done)
    return result


@pytest.fixture
def results(tmp_path: Path) -> dict[str, list[Path]]:
    return {
        model: [scored(tmp_path, name, model, right) for name in NAMES]
        for model, right in (("base", 1000), ("tuned", 2))
    }


def test_a_report_puts_checkpoints_beside_published_values(
    results: dict[str, list[Path]], tmp_path: Path
) -> None:
    outputs = {name: tmp_path / f"report.{name}" for name in ("md", "csv", "html", "json")}
    done = run(
        "report", *results["base"], *results["tuned"], "--suite", "paper_multimodal",
        "--markdown", outputs["md"], "--csv", outputs["csv"], "--html", outputs["html"],
        "--json", outputs["json"],
    )  # fmt: skip
    assert done.exit_code == 0, text_of(done)
    text = outputs["md"].read_text()
    head = text.splitlines()[2]
    numbers = json.loads(outputs["json"].read_text())
    (cell,) = [item for item in numbers["rows"][1]["cells"] if item["benchmark"] == "pope"]
    assert cell["difference"] == cell["value"] - numbers["rows"][0]["cells"][2]["value"]
    assert cell["interval"]["low"] < cell["value"] < cell["interval"]["high"]
    assert [row["published"] for row in numbers["rows"][:2]] == [False, False]
    assert head == "|  | ocrbench score | chartqa relaxed_accuracy | pope f1 |"  # the suite's order
    assert "Uni-DPO, as published (Qwen2-VL-2B) | 709.0 | 13.8 | 86.0 |" in text
    assert "the published value is presumably F1" in text
    assert "without a result: textvqa" in text
    assert text.count("against the first, corrected p = ") == 3
    lines = outputs["csv"].read_text().splitlines()
    assert len(lines) == 1 + 3 * 3
    values = {line.split(",")[3]: line for line in lines if line.startswith("ocrbench")}
    stored = json.loads(results["tuned"][1].read_text())["metrics"]["score"]
    assert f",{stored}," in values["tuned"]
    assert "<script" not in outputs["html"].read_text()


def test_p_values_are_corrected_over_all_benchmarks(results: dict[str, list[Path]]) -> None:
    from unidpo_mm_eval.results.result import read_result
    from unidpo_mm_eval.results.summary import summarize
    from unidpo_mm_eval.stats.paired import holm

    actual = summarize(
        [read_result(item) for item in results["base"] + results["tuned"]], count=200
    )
    cells = [cell for cell in actual.rows[1].cells.values() if cell.contrast]
    assert len(cells) == 3
    raw = [cell.contrast.paired.p for cell in cells if cell.contrast]
    assert [cell.p_corrected for cell in cells] == pytest.approx(holm(raw))


def test_results_that_do_not_fit_a_report_are_refused(
    results: dict[str, list[Path]], tmp_path: Path
) -> None:
    lmms = scored(tmp_path, "pope", "base", 1000, "lmms")
    replies = text_of(run("report", *results["base"], lmms, "--suite", "paper_multimodal"))
    assert "scored by lmms@2, but the suite's protocol is vlmevalkit" in replies
    assert "not a benchmark of the suite 'paper_math'" in text_of(
        run("report", *results["base"], "--suite", "paper_math")
    )
    assert "got 2 results of 'base' by vlmevalkit@1" in text_of(
        run("report", *results["base"], results["base"][0])
    )
    changed = json.loads(results["tuned"][0].read_text())
    changed["data"]["sha256"] = "0" * 64
    results["tuned"][0].write_text(json.dumps(changed))
    assert "were scored on different data" in text_of(
        run("report", results["base"][0], results["tuned"][0])
    )


def test_two_protocols_have_separate_columns(
    results: dict[str, list[Path]], tmp_path: Path
) -> None:
    lmms = scored(tmp_path, "pope", "base", 1000, "lmms")
    output = run("report", results["base"][0], lmms).output
    assert "pope (vlmevalkit@1), base" in output
    assert "pope (lmms@2), base" in output


@pytest.mark.parametrize("name", suite_names())
def test_every_suite_names_benchmarks_that_have_its_rules(name: str) -> None:
    from unidpo_mm_eval.protocols import load_protocol

    suite = load_suite(name)
    family = load_protocol(suite.protocol).scoring
    assert all(family in load_benchmark(item).scorers for item in suite.benchmarks)
    for row in suite.published:
        assert set(row.values) <= set(suite.benchmarks)


def test_an_average_is_that_of_rounded_values(tmp_path: Path) -> None:
    suite = load_suite("paper_math")
    results = []
    for number, name in enumerate(suite.benchmarks):
        place = tmp_path / name
        place.mkdir()
        gold = {"answer": "2", "final_answer": ["2"], "solution": r"\boxed{2}"}
        rows = [{"question": "?", "id": str(n), **gold} for n in range(3)]
        replies = [{"id": str(n), "response": str(2 + (n < number % 3))} for n in range(3)]
        for file, content in (("test.jsonl", rows), ("model.jsonl", replies)):
            (place / file).write_text("".join(f"{json.dumps(item)}\n" for item in content))
        results.append(place / "result.json")
        done = run(
            "score", "-b", name, "--data", place, "--predictions", place / "model.jsonl",
            "--protocol", "official-simplerl", "--output", results[-1],
        )  # fmt: skip
        assert done.exit_code == 0, text_of(done)
    text = tmp_path / "report.md"
    run("report", *results, "--suite", "paper_math", "--markdown", text)
    shares = [100.0, 66.7, 33.3] * 2 + [100.0, 66.7]
    assert f"{sum(shares) / 8:.2f} |" in text.read_text()


@pytest.mark.parametrize("name", ["mme", "mmbench", "hallusionbench"])
def test_a_part_of_the_data_keeps_clusters_complete(name: str, tmp_path: Path) -> None:
    data, _ = SETS[name]().write(tmp_path)
    full = load_benchmark(name).read(data, False)
    part = draw_clusters(full, 5)
    kept = {sample.cluster for sample in part.samples}
    assert len(kept) == 5
    assert [item for item in full.samples if item.cluster in kept] == list(part.samples)
    assert draw_clusters(full, 5).samples == part.samples != draw_clusters(full, 5, seed=1).samples
    assert part.sha256 != full.sha256
    assert draw_clusters(full, 10_000) is full


def test_a_part_is_never_compared_with_the_full_data(tmp_path: Path) -> None:
    data, replies = SETS["ai2d"]().write(tmp_path)
    words = ("score", "-b", "ai2d", "--data", data, "--predictions", replies)
    full, part = tmp_path / "whole.json", tmp_path / "part.json"
    run(*words, "--output", full)
    done = run(*words, "--output", part, "--limit", 10)
    assert "10 of 44 clusters (seed 0): not comparable with the full data" in done.output
    assert "without a sample" not in done.output
    assert "its data is" in text_of(run("compare", full, part))


# ---- what is there ----


def check(*words: Any) -> Any:
    return run("data", "check", *words)


def test_existing_data_are_listed_with_missing_parts(tmp_path: Path) -> None:
    SETS["mmbench"]().write(tmp_path)
    (tmp_path / "data.tsv").rename(tmp_path / "MMBench_DEV_EN.tsv")
    done = check("--suite", "paper_multimodal", "--data", tmp_path)
    assert done.exit_code == 1
    flat = " ".join(done.output.split())
    assert "no file POPE.tsv or coco_pope*.json* for POPE. Save it there as POPE.tsv" in flat
    assert "mmbench: 149 rows; the complete file has 4329" in flat
    assert "mmbench: 40 questions; the complete file has 1164" in flat
    assert "mmbench, l2-category: group 0 74, group 1 75" in flat


def test_images_are_opened_and_references_counted(tmp_path: Path) -> None:
    table = tmp_path / "AI2D_TEST.tsv"
    head = "index\tquestion\timage\tA\tanswer\n"
    broken = base64.b64encode(b"no image " * 9).decode("ascii")
    rows = f"1\t?\t{red_image(1)}\ta\tA\n2\t?\t1\ta\tA\n3\t?\t{red_image(2)}\ta\tA\n"
    table.write_text(head + rows, encoding="utf-8")
    done = check("-b", "ai2d", "--data", table)
    assert done.exit_code == 0, done.output
    assert "2 (1 references)" in done.output
    table.write_text(f"{head}{rows}4\t?\t{broken}\ta\tA\n", encoding="utf-8")
    done = check("-b", "ai2d", "--data", table)
    assert done.exit_code == 1
    assert "AI2D_TEST.tsv row 4: " in " ".join(done.output.split())
    assert check("-b", "ai2d", "--data", table, "--no-open-images").exit_code == 0


def test_image_files_are_searched_in_their_directory(tmp_path: Path) -> None:
    lines = [OFFICIAL, OFFICIAL | {"question_id": 2, "image": "COCO_2.jpg"}]
    data = tmp_path / "coco_pope_random.json"
    data.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    done = check("-b", "pope", "--data", data)
    assert done.exit_code == 0  # scoring needs none
    assert "none of the 2 images is in" in " ".join(done.output.split())
    printed = tmp_path / "val2014"
    printed.mkdir()
    Image.new("RGB", (4, 4)).save(printed / "COCO_1.jpg")
    done = check("-b", "pope", "--data", data, "--images", printed)
    assert done.exit_code == 1
    assert "row 2: the image" in " ".join(done.output.split())


def test_broken_data_are_reported_per_row(tmp_path: Path) -> None:
    table = tmp_path / "AI2D_TEST.tsv"
    table.write_text("index\tquestion\tA\tanswer\n1\t?\ta\tA\n1\t?\ta\tQ\n", encoding="utf-8")
    done = check("-b", "ai2d", "--data", table)
    assert done.exit_code == 1
    flat = " ".join(done.output.split())
    assert "row 2: duplicate id '1', already used by" in flat
    assert "the answer is 'Q' but the options are A" in flat
    assert "does not exist" in check("-b", "ai2d", "--data", tmp_path / "none").output
    assert check("--data", tmp_path).exit_code == 2


MME_IDS = ["OCR/0001/1", "OCR/0001/2", "count/0001/1", "count/0001/2"]
OFFICIAL = {"question_id": 1, "image": "COCO_1.jpg", "text": "Is there a dog?", "label": "yes"}


def test_official_files_are_read(tmp_path: Path) -> None:
    pope = tmp_path / "pope"
    pope.mkdir()
    for split in ("random", "popular", "adversarial"):
        line = json.dumps(OFFICIAL)
        (pope / f"coco_pope_{split}.json").write_text(f"{line}\n", encoding="utf-8")
    samples = load_benchmark("pope").read(pope, False).samples
    assert [item.id for item in samples] == ["adversarial/1", "popular/1", "random/1"]
    assert {item.cluster for item in samples} == {"COCO_1.jpg"}
    alone = load_benchmark("pope").read(pope / "coco_pope_random.json", False).samples
    assert [item.id for item in alone] == ["1"]

    mme = tmp_path / "mme"
    (mme / "OCR").mkdir(parents=True)
    (mme / "count" / "questions_answers_YN").mkdir(parents=True)
    text = "Is it? Please answer yes or no.\tYes\nIs it not?\tNo\n"
    (mme / "OCR" / "0001.txt").write_text(text)
    (mme / "count" / "questions_answers_YN" / "0001.txt").write_text(text)
    actual = load_benchmark("mme").read(mme, False).samples
    assert [item.id for item in actual] == MME_IDS

    hallusion = tmp_path / "HallusionBench.json"
    place = {"category": "VD", "subcategory": "ocr", "visual_input": "1", "set_id": "0"}
    row = {**place, "figure_id": "1", "question_id": "2", "question": "?", "gt_answer": "1"}
    hallusion.write_text(json.dumps([row]))
    (item,) = load_benchmark("hallusionbench").read(hallusion, False).samples
    assert (item.answers, item.cluster) == (("Yes",), "VD/ocr/0")

    amber = tmp_path / "amber" / "query"
    amber.mkdir(parents=True)
    query = {"id": 1005, "image": "AMBER_1.jpg", "query": "Is the sky sunny?"}
    (amber / "query_discriminative.json").write_text(json.dumps([query]))
    truth = {"id": 1005, "type": "discriminative-attribute-state", "truth": "no"}
    (tmp_path / "amber" / "annotations.json").write_text(json.dumps([truth]))
    (item,) = load_benchmark("amber").read(tmp_path / "amber", False).samples
    assert (item.id, item.answers, item.labels["dimension"]) == ("1005", ("No",), "Attribute")


@pytest.mark.parametrize("ending", [".jsonl", ".json", ".parquet"])
def test_the_columns_of_a_table_are_read_from_other_files(tmp_path: Path, ending: str) -> None:
    from datasets import Dataset

    made = SETS["textvqa"]()
    data, replies = made.write(tmp_path)
    other = tmp_path / f"data{ending}"
    rows = [row | {"answer": eval(row["answer"])} for row in made.rows]  # lists as they are
    if ending == ".parquet":
        Dataset.from_list(rows).to_parquet(other)
    elif ending == ".json":
        other.write_text(json.dumps(rows), encoding="utf-8")
    else:
        other.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    metrics = []
    for file in (data, other):
        out = tmp_path / "result.json"
        done = run(
            "score", "-b", "textvqa", "--data", file, "--predictions", replies, "--output", out
        )
        assert done.exit_code == 0, text_of(done)
        metrics.append(json.loads(out.read_text())["metrics"])
    assert metrics[0] == metrics[1]

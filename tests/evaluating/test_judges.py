"""Judges: strict verdicts, kinds of failures, both orders, cached replies, a local judge."""

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from support.eval_commands import run, text_of
from support.small_benchmarks import image_base64, option_table, varied_checkpoint
from support.stub_server import prompt_text, server
from unidpo_mm_eval.judge.verdicts import choice, first_line_numbers, fractions, rating
from unidpo_mm_eval.results.result import read_result

from unidpo_mm.inference import endpoint as client_module
from unidpo_mm.inference.endpoint import ChatFailure


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr(client_module, "MAX_WAIT", 0.001)


def table(folder: Path, rows: Sequence[Mapping[str, str]]) -> Path:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), delimiter="\t")
    writer.writeheader()
    writer.writerows(rows)
    path = folder / "data.tsv"
    path.write_text(text.getvalue(), encoding="utf-8")
    return path


def response_file(folder: Path, responses: Mapping[str, str], name: str = "mine") -> Path:
    path = folder / f"{name}.jsonl"
    lines = [json.dumps({"id": key, "response": text}) for key, text in responses.items()]
    path.write_text("\n".join(lines) + "\n")
    return path


def judged(
    benchmark: str, data: Path, predictions: Path, url: str, *options: Any, model: str = "J"
) -> Any:
    out = predictions.with_suffix(".result.json")
    done = run(
        "score", "-b", benchmark, "--data", data, "--predictions", predictions, "--output", out,
        "--judge", url, "--judge-model", model, *options,
    )  # fmt: skip
    assert done.exit_code == 0, text_of(done)
    return read_result(out)


def test_verdicts_are_read_strictly() -> None:
    assert rating("Rating: 2? No.\nrating: 5", "rating", 0, 6) == 5
    assert rating("**correctness**: 0.5", "correctness", 0, 1) == 0.5
    assert first_line_numbers("8 9.5\nsince ...", 2, 1, 10) == [8, 9.5]
    assert choice("[[A>B]] at first, but [[B>>A]]", ("A>B", "B>>A")) == "B>>A"
    assert fractions("Component 1: 3/4\ncomponent 2: 0/6", "component", [4, 6]) == [3, 0]
    for wrong in (
        lambda: rating("rating: 7", "rating", 0, 6),
        lambda: rating("I would say 5", "rating", 0, 6),
        lambda: first_line_numbers("Assistant 1: 8, assistant 2: 9", 2, 1, 10),
        lambda: first_line_numbers("8\n9", 2, 1, 10),
        lambda: choice("A is better", ("A>B",)),
        lambda: fractions("component 1: 5/4", "component", [4]),
        lambda: fractions("component 1: 3/4", "component", [4, 6]),
    ):
        with pytest.raises(ChatFailure, match="malformed"):
            wrong()


def mmhal(folder: Path) -> Path:
    rows = [
        {"question_type": kind, "image_id": f"i{n}", "image_content": ["dog", "mat"],
         "question": f"What is {n}?", "gt_answer": "A dog.", "model_answer": ""}
        for n, kind in enumerate(("attribute", "attribute", "counting", "counting"))
    ]  # fmt: skip
    path = folder / "response_template.json"
    path.write_text(json.dumps(rows))
    return path


def test_mmhal_is_rated_and_failures_are_named(tmp_path: Path) -> None:
    ratings = {"0": "rating: 6", "1": "so\nrating: 2", "2": "I cannot", "3": "rating: 4"}

    def speak(request: Any, before: int) -> str:
        return ratings[re.findall(r"What is (\d)", prompt_text(request))[0]]

    data = mmhal(tmp_path)
    ids = [f"i{n}/What is {n}?" for n in range(4)]
    predictions_file = response_file(tmp_path, dict.fromkeys(ids, "A dog on a mat."))
    with server(speak) as stub:
        result = judged("mmhal", data, predictions_file, stub.url)
        assert "dog, mat" in prompt_text(stub.requests[0])
        assert stub.requests[0]["temperature"] == 0
        left = judged("mmhal", data, predictions_file, stub.url, "--skip-judge-errors")
    assert result.headline == "rating[judge=J]"
    assert result.metrics["rating[judge=J]"] == pytest.approx(12 / 4)
    assert result.metrics["hallucination_rate[judge=J]"] == 50.0
    assert result.metrics["rating/type/attribute[judge=J]"] == 4.0
    assert result.metrics["judge_error_rate"] == 25.0
    assert result.per_sample[2].note.startswith("judge_error: malformed: no 'rating:'")
    assert left.metrics["rating[judge=J]"] == pytest.approx(12 / 3)
    assert left.metrics["judge_error_rate"] == 25.0


def test_failures_of_a_judge_are_reported_by_kind(tmp_path: Path) -> None:
    data, ids = mmhal(tmp_path), [f"i{n}/What is {n}?" for n in range(4)]
    predictions_file = response_file(tmp_path, dict.fromkeys(ids, "A dog."))

    def speak(request: Any, before: int) -> Any:
        return "rating: 6" if "What is 0" in prompt_text(request) else 429

    with server(speak) as stub:
        result = judged("mmhal", data, predictions_file, stub.url)
    kinds = [item.note.split(":")[1].strip() for item in result.per_sample if item.note]
    assert kinds == ["rate_limited"] * 3
    assert result.metrics["judge_error_rate"] == 75.0
    assert result.metrics["unparsed_rate"] == 0.0
    (warning,) = [item for item in result.warnings if "without a verdict" in item]
    assert (
        "without a verdict count as wrong: 75.0 %, for example 'i1/What is 1?': judge_error: rate"
        in warning
    )


def test_a_judge_whose_requests_all_fail_yields_no_result(tmp_path: Path) -> None:
    data, ids = mmhal(tmp_path), [f"i{n}/What is {n}?" for n in range(4)]
    predictions_file = response_file(tmp_path, dict.fromkeys(ids, "A dog."))
    words = (
        "score",
        "-b",
        "mmhal",
        "--data",
        data,
        "--predictions",
        predictions_file,
        "--judge-model",
        "J",
    )
    with server(lambda request, before: 500) as stub:
        text = text_of(run(*words, "--judge", stub.url))
    assert "the judge J gave no verdict on any of 4 requests (server_error)" in text


def test_replies_are_cached_and_requested_once(tmp_path: Path) -> None:
    data, ids = mmhal(tmp_path), [f"i{n}/What is {n}?" for n in range(4)]
    predictions_file = response_file(tmp_path, dict.fromkeys(ids, "A dog."))
    cache = tmp_path / "answers" / "cache.sqlite"
    state = {"alive": True}
    with server(lambda request, before: "rating: 3" if state["alive"] else 500) as stub:
        first = judged("mmhal", data, predictions_file, stub.url, "--judge-cache", cache)
        state["alive"] = False
        again = judged("mmhal", data, predictions_file, stub.url, "--judge-cache", cache)
        assert len(stub.requests) == 4
        assert again.metrics == first.metrics
        words = ("score", "-b", "mmhal", "--data", data, "--predictions", predictions_file)
        other = run(*words, "--judge", stub.url, "--judge-model", "K", "--judge-cache", cache)
        assert "the judge K gave no verdict" in text_of(
            other
        )  # replies of another judge are not reused
    notes = tmp_path / "notes.txt"
    notes.write_text("no answers " * 99)
    broken = run(*words, "--judge", stub.url, "--judge-model", "J", "--judge-cache", notes)
    assert "notes.txt: the file is not a cache of replies" in text_of(broken)


def test_results_of_two_judges_are_not_compared(tmp_path: Path) -> None:
    data, ids = mmhal(tmp_path), [f"i{n}/What is {n}?" for n in range(4)]
    paths = []
    with server(lambda request, before: "rating: 3") as stub:
        for name, judge in (("a", "J"), ("b", "K"), ("c", "J")):
            predictions_file = response_file(tmp_path, dict.fromkeys(ids, f"A dog {name}."), name)
            judged("mmhal", data, predictions_file, stub.url, model=judge)
            paths.append(predictions_file.with_suffix(".result.json"))
    assert "its judge is" in text_of(run("compare", paths[0], paths[1]))
    done = run("compare", paths[0], paths[2])
    assert "rating[judge=J]" in done.output
    assert "not judged 0.0 %" in done.output
    without = run("score", "-b", "mmhal", "--data", data, "--predictions", tmp_path / "a.jsonl")
    assert "MMHal-Bench is scored by a judge. Use its URL" in text_of(without)


def test_mm_vet_counts_by_capability(tmp_path: Path) -> None:
    rows = [
        {"index": str(n), "question": f"Q{n}", "answer": "a <AND> b", "image": image_base64(n),
         "category": skills}
        for n, skills in enumerate(("rec,ocr", "ocr", "math"))
    ]  # fmt: skip
    grades = {"Q0": "correctness: 1.0", "Q1": "correctness: 0.5", "Q2": "correctness: 0"}

    def speak(request: Any, before: int) -> str:
        return grades[re.findall(r"Q\d", prompt_text(request))[0]]

    with server(speak) as stub:
        predictions_file = response_file(tmp_path, {str(n): "x" for n in range(3)})
        result = judged("mm_vet", table(tmp_path, rows), predictions_file, stub.url)
    assert result.metrics["score[judge=J]"] == pytest.approx(50.0)
    assert result.metrics["score/capability/ocr[judge=J]"] == 75.0
    assert result.metrics["score/capability/rec[judge=J]"] == 100.0


def test_llava_wild_is_relative_and_raw(tmp_path: Path) -> None:
    rows = [
        {"index": str(n), "question": f"Q{n}", "gpt4_ans": "ref", "caption": "cap",
         "category": ("conv", "detail")[n], "image": image_base64(n)}
        for n in range(2)
    ]  # fmt: skip
    with server(lambda r, _: "8 4\nwhy" if "Q0" in prompt_text(r) else "10 7\nwhy") as stub:
        predictions_file = response_file(tmp_path, {"0": "x", "1": "y"})
        result = judged("llava_wild", table(tmp_path, rows), predictions_file, stub.url)
    assert result.metrics["relative[judge=J]"] == pytest.approx(100 * 11 / 18)
    assert result.metrics["raw[judge=J]"] == pytest.approx(55.0)
    assert result.metrics["relative/category/conv[judge=J]"] == 50.0


def test_wildvision_is_judged_in_both_orders(tmp_path: Path) -> None:
    rows = [
        {"index": str(n), "question": f"Q{n}", "answer": "reference", "image": image_base64(n)}
        for n in range(2)
    ]

    def speak(request: Any, before: int) -> str:
        words = prompt_text(request)
        if "Q0" in words:  # the model's answer wins from both places
            return "[[B>>A]]" if words.index("mine") > words.index("reference") else "[[A>B]]"
        return "[[A>B]]"  # always the first response

    with server(speak) as stub:
        predictions_file = response_file(tmp_path, {"0": "mine", "1": "mine"})
        result = judged("wildvision", table(tmp_path, rows), predictions_file, stub.url)
        assert len(stub.requests) == 4
        assert stub.requests[0]["messages"][0]["content"][0]["type"] == "image_url"
    assert result.metrics["reward[judge=J]"] == pytest.approx(((100 + 50) / 2 + 0) / 2)
    assert result.metrics["win_rate[judge=J]"] == pytest.approx(75.0)
    assert result.metrics["consistent_rate[judge=J]"] == 0.0


def test_mia_bench_counts_points(tmp_path: Path) -> None:
    rows = [
        {"index": str(n), "question": f"Q{n}", "components": "['one', 'two']",
         "component_weight": "[4, 6]", "type": "['describe']", "image": image_base64(n)}
        for n in range(2)
    ]  # fmt: skip
    replies = {"Q0": "component 1: 4/4\ncomponent 2: 3/6", "Q1": "component 1: 4/4"}

    def speak(request: Any, before: int) -> str:
        return replies[re.findall(r"Q\d", prompt_text(request))[0]]

    with server(speak) as stub:
        predictions_file = response_file(tmp_path, {"0": "x", "1": "y"})
        result = judged("mia_bench", table(tmp_path, rows), predictions_file, stub.url)
        assert "1. one (worth 4)" in prompt_text(stub.requests[0])
    assert result.per_sample[0].score == 0.7
    assert result.metrics["judge_error_rate"] == 50.0
    assert result.metrics["score/type/describe[judge=J]"] == 35.0


def test_a_judge_compares_two_models(tmp_path: Path) -> None:
    data = option_table(tmp_path, rows=6)
    first = response_file(tmp_path, {str(n): f"old {n}" for n in range(6)}, "old")
    second = response_file(tmp_path, {str(n): f"new {n}" for n in range(5)}, "new")

    def speak(request: Any, before: int) -> str:
        words = prompt_text(request)
        number = int(re.findall(r"Which is (\d)", words)[0])
        ahead = words.index(f"new {number}") < words.index(f"old {number}")
        if number < 2:  # the new response wins in both positions
            return "[[A>B]]" if ahead else "[[B>A]]"
        if number == 2:  # the old one does
            return "[[B>>A]]" if ahead else "[[A>>B]]"
        return "[[A>B]]" if number == 3 else "hm"  # always the first response; no verdict

    out = tmp_path / "duel.json"
    with server(speak) as stub:
        done = run("duel", first, second, "-b", "ai2d", "--data", data, "--judge", stub.url,
                   "--judge-model", "J", "--output", out)  # fmt: skip
    assert done.exit_code == 0, text_of(done)
    actual = json.loads(out.read_text())
    assert actual["outcomes"] == {"0": "win", "1": "win", "2": "loss", "3": "tie", "4": "error"}
    assert actual["metrics"]["score"] == pytest.approx(100 * 2.5 / 4)
    assert actual["metrics"]["judge_error_rate"] == 20.0
    assert actual["consistent_rate"] == 75.0
    assert "malformed" in actual["matchups"][4]["error"]
    assert "samples without a response in both files: 1" in done.output


def test_a_local_model_can_judge(tmp_path: Path) -> None:
    """Its replies make no sense: there is no verdict, and none is guessed."""
    checkpoint = varied_checkpoint(tmp_path / "llava", "llava")
    data, ids = mmhal(tmp_path), [f"i{n}/What is {n}?" for n in range(4)]
    predictions_file, out = (
        response_file(tmp_path, dict.fromkeys(ids, "A dog.")),
        tmp_path / "r.json",
    )
    from unidpo_mm_eval.judge import judges

    limit, judges.MAX_TOKENS = judges.MAX_TOKENS, 8
    try:
        done = run("score", "-b", "mmhal", "--data", data, "--predictions", predictions_file,
                   "--output", out, "--judge", f"local:{checkpoint}")  # fmt: skip
    finally:
        judges.MAX_TOKENS = limit
    assert "the judge llava gave no verdict on any of 4 requests (malformed)" in text_of(done)
    assert not out.exists()


def test_a_local_judge_gets_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from unidpo_mm_eval.judge import judges

    from unidpo_mm.inference.messages import user_message

    checkpoint = varied_checkpoint(tmp_path / "qwen2_vl", "qwen2_vl")
    monkeypatch.setattr(judges, "MAX_TOKENS", 16)
    judge = judges.load_judge(f"local:{checkpoint}", dtype="float32")
    addresses = [f"data:image/png;base64,{image_base64(n)}" for n in (1, 2)]
    answers = {judge.ask(user_message("Which?", [item])) for item in addresses}
    assert len(answers) == 2

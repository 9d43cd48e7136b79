"""Every metric and every sample's score equal those of the toolkits on adversarial sets."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from support.adversarial_responses import SETS
from support.reference_toolkits import RECORD, TOOLKITS, record
from unidpo_mm_eval.benchmarks import load_benchmark
from unidpo_mm_eval.data.predictions import read_predictions
from unidpo_mm_eval.protocols import load_protocol
from unidpo_mm_eval.results.grading import grade_predictions
from unidpo_mm_eval.results.result import Result

NAMES = [f"{benchmark} {protocol}" for benchmark, protocol in TOOLKITS]


@pytest.fixture(scope="module")
def recorded() -> dict[str, Any]:
    return json.loads(RECORD.read_text(encoding="utf-8"))


def ours(name: str, folder: Path) -> Result:
    benchmark, protocol = name.split()
    data, responses = SETS[benchmark]().write(folder)
    actual = load_benchmark(benchmark)
    return grade_predictions(
        actual, actual.read(data, False), read_predictions(responses), load_protocol(protocol)
    )


@pytest.mark.parametrize("name", NAMES)
def test_metrics_and_scores_equal_those_of_the_toolkit(
    name: str, recorded: dict[str, Any], tmp_path: Path
) -> None:
    result, theirs = ours(name, tmp_path), recorded[name]
    scores = {item.id: item.score for item in result.per_sample}
    assert scores == pytest.approx(theirs["per_sample"], abs=1e-9)
    expected = {metric: result.metrics[metric] for metric in theirs["metrics"]}
    assert expected == pytest.approx(theirs["metrics"], abs=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_the_adversarial_sets_distinguish_rules(name: str, recorded: dict[str, Any]) -> None:
    """A set with only correct or only wrong responses would prove nothing."""
    scores = list(recorded[name]["per_sample"].values())
    assert len(scores) >= 90
    assert 0.05 < sum(scores) / len(scores) < 0.95


def test_another_rule_fails_the_comparison(recorded: dict[str, Any], tmp_path: Path) -> None:
    scores = {item.id: item.score for item in ours("pope lmms", tmp_path).per_sample}
    assert scores != pytest.approx(recorded["pope vlmevalkit"]["per_sample"])


@pytest.mark.toolkits
def test_the_record_equals_the_toolkits_results(recorded: dict[str, Any]) -> None:
    now = record()
    assert now.pop("versions") == recorded.pop("versions")
    for name in NAMES:
        for part in ("metrics", "per_sample"):
            assert now[name][part] == pytest.approx(recorded[name][part]), f"{name} {part}"


@pytest.mark.toolkits
@pytest.mark.parametrize("seed", range(200))
def test_rules_agree_on_random_texts(seed: int) -> None:
    """Thousands of texts composed of the patterns that the rules search for."""
    from support.reference_toolkits import import_toolkits

    import_toolkits()
    from lmms_eval.tasks._task_utils.mcq_extract import extract_mcq_answer
    from lmms_eval.tasks._task_utils.vqa_eval_metric import EvalAIAnswerProcessor
    from lmms_eval.tasks.mme.utils import parse_pred_ans
    from unidpo_mm_eval.scorers.options import chosen_option, phrased_option
    from unidpo_mm_eval.scorers.short_answers import anls, normalize_vqa, relaxed_match
    from unidpo_mm_eval.scorers.yes_no import first_letters_yes_no, yes_or_no
    from vlmeval.dataset.utils.vqa_eval import anls_compute, process_answer, relaxed_correctness
    from vlmeval.dataset.utils.yorn import YOrN_Extraction
    from vlmeval.utils.matching_util import can_infer

    rng = random.Random(seed)
    pieces = PIECES
    plain = EvalAIAnswerProcessor()
    for _ in range(50):
        text, other = ("".join(rng.choices(pieces, k=rng.randint(0, 7))) for _ in range(2))
        assert (yes_or_no(text) or "Unknown") == YOrN_Extraction(text), text
        assert (first_letters_yes_no(text) or "other").lower() == parse_pred_ans(text), text
        assert normalize_vqa(text) == process_answer(text), text
        assert normalize_vqa(text, rule="lmms") == plain(text), text
        assert (phrased_option(text) or "") == extract_mcq_answer(text, ["A", "B", "C", "D"]), text
        fields = {x: rng.choice(pieces) for x in "ABCDE"[: rng.randint(1, 5)]}
        fields = {x: t for x, t in fields.items() if t}
        choice = chosen_option(text, fields)
        theirs = can_infer(text, dict(fields))
        assert (choice.letter or ("Z" if choice.refused else False)) == theirs, (text, fields)
        near = 1 - anls_compute(other, text)
        assert anls(text, [other]) == (near if near >= 0.5 else 0.0), (text, other)
        assert relaxed_match(text, [other]) == relaxed_correctness(other, text.strip()), text


PIECES = (
    "A", "B", "C", "D", "E", "Z", "a", "b", " ", " ", " ", ".", ",", ":", ";", "!", "?", "(", ")",
    "[", "]", "*", "#", "{", "}", "'", '"', "-", "/", "\n", "\t", "yes", "no", "Yes", "No", "the",
    "an", "answer is", "The answer is", "Answer", "I choose", "best option is", "选", "1", "3",
    "1,0", "2.5", "%", "ten", "none", "dont", "isn't", "couldnt've", "cat", "dog", "cats, dogs",
    "ß", "İ", "x" * 30, "Cannot determine the answer", "Failed to obtain answer via API", "$", "é",
)  # fmt: skip

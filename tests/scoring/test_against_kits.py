"""Every metric and every sample's score equal what the kits' own functions say of nasty sets."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from kits import KITS, RECORD, record
from nasty import SETS
from unidpo_mm_eval.benchmarks import load_benchmark
from unidpo_mm_eval.data.predictions import read_predictions
from unidpo_mm_eval.protocols import load_protocol
from unidpo_mm_eval.results.grading import score
from unidpo_mm_eval.results.result import Result

NAMES = [f"{benchmark} {protocol}" for benchmark, protocol in KITS]


@pytest.fixture(scope="module")
def recorded() -> dict[str, Any]:
    return json.loads(RECORD.read_text(encoding="utf-8"))


def ours(name: str, folder: Path) -> Result:
    benchmark, protocol = name.split()
    data, said = SETS[benchmark]().write(folder)
    found = load_benchmark(benchmark)
    return score(found, found.read(data, False), read_predictions(said), load_protocol(protocol))


@pytest.mark.parametrize("name", NAMES)
def test_metrics_and_scores_are_those_of_the_kit(
    name: str, recorded: dict[str, Any], tmp_path: Path
) -> None:
    result, theirs = ours(name, tmp_path), recorded[name]
    scores = {one.id: one.score for one in result.per_sample}
    assert scores == pytest.approx(theirs["per_sample"], abs=1e-9)
    known = {metric: result.metrics[metric] for metric in theirs["metrics"]}
    assert known == pytest.approx(theirs["metrics"], abs=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_the_sets_tell_rules_apart(name: str, recorded: dict[str, Any]) -> None:
    """A set on which everything is right or wrong would prove nothing."""
    scores = list(recorded[name]["per_sample"].values())
    assert len(scores) >= 90
    assert 0.05 < sum(scores) / len(scores) < 0.95


def test_another_rule_fails_the_comparison(recorded: dict[str, Any], tmp_path: Path) -> None:
    scores = {one.id: one.score for one in ours("pope lmms", tmp_path).per_sample}
    assert scores != pytest.approx(recorded["pope vlmevalkit"]["per_sample"])


@pytest.mark.kits
def test_the_record_is_what_the_kits_say_now(recorded: dict[str, Any]) -> None:
    now = record()
    assert now.pop("versions") == recorded.pop("versions")
    for name in NAMES:
        for part in ("metrics", "per_sample"):
            assert now[name][part] == pytest.approx(recorded[name][part]), f"{name} {part}"


@pytest.mark.kits
@pytest.mark.parametrize("seed", range(200))
def test_rules_agree_on_random_texts(seed: int) -> None:
    """Texts put together from what the rules look for, some thousand of them."""
    from kits import import_kits

    import_kits()
    from lmms_eval.tasks._task_utils.mcq_extract import extract_mcq_answer
    from lmms_eval.tasks._task_utils.vqa_eval_metric import EvalAIAnswerProcessor
    from lmms_eval.tasks.mme.utils import parse_pred_ans
    from unidpo_mm_eval.scorers.anls import anls
    from unidpo_mm_eval.scorers.option_phrases import phrased_option
    from unidpo_mm_eval.scorers.options import chosen_option
    from unidpo_mm_eval.scorers.relaxed import relaxed_match
    from unidpo_mm_eval.scorers.vqa import normalised
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
        assert normalised(text) == process_answer(text), text
        assert normalised(text, rule="lmms") == plain(text), text
        assert (phrased_option(text) or "") == extract_mcq_answer(text, ["A", "B", "C", "D"]), text
        given = {x: rng.choice(pieces) for x in "ABCDE"[: rng.randint(1, 5)]}
        given = {x: t for x, t in given.items() if t}
        choice = chosen_option(text, given)
        theirs = can_infer(text, dict(given))
        assert (choice.letter or ("Z" if choice.refused else False)) == theirs, (text, given)
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

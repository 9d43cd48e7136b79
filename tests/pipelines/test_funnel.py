"""The counts of prompts, responses and pairs, whatever the responses, rules and limits are."""

import random
from pathlib import Path
from typing import Any

import pytest

from unidpo_mm.data.pairing import RULES
from unidpo_mm.pipelines.files import Files
from unidpo_mm.pipelines.funnel import Funnel
from unidpo_mm.pipelines.load import Making, scorers_of
from unidpo_mm.pipelines.pairs import PairStage, form_rows, row_lines
from unidpo_mm.pipelines.prompt_set import MadePrompt
from unidpo_mm.pipelines.recipe import MakeRecipe
from unidpo_mm.pipelines.run import groups_of
from unidpo_mm.records import NO_RESPONSE, Message, PreferenceRow, Response

CASES = 500


def prompt(number: int) -> MadePrompt:
    row = PreferenceRow(
        id=f"p{number}",
        domain="text",
        source="test",
        where=f"row {number}",
        messages=(Message("user", (f"What is {number}?",)),),
        responses=(Response(NO_RESPONSE),),
    )
    return MadePrompt(row, str(number), f"{number:032x}")


def stage_of(draw: random.Random, rule: str) -> PairStage:
    pair: dict[str, Any] = {"rule": rule, "score": "total", "right": "right", "seed": 3}
    for name, values in (
        ("min_margin", (0.0, 0.5, 2.0)),
        ("contained", ("keep", "drop")),
        ("length_ratio", (None, (0.5, 2.0))),
        ("per_prompt", (None, 1, 3)),
        ("max_pairs", (None, 2, 10)),
        ("balance_length", (None, 0.1)),
    ):
        pair[name] = draw.choice(values)
    recipe = MakeRecipe.model_validate(
        {
            "output": "made",
            "prompts": {"sources": [{"path": "?"}]},
            "model": {"name_or_path": "?"},
            "sample": {"n": draw.randint(1, 20), "truncated": draw.choice(["reject", "drop"])},
            "score": {
                "right": {"scorer": "verifier"},
                "total": {"scorer": "combine", "use": {"right": 10.0}},
            },
            "pair": pair,
        }
    )
    making = Making(recipe, scorers_of(recipe)[0], {"chosen": [], "rejected": []})
    prompts = [prompt(number) for number in range(draw.randint(1, 6))]
    groups = groups_of(making, prompts)
    texts, scores = {}, {"right": {}, "total": {}}
    for name in (name for group in groups for name in group.ids):
        record: dict[str, Any] = {
            "id": name,
            "response": draw.choice(["a", "a b", "c", "", "d e f"]),
        }
        record["finish_reason"] = draw.choice(["stop", "stop", "length"])
        if draw.random() < 0.1:
            record["fault"] = "prompt"
        texts[name] = record
        value = draw.choice([None, 0.0, 1.0])
        scores["right"][name] = {"score": value}
        scores["total"][name] = {"score": None if value is None else draw.choice([0.0, 3.0, 10.0])}
    return PairStage(
        making=making,
        prompts=prompts,
        groups=groups,
        texts=texts,
        scores=scores,
        funnel=Funnel(),
    )


@pytest.mark.parametrize("rule", RULES)
def test_the_counts_add_up(rule: str, tmp_path: Path) -> None:
    formed = 0
    for case in range(CASES // len(RULES) + 1):
        draw = random.Random(f"{rule}-{case}")
        stage = stage_of(draw, rule)
        rows = form_rows(stage)
        stage.funnel.check()
        counts = stage.funnel.counts
        assert counts["responses"]["expected"] == len(stage.texts)
        assert counts["pairs"]["kept"] == sum(len(row.pairs) for row in rows)
        assert sum(counts["outcomes"].values()) == len(stage.prompts)
        formed += counts["pairs"]["formed"]
        again = stage_of(random.Random(f"{rule}-{case}"), rule)
        lines = [*row_lines(rows, Files(tmp_path))]
        assert lines == [*row_lines(form_rows(again), Files(tmp_path))]
    assert formed > 20 or rule == "best_vs_sigma"


def test_counts_that_do_not_add_up_are_an_error() -> None:
    funnel = Funnel()
    funnel.count("pairs", "formed", 3)
    funnel.count("pairs", "kept", 2)
    with pytest.raises(AssertionError, match="pairs: 3 items, but 2 in the counts"):
        funnel.check()

"""Scores for the responses of existing data sets: every format, pairs that stay, training."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from builders import make_image
from support.commands import run_command

from unidpo_mm.config import SourceOptions
from unidpo_mm.data.load import ReadOptions, load_rows
from unidpo_mm.records import PreferenceRow

FIXTURES = Path(__file__).parents[1] / "data" / "fixtures"
NAMES = sorted(path.name for path in FIXTURES.iterdir())


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for number, name in enumerate(("bird", "branch")):
        make_image(number + 1).save(folder / f"{name}.png")
    return folder


def without_scores(path: Path, folder: Path) -> Path:
    """Copy a data set, with its scores removed where its format also exists without them."""
    target = folder / path.name
    shutil.copy(path, target)
    if path.suffix in (".json", ".jsonl"):
        text = path.read_text()
        records = (
            json.loads(text) if path.suffix == ".json" else [*map(json.loads, text.splitlines())]
        )
        for record in records:
            record.pop("score_chosen", None)
            record.pop("score_rejected", None)
            for response in record.get("responses", []):
                if isinstance(response, dict):
                    response.pop("score", None)
        if path.suffix == ".json":
            target.write_text(json.dumps(records))
        else:
            target.write_text("".join(json.dumps(record) + "\n" for record in records))
    return target


def write_recipe(folder: Path, source: dict[str, Any], **sections: Any) -> Path:
    recipe = {
        "output": str(folder / "made"),
        "prompts": {"sources": [source]},
        "sample": {"responses": "given"},
        "score": {"brief": {"scorer": "rules", "max_words": 2, "matches": "[a-e]", "lacks": "r"}},
        "pair": {"rule": "given"},
        **sections,
    }
    path = folder / "make.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


def pairs_of(rows: list[PreferenceRow]) -> list[tuple[Any, ...]]:
    return [
        (
            [message.text for message in row.messages],
            [image.key() for image in row.images],
            row.responses[pair.chosen].text,
            row.responses[pair.rejected].text,
            pair.weight,
        )
        for row in rows
        for pair in row.pairs
    ]


@pytest.mark.parametrize("name", NAMES)
def test_every_format_gets_scores_and_keeps_its_pairs(
    name: str, images: Path, tmp_path: Path
) -> None:
    path = without_scores(FIXTURES / name, tmp_path)
    source: dict[str, Any] = {"path": str(path), "images": str(images)}
    before = load_rows([SourceOptions(**source)], ReadOptions(incomplete=True))
    recipe = write_recipe(tmp_path, source)
    if not any(
        row.pairs for row in before
    ):  # responses without scores: pairs come from the new ones
        recipe = write_recipe(tmp_path, source, pair={"rule": "all"})
    end = run_command("data", "make", str(recipe))
    assert end.exit_code == 0, end.output
    made = tmp_path / "made" / "rows.jsonl"
    records = [json.loads(line) for line in made.read_text().splitlines()]
    assert all(
        response["score"] == response["scores"]["brief"]
        for record in records
        for response in record["responses"]
    )
    after = load_rows([SourceOptions(path=str(made))])
    if any(row.pairs for row in before):
        assert pairs_of(list(after)) == pairs_of(list(before))
        assert "given pairs" in json.loads((tmp_path / "made/made.json").read_text())["counts"]
    else:
        assert pairs_of(list(after))
    assert all(response.score is not None for row in after for response in row.responses)


PAIRS = [
    {
        "prompt": f"What is {n} plus 1?",
        "chosen": f"It is {n + 1}.",
        "rejected": f"{n}",
        "answer": n + 1,
    }
    for n in range(8)
]


def test_three_commands_from_pairs_without_scores_to_a_trained_model(
    checkpoint: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in PAIRS))
    score = {
        "right": {"scorer": "verifier", "answer": "number", "graded": True},
        "brief": {"scorer": "rules", "max_words": 2},
        "total": {"scorer": "combine", "use": {"right": 8.0, "brief": 2.0}},
    }
    recipe = write_recipe(tmp_path, {"path": "pairs.jsonl"}, score=score)
    model = str(checkpoint("llama"))
    for words in (
        ("data", "make", str(recipe)),
        ("init", "made/rows.jsonl", "--model", model),
        ("train", "recipe.yaml", "train.max_steps=1", "train.use_cpu=true", "train.report_to=none"),
    ):
        end = run_command(*words)
        assert end.exit_code == 0, end.output
    assert "name: uni_dpo" in (tmp_path / "recipe.yaml").read_text()
    commands: tuple[tuple[str, ...], ...] = (
        ("data", "check", "made/rows.jsonl", "--scale", "0,10"),
        ("data", "convert", "made/rows.jsonl", "--output", "trl.jsonl", "--to", "trl"),
        ("data", "convert", "trl.jsonl", "--output", "back.jsonl"),
    )
    for words in commands:
        end = run_command(*words)
        assert end.exit_code == 0, end.output
    rows = load_rows([SourceOptions(path="made/rows.jsonl")])
    back = load_rows([SourceOptions(path="back.jsonl")])
    assert pairs_of(list(rows)) == pairs_of(list(back))
    assert [row.responses[0].score for row in rows] == [row.responses[0].score for row in back]


def test_the_entry_of_made_json_is_a_source_that_trains(tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in PAIRS))
    score = {"right": {"scorer": "verifier", "answer": "number", "graded": True}}
    recipe = write_recipe(tmp_path, {"path": str(tmp_path / "pairs.jsonl")}, score=score)
    assert run_command("data", "make", str(recipe)).exit_code == 0
    entry = json.loads((tmp_path / "made/made.json").read_text())["source"]
    assert entry["scores"] == {"scale": [0.0, 1.0], "judge": "verifier"}
    (tmp_path / "check.yaml").write_text(
        yaml.safe_dump({"model": {"name_or_path": "?"}, "data": {"sources": [entry]}})
    )
    rows = load_rows([SourceOptions(**entry)])
    assert len(rows) == 8


def test_rows_without_responses_or_images_are_refused(tmp_path: Path) -> None:
    lines = [{"prompt": "What?"}, {"prompt": "Which?", "images": ["missing.png"]}]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    recipe = write_recipe(tmp_path, {"path": str(tmp_path / "prompts.jsonl")})
    end = run_command("data", "make", str(recipe))
    assert end.exit_code == 2
    assert "prompts.jsonl row 1: the row has no response to be scored" in end.output
    assert "row 2" in end.output
    assert "missing.png" in end.output


def test_all_faults_are_too_many(tmp_path: Path) -> None:
    (tmp_path / "faulty.py").write_text(
        "from dataclasses import dataclass\n"
        "from unidpo_mm.authoring import Fault, Scorer\n"
        "@dataclass(frozen=True)\n"
        "class Faulty(Scorer):\n"
        "    scale = (0.0, 1.0)\n"
        "    kind: str = 'fault'\n"
        "    def score(self, candidates):\n"
        "        faults = {'fault': Fault('malformed', 'no verdict'), 'nan': float('nan'),\n"
        "                  'outside': 2.0}\n"
        "        return [faults[self.kind]] * (len(candidates) - (self.kind == 'short'))\\\n"
        "            if self.kind != 'short' else []\n"
        "SCORER = Faulty\n"
    )
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in PAIRS))
    source = {"path": str(tmp_path / "pairs.jsonl")}
    recipe = write_recipe(tmp_path, source, score={"bad": {"scorer": "./faulty.py"}})
    for kind, text in (
        ("fault", "16 of 16 responses have no score (16 malformed)"),
        ("nan", "the score is nan"),
        ("outside", "the score 2 is outside of the scorer's scale [0, 1]"),
        ("short", "it returned 0 scores for 16 responses"),
    ):
        shutil.rmtree(tmp_path / "made", ignore_errors=True)
        end = run_command("data", "make", str(recipe), f"score.bad.kind={kind}")
        assert end.exit_code == 2
        assert text in end.output


CARELESS = """
from unidpo_mm.pipelines.scorer import Fault, Score, Scorer


class Careless(Scorer):
    scale = (0.0, 1.0)

    def score(self, candidates):
        return RESULTS


SCORER = Careless
"""


@pytest.mark.parametrize(
    ("results", "text"),
    [
        ("[None for _ in candidates]", "the score is a NoneType, not a number"),
        ("['0.5' for _ in candidates]", "the score is a str, not a number"),
        ("[[0.5, 0.5] for _ in candidates]", "the score is a list, not a number"),
        ("None", "it returned NoneType, not scores for 16 responses"),
        ("(0.5 for _ in candidates)", "it returned generator, not scores for 16 responses"),
        ("[Score(0.5, {'set': Score}) for _ in candidates]", "the evidence is not JSON"),
    ],
)
def test_results_of_a_scorer_that_are_no_scores(results: str, text: str, tmp_path: Path) -> None:
    (tmp_path / "careless.py").write_text(CARELESS.replace("RESULTS", results))
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in PAIRS))
    source = {"path": str(tmp_path / "pairs.jsonl")}
    recipe = write_recipe(tmp_path, source, score={"bad": {"scorer": "./careless.py"}})
    end = run_command("data", "make", str(recipe))
    assert end.exit_code == 2
    assert f"score.bad{'' if text.startswith('it') else ', response '}" in end.output
    assert text in end.output


def test_results_of_other_libraries_and_unpaired_surrogates(tmp_path: Path) -> None:
    results = "[Score(__import__('numpy').float32(n / 16), {'reply': '\\ud83d', 'n': n}) "
    results += "for n, _ in enumerate(candidates)]"
    (tmp_path / "careless.py").write_text(CARELESS.replace("RESULTS", results))
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in PAIRS))
    source = {"path": str(tmp_path / "pairs.jsonl")}
    recipe = write_recipe(tmp_path, source, score={"fine": {"scorer": "./careless.py"}})
    for _ in range(2):
        end = run_command("data", "make", str(recipe))
        assert end.exit_code == 0, end.output
    line = (tmp_path / "made/scores/fine.jsonl").read_text().splitlines()[1]
    assert json.loads(line)["evidence"] == {"reply": "\ud83d", "n": 0}


def test_a_fault_counts_for_its_own_scorer_only(tmp_path: Path) -> None:
    results = "[Fault('malformed', 'no verdict')] * 4 + [0.5] * (len(candidates) - 4)"
    (tmp_path / "careless.py").write_text(CARELESS.replace("RESULTS", results))
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in PAIRS))
    source = {"path": str(tmp_path / "pairs.jsonl")}
    score: dict[str, Any] = {
        "some": {"scorer": "./careless.py", "max_faults": 0.5},
        "total": {"scorer": "combine", "use": {"some": 1.0}},
    }
    end = run_command("data", "make", str(write_recipe(tmp_path, source, score=score)))
    assert end.exit_code == 0, end.output
    end = run_command("data", "make", str(tmp_path / "make.yaml"), "score.some.max_faults=0.1")
    assert end.exit_code == 2
    assert "score.some: 4 of 16 responses have no score" in end.output


def test_an_option_of_the_command_line(tmp_path: Path) -> None:
    for words, text in (
        (("--until", "pairs"), "did you mean 'pair'?"),
        (("--share", "3/2"), "is not a share"),
        (("--share", "1/2", "--merge-shares"), "cannot be combined with --merge-shares"),
        (("--price", "3"), "is not two numbers"),
    ):
        recipe = write_recipe(tmp_path, {"path": "pairs.jsonl"})
        end = run_command("data", "make", str(recipe), *words, "--plan")
        assert end.exit_code == 2
        assert text in " ".join(end.output.replace("│", " ").split())


def test_a_changed_file_of_a_scorer_is_refused(tmp_path: Path) -> None:
    scorer = (
        "from dataclasses import dataclass\n"
        "from unidpo_mm.authoring import Scorer\n"
        "@dataclass(frozen=True)\n"
        "class Digits(Scorer):\n"
        "    scale = (0.0, 9.0)\n"
        "    def score(self, candidates):\n"
        "        return [float(sum(c.isdigit() for c in item.text)) for item in candidates]\n"
        "SCORER = Digits\n"
    )
    (tmp_path / "digits.py").write_text(scorer)
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in PAIRS))
    source = {"path": str(tmp_path / "pairs.jsonl")}
    recipe = write_recipe(tmp_path, source, score={"digits": {"scorer": "./digits.py"}})
    assert run_command("data", "make", str(recipe)).exit_code == 0
    (tmp_path / "digits.py").write_text(scorer.replace("isdigit", "isalpha"))
    end = run_command("data", "make", str(recipe))
    assert end.exit_code == 2
    assert "digits.jsonl" in end.output
    assert "file was" in end.output


def test_init_knows_the_scale_of_made_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in PAIRS))
    score = {"right": {"scorer": "verifier", "answer": "number", "graded": True}}
    recipe = write_recipe(tmp_path, {"path": "pairs.jsonl"}, score=score)
    assert run_command("data", "make", str(recipe)).exit_code == 0
    end = run_command("init", "made/rows.jsonl", "--output", "recipe.yaml")
    assert "cannot be known" not in end.output
    assert "unused columns" not in end.output
    (source,) = yaml.safe_load((tmp_path / "recipe.yaml").read_text())["data"]["sources"]
    assert source["scores"] == {"scale": [0.0, 1.0], "judge": "verifier"}


def test_chosen_responses_with_wrong_answers_are_a_warning(tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in PAIRS))
    score = {
        "right": {"scorer": "verifier", "answer": "number"},
        "short": {"scorer": "rules", "max_words": 1},
    }
    recipe = write_recipe(
        tmp_path, {"path": str(tmp_path / "pairs.jsonl")}, score=score, pair={"rule": "all"}
    )
    end = run_command("data", "make", str(recipe))
    assert end.exit_code == 0, end.output
    text = "8 of 8 chosen responses have a wrong answer by right"
    assert text in " ".join(end.output.split())

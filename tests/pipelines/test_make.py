"""`unidpo-mm data make` with tiny models: kills, processes, shares, more responses, bad recipes."""

import json
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from builders import make_image
from support.commands import run_command
from support.forked_runs import Kill, launch
from support.small_benchmarks import varied_checkpoint

pytestmark = pytest.mark.usefixtures("preloaded")

FILES = (
    "prompts.jsonl",
    "responses.jsonl",
    "scores/brief.jsonl",
    "scores/agree-of-4.jsonl",
    "rows.jsonl",
)
"""Files that are equal to the byte, however a run was interrupted or shared."""
SCORES: dict[str, Any] = {
    "brief": {"scorer": "rules", "max_words": 1, "matches": "[a-m]", "lacks": "[aeiou]"},
    "agree": {"scorer": "agreement", "answer": "text"},
    "total": {"scorer": "combine", "use": {"brief": 1.0, "agree": 1.0}},
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return varied_checkpoint(tmp_path_factory.mktemp("model") / "llava", "llava")


@pytest.fixture(scope="module")
def write(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a function that writes a recipe to a new directory and returns the directory."""
    prompts = tmp_path_factory.mktemp("prompts")
    with (prompts / "prompts.jsonl").open("w") as file:
        for number in range(12):
            record: dict[str, Any] = {
                "prompt": f"What is {number % 11}?",
                "answer": str(number % 11),
            }
            if number % 2 and number < 11:
                make_image(number).save(prompts / f"{number}.png")
                record["images"] = [f"{number}.png"]
            file.write(json.dumps(record) + "\n")

    def write_recipe(folder: Path, **sections: Any) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        recipe = {
            "output": "made",
            "model": {"name_or_path": str(model), "dtype": "float32"},
            "prompts": {"sources": [{"path": str(prompts / "prompts.jsonl")}]},
            "sample": {"n": 4, "max_new_tokens": 4, "batch_size": 8, "truncated": "keep"},
            "score": SCORES,
            "pair": {"rule": "best_vs_worst"},
        }
        for name, values in sections.items():
            section: Any = recipe.get(name, {})
            recipe[name] = {**section, **values} if isinstance(values, dict) else values
        (folder / "make.yaml").write_text(yaml.safe_dump(recipe))
        return folder

    return write_recipe


def made(folder: Path) -> dict[str, bytes]:
    paths = {name: folder / "made" / name for name in FILES}
    return {name: path.read_bytes() for name, path in paths.items() if path.exists()}


def make(folder: Path, *words: str, **options: Any) -> list[int | None]:
    ends = launch(folder, "data", "make", "make.yaml", *words, **options)
    for end in ends:
        assert "Traceback" not in end.output, end.output
        assert end.code == 0 or end.signal, end.output
    return [-end.signal if end.signal else end.code for end in ends]


@pytest.fixture(scope="module")
def expected(
    write: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    """The files of a run that nothing disturbs."""
    folder = write(tmp_path_factory.mktemp("straight"))
    assert make(folder) == [0]
    return made(folder)


def lines(content: bytes) -> Iterator[dict[str, Any]]:
    return (json.loads(line) for line in content.decode().splitlines())


def test_prompts_responses_scores_and_rows(expected: dict[str, bytes]) -> None:
    prompts = list(lines(expected["prompts.jsonl"]))
    assert len(prompts) == 11  # two of twelve are equal
    assert [prompt["gold"] for prompt in prompts] == [str(n) for n in range(11)]
    assert sum("images" in prompt for prompt in prompts) == 5
    _, *responses = lines(expected["responses.jsonl"])
    assert [record["id"] for record in responses] == [
        f"{prompt['id']}#{n}" for prompt in prompts for n in range(4)
    ]
    texts = {record["id"]: record["response"] for record in responses}
    assert len(set(texts.values())) > 11
    for row in lines(expected["rows.jsonl"]):
        for response in row["responses"]:
            assert response["text"] == texts[response["id"]]
            parts = response["scores"]
            assert response["score"] == parts["total"] == parts["brief"] + parts["agree"]
        ((chosen, rejected, weight),) = row["pairs"]
        scores = [response["score"] for response in row["responses"]]
        assert scores[chosen] == max(scores) > scores[rejected] == min(scores)
        assert weight == 1.0


@pytest.mark.parametrize(
    "directories", [2, pytest.param(16, marks=pytest.mark.slow)], ids=lambda n: f"{n} directories"
)
def test_kills_change_no_byte(
    write: Callable[..., Path], tmp_path: Path, expected: dict[str, bytes], directories: int
) -> None:
    draw, kills, number = random.Random(directories), 0, 0
    while kills < 5 * directories:  # A run may end before its kill; then another one is killed
        number += 1
        assert number <= 4 * directories
        folder = write(tmp_path / str(number))
        for _ in range(7):  # at a random access to one of its files, or at a random time
            kill = Kill(match="made", touch=draw.randint(1, 30))
            if draw.random() < 0.2:
                kill = Kill(seconds=draw.uniform(0.05, 0.6))
            if make(folder, kill=kill) == [0]:
                break
            kills += 1
            if draw.random() < 0.2:
                tear_a_line(folder / "made", draw)
        assert make(folder) == [0]
        assert made(folder) == expected


def tear_a_line(folder: Path, draw: random.Random) -> None:
    """Cut the last line of a part, as a full disk or a crash of the machine does."""
    parts = [part for part in folder.rglob("*.parts/*.jsonl") if part.stat().st_size > 200]
    if parts:
        part = draw.choice(sorted(parts))
        os.truncate(part, part.stat().st_size - draw.randint(1, 60))


def test_two_processes_give_the_same_bytes(
    write: Callable[..., Path], tmp_path: Path, expected: dict[str, bytes]
) -> None:
    folder = write(tmp_path)
    assert make(folder, processes=2) == [0, 0]
    assert made(folder) == expected


@pytest.mark.slow
def test_three_processes_and_a_kill_of_one(
    write: Callable[..., Path], tmp_path: Path, expected: dict[str, bytes]
) -> None:
    folder = write(tmp_path)
    make(folder, processes=3, kill=Kill(rank=1, seconds=1.0))
    assert make(folder, processes=3) == [0, 0, 0]
    assert made(folder) == expected


def test_shares_on_several_machines(
    write: Callable[..., Path], tmp_path: Path, expected: dict[str, bytes]
) -> None:
    folder = write(tmp_path)
    for number in (3, 1, 2):
        assert make(folder, "--share", f"{number}/3") == [0]
    assert not (folder / "made" / "responses.jsonl").exists()
    assert make(folder, "--merge-shares", "--until", "sample") == [0]
    for number in (2, 3, 1):
        assert make(folder, "--share", f"{number}/3") == [0]
    assert make(folder, "--merge-shares") == [0]
    assert made(folder) == expected


def test_a_missing_share_is_named(write: Callable[..., Path], tmp_path: Path) -> None:
    folder = write(tmp_path)
    assert make(folder, "--share", "1/3") == [0]
    (end,) = launch(folder, "data", "make", "make.yaml", "--merge-shares", "--until", "sample")
    assert end.code == 2
    assert "not finished" in end.output
    assert "shares" in end.output


def test_more_responses_are_added_to_the_existing_ones(
    write: Callable[..., Path], tmp_path: Path, expected: dict[str, bytes]
) -> None:
    folder = write(tmp_path)
    assert make(folder, "sample.n=2") == [0]
    two = made(folder)
    assert make(folder) == [0]
    four = made(folder)
    kept = ("responses.jsonl", "scores/brief.jsonl")
    for name in kept:
        before = {record["id"]: record for record in [*lines(two[name])][1:]}
        after = {record["id"]: record for record in [*lines(four[name])][1:]}
        assert len(after) == 2 * len(before)
        assert {key: after[key] for key in before} == before
        assert [*after.items()] == [
            (record["id"], record) for record in [*lines(expected[name])][1:]
        ]
    assert make(folder, "sample.n=2") == [0]
    assert made(folder)["rows.jsonl"] == two["rows.jsonl"]
    assert made(folder)["responses.jsonl"] == four["responses.jsonl"]


def test_other_settings_are_refused(write: Callable[..., Path], tmp_path: Path) -> None:
    folder = write(tmp_path)
    assert make(folder, "--until", "sample") == [0]
    (end,) = launch(folder, "data", "make", "make.yaml", "sample.temperature=0.5")
    assert end.code == 2
    assert "made with different settings" in end.output
    assert "temperature" in end.output


def test_a_pilot_has_a_directory_of_its_own(
    write: Callable[..., Path], tmp_path: Path, expected: dict[str, bytes]
) -> None:
    folder = write(tmp_path)
    assert make(folder, "--pilot", "5") == [0]
    assert not (folder / "made" / "rows.jsonl").exists()
    _, *responses = lines((folder / "made/pilot-5/responses.jsonl").read_bytes())
    assert len(responses) == 20
    of_all = {r["id"]: r["response"] for r in [*lines(expected["responses.jsonl"])][1:]}
    assert all(of_all[record["id"]] == record["response"] for record in responses)


SCORER = '''
from dataclasses import dataclass
from unidpo_mm.authoring import Candidate, Scorer

@dataclass(frozen=True)
class Pixels(Scorer):
    """The mean of the first image, times a factor."""
    factor: float = 1.0
    scale = (0.0, 255.0)
    sees_images = True

    def score(self, candidates):
        return [self.factor * sum(c.prompt.images[0].open().resize((1, 1)).getpixel((0, 0))) / 3
                if c.prompt.images else 0.0 for c in candidates]

SCORER = Pixels
'''


def test_a_scorer_in_a_file_of_the_user(write: Callable[..., Path], tmp_path: Path) -> None:
    folder = write(tmp_path, score={"pixels": {"scorer": "./pixels.py", "factor": 0.5}})
    (folder / "pixels.py").write_text(SCORER)
    assert len(SCORER.strip().splitlines()) <= 25
    make(folder, kill=Kill(match="pixels.parts", touch=3))
    assert make(folder, "pair.score=total", "score.total.use={brief: 1.0, agree: 1.0}") == [0]
    _, *scores = lines((folder / "made/scores/pixels.jsonl").read_bytes())
    assert 0 < len({record["score"] for record in scores}) <= 6


BAD = """
output: made
prompts: {sources: [{path: prompts.jsonl, format: rankd}], part: 4/3}
sample: {n: 4, temperature: 0, top_q: 1}
score:
  a: {scorer: ruls}
  b: {scorer: rules, max_words: many, colour: 3}
  c: {scorer: rules}
  d: {scorer: combine, use: {e: 1.0}}
pair: {rule: best, score: x, gates: {chosen: [b => 1, z > 0]}}
"""


def test_all_problems_of_a_recipe_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.yaml").write_text(BAD)
    end = run_command("data", "make", "bad.yaml")
    assert end.exit_code == 2
    for part in (
        "key 'prompts.part'",
        "unknown key 'top_q'",
        "unknown scorer 'ruls', did you mean 'rules'?",
        "score.b.max_words",
        "no parameter 'colour'",
        "there is no rule: set at least one",
        "there is no score 'e'",
        "pair.rule",
        "there is no score 'x'",
        "'b => 1' is not a condition",
        "there is no score 'z'",
        "no model is set",
        "all 4 responses to a prompt are equal",
    ):
        assert part in end.output, (part, end.output)

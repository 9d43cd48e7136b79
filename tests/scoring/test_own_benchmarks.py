"""Benchmarks and scorers outside the package: the examples of the page, and broken files."""

import json
import re
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from support.small_benchmarks import varied_checkpoint
from unidpo_mm_eval.authoring import Sample, Scorer
from unidpo_mm_eval.cli.catalog import catalog
from unidpo_mm_eval.plugins import BENCHMARKS, SCORERS

from unidpo_mm import plugins
from unidpo_mm.cli import main as cli
from unidpo_mm.cli.failures import EXIT_CODE
from unidpo_mm.errors import RecipeError

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "benchmarks.md").read_text(encoding="utf-8")
BENCHMARK, SCORER = (
    re.findall(rf"```python\n(# {name}\.py.*?)```", PAGE, re.DOTALL)[0]
    for name in ("my_benchmark", "my_scorer")
)
Command = Callable[..., int]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Return a function that runs `unidpo-mm` in a directory with the examples of the page."""
    (tmp_path / "my_benchmark.py").write_text(BENCHMARK)
    (tmp_path / "my_scorer.py").write_text(SCORER)
    table = "index\tquestion\tanswer\n0\tWhat is red?\tred\n1\tWhat is blue?\tblue\n"
    (tmp_path / "colors.tsv").write_text(table)
    monkeypatch.chdir(tmp_path)

    def run(*words: Any) -> int:
        monkeypatch.setattr(sys, "argv", ["unidpo-mm", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0)

    return run


def responses(*texts: str) -> Path:
    path = Path("mine.jsonl")
    lines = [{"id": str(number), "response": text} for number, text in enumerate(texts)]
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return path


def score(command: Command, output: str, *words: str, benchmark: str = "./my_benchmark.py") -> int:
    line = ("eval", "score", "-b", benchmark, "--data", "colors.tsv", "--predictions", "mine.jsonl")
    return command(*line, "--output", output, *words)


def test_a_model_is_evaluated_on_a_benchmark_in_a_file(command: Command, capsys: Any) -> None:
    for name in ("before", "after"):
        varied_checkpoint(Path(name), "llama")
    line = ("eval", "run", "before", "after", "-b", "./my_benchmark.py", "--data", "colors.tsv")
    options = ("--output", "results", "--dtype", "float32", "--max-new-tokens", 4)
    assert command(*line, *options) == 0, capsys.readouterr().err
    folders = [path.parent for path in sorted(Path("results").rglob("colors.json"))]
    assert len(folders) == 2
    paths = [folder / "colors.json" for folder in folders]
    result = json.loads(paths[0].read_text())
    assert (result["benchmark"], result["metrics"]["n"]) == ("colors", 2)
    assert command("eval", "compare", *paths) == 0, capsys.readouterr().err  # reads the file again
    capsys.readouterr()
    words = ("--predictions", folders[0] / "colors.jsonl", "--scorer", "./my_scorer.py")
    assert command("eval", "score", "-b", "./my_benchmark.py", "--data", "colors.tsv", *words) == 0
    assert "official+my_scorer@1" in capsys.readouterr().out
    # the predictions are those of the run, whatever scores them
    before = (folders[0] / "colors.jsonl").read_bytes()
    assert command(*line, *options, "--scorer", "./my_scorer.py") == 0, capsys.readouterr().err
    assert (folders[0] / "colors.jsonl").read_bytes() == before


def test_a_scorer_in_a_file_changes_the_grades_and_the_protocol(command: Command) -> None:
    responses("It is red.", "Blue.")
    assert score(command, "own.json") == 0
    assert score(command, "other.json", "--scorer", "./my_scorer.py") == 0
    benchmark, other = (json.loads(Path(name).read_text()) for name in ("own.json", "other.json"))
    assert (benchmark["metrics"]["accuracy"], other["metrics"]["accuracy"]) == (50.0, 100.0)
    assert (benchmark["protocol"]["id"], other["protocol"]["id"]) == (
        "official",
        "official+my_scorer",
    )
    assert benchmark["benchmark_file"] == str(Path("my_benchmark.py").absolute())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda text: text.replace("Benchmark(\n", "Benchmark(\n    subject=1,\n"),
            "TypeError: .*subject",
        ),
        (lambda text: text.replace("def grade(", "def grade("[:-1]), "cannot be imported: line "),
        (lambda text: text.replace("BENCHMARK =", "benchmark ="), "has no BENCHMARK that is an"),
        (lambda text: text.replace('name="colors"', 'name="pope"'), "is the name of another bench"),
        (lambda text: "import absent_package\n" + text, "line 1 .*ModuleNotFoundError: No module"),
    ],
)
def test_a_broken_benchmark_is_one_message(
    command: Command, capsys: Any, change: Callable[[str], str], message: str
) -> None:
    responses("red", "blue")
    Path("broken.py").write_text(change(BENCHMARK))
    assert score(command, "own.json", benchmark="./broken.py") == EXIT_CODE
    error = capsys.readouterr().err
    assert re.search(message, error), error
    assert error.count("error: ") == 1
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--scorer", "./absent.py"), "absent.py' does not exist. Use a path relative to the curr"),
        (("--scorer", "./my_benchmark.py"), "has no SCORER that is an unidpo_mm_eval.authoring.Sc"),
        (
            ("--scorer", "officiall"),
            "unknown scorer 'officiall', did you mean 'official'? Choose one",
        ),
    ],
)
def test_a_wrong_scorer_is_one_message(
    command: Command, capsys: Any, words: tuple[str, str], message: str
) -> None:
    responses("red", "blue")
    assert score(command, "own.json", *words) == EXIT_CODE
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_entry_points_are_listed_and_loaded(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any
) -> None:
    points = {
        BENCHMARKS.group: [EntryPoint("colors", "my_benchmark:BENCHMARK", BENCHMARKS.group)],
        SCORERS.group: [EntryPoint("contained", "my_scorer", SCORERS.group)],
    }
    installed = plugins.entry_points
    monkeypatch.setattr(
        plugins, "entry_points", lambda group: points.get(group) or installed(group=group)
    )
    monkeypatch.syspath_prepend(tmp_path)
    names = catalog()
    assert "colors" in [entry.name for entry in names["benchmark"]]
    (scorer,) = names["scorer"]
    assert (scorer.name, scorer.title[:30]) == ("contained", "A response is correct if it co")
    responses("It is red.", "Blue.")
    assert score(command, "own.json", "--scorer", "contained", benchmark="colors") == 0
    result = json.loads(Path("own.json").read_text())
    assert result["metrics"]["accuracy"] == 100.0
    assert "benchmark_file" not in result
    for module in ("my_benchmark", "my_scorer"):
        sys.modules.pop(module)
    plugins._load.cache_clear()


@pytest.mark.parametrize(
    ("scorer", "message"),
    [
        (Scorer(grade=lambda sample, response, options: True), "returns bool, not a Grade"),
        (Scorer(), "neither grade nor grade_all"),
    ],
    ids=["no grade", "no function"],
)
def test_a_scorer_that_cannot_grade_is_explained(scorer: Scorer, message: str):
    with pytest.raises(RecipeError, match=message):
        scorer.grade_responses([(Sample(id="1", where="row 1"), "yes")], {})

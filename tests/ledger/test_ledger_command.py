"""`unidpo-mm ledger` on a run of the command line, and on files that it cannot read."""

import contextlib
import csv
import io
import itertools
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest
from PIL import Image
from support.forked_runs import Kill, preload, train, unidpo_mm
from support.runs import write_run

from unidpo_mm.errors import UniDPOError
from unidpo_mm.ledger.files import OPEN
from unidpo_mm.ledger.tables import by_group, pair_history, read_ledger, top_pairs

Checkpoint = Callable[[str], Path]


@pytest.fixture(scope="module")
def run(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the output directory of a finished run with two parts."""
    folder = tmp_path_factory.mktemp("run")
    os.environ["UNIDPO_MM_CACHE"] = str(folder / "cache")
    preload()
    write_run(folder, checkpoint("llava"))
    words = ("train.max_steps=12", "train.save_steps=8", "train.eval_strategy=no")
    (end,) = train(folder, *words)
    assert end.code == 0, end.output
    return folder / "out"


@dataclass(frozen=True)
class Ended:
    code: int
    stdout: str
    stderr: str


def command(*words: str) -> Ended:
    """Run the command in this process: the threads of polars do not survive a fork."""
    out, err = io.StringIO(), io.StringIO()
    code: int | str | None = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            unidpo_mm("ledger", *words)()
        except SystemExit as end:
            code = end.code
    return Ended(int(code or 0), out.getvalue(), err.getvalue())


def test_the_summary_has_periods_domains_lengths_and_correlations(run: Path) -> None:
    end = command("summary", str(run), "--periods", "3")
    assert end.code == 0, end.stderr
    visits = read_ledger(run).visits.collect()
    pairs = visits["pair_id"].n_unique()
    heading = f"uni_dpo, {len(visits)} visits of {pairs} pairs in steps 1 to 12"
    assert heading in end.stdout
    lines = [line.split() for line in end.stdout.splitlines()]
    assert [line[0] for line in lines if line and line[0] in {"1-4", "5-8", "9-12"}] == [
        "1-4",
        "5-8",
        "9-12",
    ]
    for word in ("By domain", "multimodal", "By number of tokens", "Rank correlation"):
        assert word in end.stdout


def test_lengths_are_divided_into_bands_of_similar_size(run: Path) -> None:
    opened = read_ledger(run)
    table = by_group(opened, "length")
    bands = [tuple(map(int, group.split("-"))) for group in table["group"]]
    assert bands == sorted(bands)
    assert all(low <= high for low, high in bands)
    assert all(left[1] < right[0] for left, right in itertools.pairwise(bands))
    visits = opened.visits.collect()
    assert table["visits"].sum() == len(visits)
    assert table["share_of_contribution"].sum() == pytest.approx(1)
    low, high = bands[0]
    first = visits.filter(pl.col("chosen_length").is_between(low, high))
    assert table["contribution"][0] == pytest.approx(first["contribution"].mean())


def test_rankings_list_pairs_in_their_order(run: Path) -> None:
    opened = read_ledger(run)
    ignored = top_pairs(opened, "ignored", limit=None)
    assert ignored["contribution"].is_sorted()
    assert len(ignored) == opened.visits.collect()["pair_id"].n_unique()
    hard = top_pairs(opened, "hard", limit=None)
    assert (hard["last_margin"] <= 0).all()
    suspected = top_pairs(opened, "suspected", limit=3)
    assert suspected["suspicion"].is_sorted(descending=True)
    end = command("top", str(run), "--ignored", "--limit", "2")
    assert ignored["pair_id"][0] in end.stdout
    assert ignored["pair_id"][2] not in end.stdout
    assert "hard: " not in end.stdout
    every = command("top", str(run), "--limit", "2").stdout
    assert every.index("suspected") < every.index("hard: ") < every.index("ignored: ")


def test_the_history_of_a_pair_has_every_visit(run: Path) -> None:
    opened = read_ledger(run)
    name = opened.visits.collect()["pair_id"][0]
    visits = pair_history(opened, name)
    assert visits["step"].is_sorted()
    end = command("pair", str(run), name)
    assert f"{len(visits)} visits" in end.stdout
    assert f"{visits['w_perf'][-1]:.3g}" in end.stdout
    with pytest.raises(UniDPOError, match="'pairs:' matches 2"):
        pair_history(opened, "pairs:")
    refused = command("pair", str(run), "absent")
    assert refused.code == 2
    assert "no visit of a pair 'absent' is recorded" in refused.stderr


def test_quadrants_divide_all_visits(run: Path) -> None:
    end = command("quadrants", str(run), "--periods", "1")
    assert end.code == 0, end.stderr
    counts = [line.split()[3] for line in end.stdout.splitlines() if line.startswith("  1 ")]
    assert sum(map(int, counts)) == len(read_ledger(run).visits.collect())


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_all_visits_are_exported(run: Path, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"visits.{suffix}"
    end = command("export", str(run), "--output", str(path))
    assert end.code == 0, end.stderr
    expected = read_ledger(run).visits.collect()
    if suffix == "csv":
        rows = list(csv.DictReader(path.read_text().splitlines()))
    elif suffix == "jsonl":
        rows = [json.loads(line) for line in path.read_text().splitlines()]
    else:
        rows = pl.read_parquet(path).to_dicts()
    assert [row["pair_id"] for row in rows] == expected["pair_id"].to_list()
    assert [float(row["contribution"]) for row in rows] == expected["contribution"].to_list()


def test_the_plot_is_an_image(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "plot.png"
    end = command("plot", str(run), "--output", str(path))
    assert end.code == 0, end.stderr
    with Image.open(path) as image:
        assert image.width > 1000


def test_watching_ends_when_the_run_does(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(run / "ledger", tmp_path / "ledger")
    looks: list[float] = []

    def sleep(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 2:
            shutil.copy(run / "manifest.json", tmp_path)

    monkeypatch.setattr("unidpo_mm.cli.ledger.time.sleep", sleep)
    end = command("watch", str(tmp_path), "--seconds", "3")
    assert end.code == 0, end.stderr
    assert looks == [3.0, 3.0]
    assert end.stdout.count("Over time") == 3


def test_outputs_are_refused_before_they_are_written(run: Path, tmp_path: Path) -> None:
    part = next((run / "ledger").glob("*.parquet"))
    before = part.read_bytes()
    for words, text in (
        (("export", "--output", str(part)), "is an input file"),
        (("export", "--output", str(tmp_path / "x.txt")), "use one of .csv, .jsonl, .parquet"),
        (("plot", "--output", str(tmp_path / "x.jpg")), "use .png, .svg or .pdf"),
        (("plot", "--output", str(tmp_path / "absent" / "x.png")), "does not exist"),
    ):
        end = command(words[0], str(run), *words[1:])
        assert end.code == 2, end.stderr
        assert text in " ".join(end.stderr.replace("│", " ").split()), end.stderr
    assert part.read_bytes() == before


def test_a_run_without_ledger_is_explained(tmp_path: Path) -> None:
    end = command("summary", str(tmp_path))
    assert end.code == 2
    assert "it contains no ledger" in end.stderr
    end = command("summary", str(tmp_path / "absent"))
    assert "it is not a directory" in end.stderr


def test_damaged_files_are_named(run: Path, tmp_path: Path) -> None:
    copied = tmp_path / "run"
    shutil.copytree(run / "ledger", copied / "ledger")
    part = sorted((copied / "ledger").glob("*.parquet"))[0]
    part.write_bytes(part.read_bytes()[:100])
    end = command("summary", str(copied))
    assert end.code == 2
    assert f"{part.name}: it cannot be read" in end.stderr
    table = pl.DataFrame({"step": [1]})
    table.write_parquet(part)
    assert "it is not part of a ledger" in command("summary", str(copied)).stderr


def test_the_lines_of_a_killed_run_are_readable(
    checkpoint: Checkpoint, run: Path, tmp_path: Path
) -> None:
    """An open file may end within a batch."""
    write_run(tmp_path, checkpoint("llava"))
    words = ("train.max_steps=3", "train.save_strategy=no", "train.eval_strategy=no")
    train(tmp_path, *words, kill=Kill(match="out/ledger/.steps-to"))
    opened = tmp_path / "out" / "ledger" / OPEN
    lines = len(read_ledger(tmp_path / "out").visits.collect())
    assert lines > 8
    opened.write_bytes(opened.read_bytes()[:-200])
    fewer = read_ledger(tmp_path / "out").visits.collect()
    assert 0 < len(fewer) < lines
    assert set(fewer["step"]) == {1, 2}

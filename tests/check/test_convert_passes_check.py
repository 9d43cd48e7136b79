"""The output of `data convert` passes `data check`."""

import json
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from bad_input import PAIR, SCORED, encoded
from builders import make_image
from support.commands import run_command as run


def write(path: Path, *records: Any) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    make_image(1).save(folder / "good.png")
    (folder / "half.jpg").write_bytes(encoded("JPEG")[:500])
    return folder


@pytest.mark.parametrize("layout", ["native", "trl"])
def test_rows_that_a_check_refuses_are_skipped(tmp_path: Path, images: Path, layout: str) -> None:
    ranked = {"prompt": "?", "responses": [{"text": t, "score": 3} for t in "ab"]}
    records = [
        {**SCORED, "images": ["good.png"]},
        {**SCORED, "images": ["gone.png"]},
        {**SCORED, "images": ["half.jpg"]},
        {**PAIR, "prompt": "without a score"},
        {**SCORED, "prompt": "the same", "chosen": "no"},
        ranked,
        {**SCORED, "prompt": "text"},
    ]
    source = write(images / "rows.jsonl", *records)
    out = tmp_path / "out" / "rows.jsonl"
    out.parent.mkdir()
    words = ("data", "convert", str(source), "--output", str(out), "--to", layout)
    refused = run(*words)
    assert refused.exit_code != 0
    assert "gone.png" in refused.output
    assert not out.exists()
    done = run(*words, "--skip-invalid")
    assert done.exit_code == 0, done.output
    assert "5 of 7 rows skipped" in done.output
    assert "row 4, field 'score_chosen'" in done.output
    checked = run("data", "check", str(out))
    assert checked.exit_code == 0, checked.output
    assert len(out.read_text().splitlines()) == 2


def test_rows_that_only_the_loss_refuses_are_written_and_reported(tmp_path: Path) -> None:
    source = write(tmp_path / "rows.jsonl", SCORED, {**PAIR, "prompt": "without a score"})
    done = run("data", "convert", str(source), "--output", str(tmp_path / "out.jsonl"))
    assert done.exit_code == 0, done.output
    assert (
        "the loss 'uni_dpo' would refuse 1 of the rows, which --skip-invalid skips" in done.output
    )
    assert run("data", "check", str(tmp_path / "out.jsonl"), "--loss", "dpo").exit_code == 0


def test_nothing_is_written_if_no_row_is_left(tmp_path: Path) -> None:
    source = write(tmp_path / "rows.jsonl", {**PAIR, "images": ["gone.png"]})
    words = ("data", "convert", str(source), "--output", str(tmp_path / "out.jsonl"))
    done = run(*words, "--skip-invalid")
    assert "there are no valid rows to write" in done.output
    assert not (tmp_path / "out.jsonl").exists()


def test_pairs_of_a_row_get_ids_that_no_row_has(tmp_path: Path) -> None:
    ranked = {"prompt": "?", "id": "a", "responses": [
        {"text": t, "score": n} for n, t in enumerate("xyz")]}  # fmt: skip
    source = write(tmp_path / "rows.jsonl", ranked, {**SCORED, "id": "a-0"})
    out = tmp_path / "out.jsonl"
    done = run("data", "convert", str(source), "--output", str(out), "--to", "trl")
    assert done.exit_code == 0, done.output
    assert run("data", "check", str(out)).exit_code == 0
    ids = [json.loads(line)["id"] for line in out.read_text().splitlines()]
    assert len(set(ids)) == 4


@pytest.fixture
def address(images: Path) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(images)))
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_images_of_urls_are_written_beside_the_rows(
    tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNIDPO_MM_CACHE", str(tmp_path / "cache"))
    source = write(tmp_path / "rows.jsonl", {**PAIR, "images": [f"{address}/good.png"]})
    recipe = tmp_path / "recipe.yaml"
    sections = {
        "model": {"name_or_path": "none"},
        "data": {
            "sources": [{"path": str(source), "fetch_images": True}],
            "images": {"fetch_private_addresses": True},
        },
        "loss": {"name": "dpo"},
    }
    recipe.write_text(json.dumps(sections))
    out = tmp_path / "out.jsonl"
    done = run("data", "convert", str(recipe), "--output", str(out))
    assert done.exit_code == 0, done.output
    (name,) = json.loads(out.read_text())["images"]
    assert (tmp_path / name).is_file()
    assert run("data", "check", str(out)).exit_code == 0


def test_a_wrong_image_directory_is_a_single_message(tmp_path: Path) -> None:
    records = [{**SCORED, "images": [f"{number}.png"]} for number in range(30)]
    source = write(tmp_path / "rows.jsonl", *records)
    done = run("data", "check", str(source), "--images", str(tmp_path / "wrong"))
    assert done.exit_code == 2
    assert done.output.count("does not exist") == 1
    assert "The same for 29 more" in done.output
    assert "30 problems: a run would not start" in done.output
    for untrue in (
        "same content as an earlier one",
        "there are no rows to train on",
        "contradict another",
    ):
        assert untrue not in done.output


def test_a_single_problem_is_listed_once(tmp_path: Path) -> None:
    source = write(tmp_path / "rows.jsonl", SCORED, {**SCORED, "chosen": ""})
    assert "1 problem: a run" in run("data", "check", str(source)).output

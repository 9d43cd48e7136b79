"""Responses come back through batch files as a server gives them directly."""

import json
import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from support.commands import run_command
from support.served_sampling import (
    OPENAI,
    completion,
    drawn,
    like_vllm,
    sampled,
    served,
    write_prompts,
    write_recipe,
)
from support.stub_server import server

from unidpo_mm.errors import DataError, RecipeError
from unidpo_mm.pipelines import batch_files as module
from unidpo_mm.pipelines.batch_files import BatchFilesWaiting

Row = dict[str, Any]


def lines(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def waits(folder: Path, *overrides: str, **sample: Any) -> str:
    with pytest.raises(BatchFilesWaiting) as waiting:
        sampled(folder, *overrides, batch_files=section(folder), **sample)
    return str(waiting.value)


def section(folder: Path, **settings: Any) -> Row:
    return {"directory": str(folder / "batch"), "model": "org/served", **settings}


def result_of(request: Row, body: bytes | None, status: int = 200) -> Row:
    content = json.loads(body) if body else {"error": {"message": "on purpose"}}
    response = {"status_code": status, "request_id": "x", "body": content}
    error = None if status == 200 else content
    return {"id": "x", "custom_id": request["custom_id"], "response": response, "error": error}


def run_batch(
    folder: Path, number: int, *, lost: Iterable[str] = (), failed: Iterable[str] = ()
) -> None:
    """Answer a file of requests, in another order."""
    rows = []
    for request in lines(folder / "batch" / f"requests-{number}.jsonl"):
        name = request["custom_id"]
        if name in failed:
            rows.append(result_of(request, None, 500))
        elif name not in lost:
            rows.append(result_of(request, like_vllm(request["body"])))
    random.Random(number).shuffle(rows)
    write_results(folder, number, rows)


def write_results(folder: Path, number: int, rows: Iterable[Row]) -> Path:
    path = folder / "batch" / f"results-{number}.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def requests_of(folder: Path, number: int) -> list[Row]:
    return lines(folder / "batch" / f"requests-{number}.jsonl")


def test_results_equal_direct_requests_and_lost_ones_are_requested_again(tmp_path: Path) -> None:
    write_prompts(tmp_path, 200)
    text = waits(tmp_path, n=3)
    directory = tmp_path / "batch"
    assert "600 responses are missing" in text
    command = f"vllm run-batch -i {directory}/requests-1.jsonl -o {directory}/results-1.jsonl "
    assert command + "--model org/served --generation-config vllm" in text
    requests = requests_of(tmp_path, 1)
    names = [request["custom_id"] for request in requests]
    assert len(set(names)) == 200
    assert {(row["method"], row["url"]) for row in requests} == {("POST", "/v1/chat/completions")}
    assert waits(tmp_path, n=3) == text  # nothing is written while results are missing
    assert len([*directory.iterdir()]) == 1
    choice = random.Random(0).sample(names, 20)
    lost, failed = choice[:10], choice[10:]
    run_batch(tmp_path, 1, lost=lost, failed=failed)
    text = waits(tmp_path, n=3)
    assert "60 responses are missing" in text
    assert "10 requests failed (10 server_error), the last: server_error: status 500" in text
    assert "requests-2.jsonl" in text
    assert "requests-1.jsonl" not in text
    again = requests_of(tmp_path, 2)
    assert {row["custom_id"] for row in again} == {*choice}
    assert [row for row in requests if row["custom_id"] in choice] == again
    run_batch(tmp_path, 2)
    through_files = sampled(tmp_path, batch_files=section(tmp_path), n=3)
    (tmp_path / "made" / "responses.jsonl").rename(tmp_path / "through_files.jsonl")
    with server(like_vllm) as stub:
        stub.owner = "vllm"
        direct = sampled(tmp_path, server=served(stub.url), n=3)
    assert through_files == direct
    files = (tmp_path / "through_files.jsonl", tmp_path / "made" / "responses.jsonl")
    first, second = (path.read_text().splitlines() for path in files)
    assert first[1:] == second[1:]
    assert (
        json.loads(first[0])["manifest"]["request"] == json.loads(second[0])["manifest"]["request"]
    )


def test_every_parameter_is_in_each_request(tmp_path: Path) -> None:
    write_prompts(tmp_path, 3)
    waits(tmp_path, n=2)
    body = requests_of(tmp_path, 1)[0]["body"]
    assert {"top_k", "min_p", "repetition_penalty", "seed", "n"} <= body.keys()
    with pytest.raises(DataError, match="requests were written for other settings"):
        waits(tmp_path, "sample.batch_files.kind=openai", n=2)
    (tmp_path / "made" / "responses.parts" / "0.jsonl").unlink()
    with pytest.raises(DataError, match="the requests were written for other settings or prompts"):
        waits(tmp_path, "sample.batch_files.kind=openai", n=2)
    (tmp_path / "batch" / "requests-1.jsonl").unlink()
    text = waits(tmp_path, "sample.batch_files.kind=openai", n=2)
    assert "requests-1.jsonl to the Batch API, and save its output as" in text
    assert requests_of(tmp_path, 1)[0]["body"].keys() <= OPENAI
    with pytest.raises(RecipeError, match=r"support 'top_k'\. Set sample\.batch_files\.kind"):
        waits(tmp_path, "sample.batch_files.kind=openai", n=2, top_k=5)


def test_files_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_prompts(tmp_path, 10)
    monkeypatch.setattr(module, "MAX_REQUESTS", 4)
    assert waits(tmp_path, n=2).count("vllm run-batch") == 3
    assert [len(requests_of(tmp_path, number)) for number in (1, 2, 3)] == [4, 4, 2]
    run_batch(tmp_path, 1)
    text = waits(tmp_path, n=2)
    assert "12 responses are missing" in text
    assert text.count("vllm run-batch") == 2
    for path in (tmp_path / "batch").iterdir():
        path.unlink()
    size = len(json.dumps(requests_of_size(tmp_path))) + 1
    monkeypatch.setattr(module, "MAX_BYTES", 3 * size)
    waits(tmp_path, n=2)
    paths = [*(tmp_path / "batch").iterdir()]
    assert len(paths) == 2
    assert all(path.stat().st_size <= 3 * size for path in paths)
    for path in paths:
        path.unlink()
    monkeypatch.setattr(module, "MAX_BYTES", 10)
    responses = sampled(tmp_path, batch_files=section(tmp_path), n=2)
    assert len([item for item in responses.values() if "fault" in item]) == 12
    assert "bytes, and a file at most 10" in responses["p9#0"]["message"]


def requests_of_size(folder: Path) -> Row:
    """Return a request of the data set."""
    waits(folder, n=2)
    path = folder / "batch" / "requests-1.jsonl"
    request = lines(path)[-1]
    path.unlink()
    (folder / "batch" / "requests-2.jsonl").unlink()
    return request


def changed(change: Callable[[list[Row]], Any]) -> Callable[[Path], Path]:
    """Return a function that writes results with a mistake."""

    def write(folder: Path) -> Path:
        rows = [result_of(row, like_vllm(row["body"])) for row in requests_of(folder, 1)]
        change(rows)
        return write_results(folder, 1, rows)

    return write


@pytest.mark.parametrize(
    ("write", "row", "message"),
    [
        (changed(lambda rows: rows.append(rows[0])), 13, "occurs twice, first in"),
        (changed(lambda rows: rows[4].update(custom_id="mine")), 5, "is not that of a request"),
        (changed(lambda rows: rows[4].update(custom_id="0abc:p4#0-1")), 5, "with other settings"),
        (
            changed(lambda rows: rows[1].update(custom_id=rows[1]["custom_id"].replace("p", "q"))),
            2,
            "belongs to no prompt",
        ),
        (changed(lambda rows: rows[2].pop("custom_id")), 3, "is not a complete result"),
    ],
)
def test_results_with_mistakes_are_refused(
    write: Callable[[Path], Path], row: int, message: str, tmp_path: Path
) -> None:
    write_prompts(tmp_path, 12)
    waits(tmp_path, n=2)
    path = write(tmp_path)
    with pytest.raises(DataError) as refused:
        sampled(tmp_path, batch_files=section(tmp_path), n=2)
    assert f"{path} row {row}: " in str(refused.value)
    assert message in str(refused.value)


def test_incomplete_results_are_refused(tmp_path: Path) -> None:
    write_prompts(tmp_path, 3)
    waits(tmp_path, n=2)
    run_batch(tmp_path, 1)
    path = tmp_path / "batch" / "results-1.jsonl"
    path.write_text(path.read_text()[:-20])
    with pytest.raises(DataError, match=r"row 3: the line is not a complete result of a batch"):
        sampled(tmp_path, batch_files=section(tmp_path), n=2)
    path.write_text("")  # created before the program starts
    assert "requests-1.jsonl" in waits(tmp_path, n=2)
    write_results(tmp_path, 1, [result_of(requests_of(tmp_path, 1)[0], None, 500)])
    waits(tmp_path, n=2)
    run_batch(tmp_path, 2)
    assert len(sampled(tmp_path, batch_files=section(tmp_path), n=2)) == 6
    (tmp_path / "batch" / "results-2-copy.jsonl").write_text(
        (tmp_path / "batch" / "results-2.jsonl").read_text()
    )
    (tmp_path / "made" / "responses.jsonl").unlink()
    with pytest.raises(DataError, match=r"occurs twice, first in .*results-2-copy\.jsonl row 1"):
        sampled(tmp_path, batch_files=section(tmp_path), n=2)


def test_refused_prompts_are_faults(tmp_path: Path) -> None:
    write_prompts(tmp_path, 3)
    waits(tmp_path, n=2)
    rows = [result_of(row, like_vllm(row["body"])) for row in requests_of(tmp_path, 1)]
    rows[1] = result_of(requests_of(tmp_path, 1)[1], None, 400)
    write_results(tmp_path, 1, rows)
    responses = sampled(tmp_path, batch_files=section(tmp_path), n=2)
    assert [name for name, item in responses.items() if "fault" in item] == ["p1#0", "p1#1"]
    assert responses["p1#0"]["fault"] == "refused"


def test_single_choices_lead_to_single_requests(tmp_path: Path) -> None:
    write_prompts(tmp_path, 4)
    waits(tmp_path, n=3)
    rows = [
        result_of(row, completion([drawn(row["body"], row["body"]["seed"])]))
        for row in requests_of(tmp_path, 1)
    ]
    write_results(tmp_path, 1, rows)
    waits(tmp_path, n=3)
    assert [row["custom_id"][13:] for row in requests_of(tmp_path, 2)[:2]] == ["p0#1-1", "p0#2-2"]
    run_batch(tmp_path, 2)
    responses = sampled(tmp_path, batch_files=section(tmp_path), n=3)
    assert len({item["response"] for item in responses.values()}) == 12


def test_refused_numbers_of_choices_lead_to_single_requests(tmp_path: Path) -> None:
    write_prompts(tmp_path, 4)
    waits(tmp_path, n=2)
    write_results(tmp_path, 1, [result_of(row, None, 400) for row in requests_of(tmp_path, 1)])
    waits(tmp_path, n=2)
    assert [row["custom_id"][13:] for row in requests_of(tmp_path, 2)[:2]] == ["p0#0-0", "p0#1-1"]
    run_batch(tmp_path, 2)
    responses = sampled(tmp_path, batch_files=section(tmp_path), n=2)
    assert not [item for item in responses.values() if "fault" in item]


def test_equal_responses_are_refused(tmp_path: Path) -> None:
    write_prompts(tmp_path, 9)
    waits(tmp_path, n=2)
    requests = requests_of(tmp_path, 1)
    write_results(tmp_path, 1, [result_of(row, completion(["A", "A"])) for row in requests])
    with pytest.raises(RecipeError, match="all responses to each of 9 prompts are equal"):
        sampled(tmp_path, batch_files=section(tmp_path), n=2)


def test_the_command_prints_what_to_run_and_ends_with_one(tmp_path: Path) -> None:
    write_prompts(tmp_path, 3)
    recipe = write_recipe(tmp_path, batch_files=str(tmp_path / "batch"))
    done = run_command("data", "make", str(recipe))
    assert done.exit_code == 2
    assert "requests need the name of the model. Set its key 'model'" in done.output
    recipe = write_recipe(tmp_path, batch_files=section(tmp_path))
    done = run_command("data", "make", str(recipe))
    assert done.exit_code == 1
    assert "vllm run-batch -i" in done.output
    run_batch(tmp_path, 1)
    assert run_command("data", "make", str(recipe), "--until", "sample").exit_code == 0
    done = run_command("data", "make", str(recipe), "--share", "1/2", "sample.n=9")
    assert "Sample without `accelerate launch` and --share" in done.output


def test_a_directory_that_is_a_file_is_refused(tmp_path: Path) -> None:
    write_prompts(tmp_path, 3)
    (tmp_path / "batch").write_text("")
    with pytest.raises(RecipeError, match="is not a directory"):
        sampled(tmp_path, batch_files=section(tmp_path))

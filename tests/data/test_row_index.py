"""Rows that have been encoded once are not encoded again, unless anything about them changes."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
from builders import load_tiny, make_image, mixed_rows
from support.commands import run_command

from unidpo_mm.cache.row_index import NUMBERS, add_rows, index_path, read_index
from unidpo_mm.data.digest import row_digests
from unidpo_mm.data.images import FileImage
from unidpo_mm.data.measure import encoding_fingerprint
from unidpo_mm.data.preflight import Preflight, survey
from unidpo_mm.errors import Problem
from unidpo_mm.records import PreferenceRow, Response

Checkpoint = Callable[[str], Path]


class Counting:
    """An adapter that counts the rows that it encodes."""

    def __init__(self, adapter: Any) -> None:
        self._adapter = adapter
        self.encoded: list[str] = []

    def encode(self, row: PreferenceRow) -> Any:
        self.encoded.append(row.id)
        return self._adapter.encode(row)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._adapter, name)


@pytest.fixture
def rows(tmp_path: Path) -> list[PreferenceRow]:
    """Return rows; the image of one of them is a file."""
    make_image(1).save(tmp_path / "image.png")
    result = mixed_rows(images=True)
    number = next(n for n, row in enumerate(result) if len(row.images) == 1)
    image = FileImage(tmp_path / "image.png", "here")
    result[number] = dataclasses.replace(result[number], images=(image,))
    return result


def surveyed(
    checkpoint: Checkpoint, rows: list[PreferenceRow], **options: Any
) -> tuple[Preflight, list[Problem], list[str]]:
    adapter = Counting(load_tiny(checkpoint("llava"), **options).adapter)
    counts, problems = survey(rows, adapter, keep=True)
    return counts, problems, adapter.encoded


def test_a_second_start_encodes_nothing_and_counts_the_same(
    checkpoint: Checkpoint, rows: list[PreferenceRow]
) -> None:
    first, problems, encoded = surveyed(checkpoint, rows)
    assert (problems, len(encoded)) == ([], len(rows))
    again, problems, encoded = surveyed(checkpoint, rows)
    assert (again, problems, encoded) == (first, [], [])
    moved = [dataclasses.replace(row, id=f"x{n}", where="y") for n, row in enumerate(rows[::-1])]
    assert surveyed(checkpoint, moved)[2] == []


def test_changed_rows_and_images_are_encoded_again(
    checkpoint: Checkpoint, rows: list[PreferenceRow], tmp_path: Path
) -> None:
    surveyed(checkpoint, rows)
    rows[0] = dataclasses.replace(rows[0], responses=(Response("new", 1.0), rows[0].responses[1]))
    assert surveyed(checkpoint, rows)[2] == [rows[0].id]
    make_image(2, (60, 60)).save(tmp_path / "image.png")  # the path is the same
    assert len(surveyed(checkpoint, rows)[2]) == 1


@pytest.mark.parametrize("options", [{"max_length": 4000}, {"prompt_style": "raw"}], ids=str)
def test_other_options_encode_all_rows(
    checkpoint: Checkpoint, rows: list[PreferenceRow], options: dict[str, Any]
) -> None:
    surveyed(checkpoint, rows)
    assert len(surveyed(checkpoint, rows, **options)[2]) == len(rows)


def test_another_template_or_tokenizer_is_another_index(checkpoint: Checkpoint) -> None:
    adapter: Any = load_tiny(checkpoint("llava")).adapter
    before = encoding_fingerprint(adapter)
    assert before == encoding_fingerprint(load_tiny(checkpoint("llava")).adapter)
    adapter.processor.tokenizer.add_tokens(["<new>"])
    after = encoding_fingerprint(adapter)
    adapter.processor.chat_template = "{{ messages }}"
    assert len({before, after, encoding_fingerprint(adapter)}) == 3


def test_rows_with_problems_are_reported_at_every_start(
    checkpoint: Checkpoint, rows: list[PreferenceRow], tmp_path: Path
) -> None:
    options = {"max_length": 40, "length_policy": "error"}
    _, first, _ = surveyed(checkpoint, rows, **options)
    assert first
    _, again, encoded = surveyed(checkpoint, rows, **options)
    assert again == first
    assert 0 < len(encoded) < len(rows)
    (tmp_path / "image.png").unlink()
    assert len(surveyed(checkpoint, rows, **options)[1]) > len(first)


def test_a_damaged_index_is_written_again(
    checkpoint: Checkpoint, rows: list[PreferenceRow], tmp_path: Path
) -> None:
    first, _, _ = surveyed(checkpoint, rows)
    path = index_path(str(encoding_fingerprint(Counting(load_tiny(checkpoint("llava")).adapter))))
    path.write_bytes(path.read_bytes()[:-40])
    assert run_command("cache", "verify", "--dry-run").output.count("damaged") == 1
    again, problems, encoded = surveyed(checkpoint, rows)
    assert (again, problems, len(encoded)) == (first, [], len(rows))
    assert surveyed(checkpoint, rows)[2] == []
    assert f"lengths of {len(rows)} rows" in run_command("cache", "info").output
    assert run_command("cache", "prune", "--days", "0").exit_code == 0
    assert not path.exists()


def test_rows_that_another_process_adds_are_kept(rows: list[PreferenceRow], tmp_path: Path) -> None:
    path = index_path("x")
    keys = row_digests(rows)
    for number, key in enumerate(keys):
        values = {**dict.fromkeys(NUMBERS, number), "responses": (number, 7)}
        add_rows(path, {keys[0]: {**values, "responses": ()}, key: values})
    index = read_index(path)
    places = index.find(numpy.frombuffer(b"".join([*keys, b"x" * 32]), numpy.uint8).reshape(-1, 32))
    assert len(index) == len(keys)
    assert places[-1] == -1
    prompts = index.columns["prompt"][places[:-1]].tolist()
    assert prompts == [len(keys) - 1, *range(1, len(keys))]  # the first was added again
    spans = [index.lengths[index.offsets[n] : index.offsets[n + 1]].tolist() for n in places[:-1]]
    assert spans == [[], *([n, 7] for n in range(1, len(keys)))]


def test_keys_with_the_same_beginning_are_different(tmp_path: Path) -> None:
    path = index_path("y")
    keys = [b"a" * 31 + bytes([n]) for n in range(5)]
    for number in (3, 0, 4):
        add_rows(path, {keys[number]: {**dict.fromkeys(NUMBERS, number), "responses": (1,)}})
    index = read_index(path)
    places = index.find(numpy.frombuffer(b"".join(keys), numpy.uint8).reshape(-1, 32))
    assert [-1 if n < 0 else int(index.columns["pairs"][n]) for n in places] == [0, -1, -1, 3, 4]

"""Hashes of questions are computed once, and again if anything they depend on has changed."""

from collections.abc import Iterator
from pathlib import Path

import numpy
import pytest
from support.planted_images import photo
from typer.testing import CliRunner

from unidpo_mm.cache.question_store import question_path
from unidpo_mm.cli.main import build_app
from unidpo_mm.data.images import FileImage, UrlImage
from unidpo_mm.data.leak_index import LeakIndex
from unidpo_mm.data.leaks import keep_out
from unidpo_mm.data.question_cache import cached_hashes, files_digest
from unidpo_mm.data.questions import Question, QuestionHashes, hash_questions

KEY = "a" * 64


class Source:
    """Questions about image files, which counts how often they are read."""

    def __init__(self, *files: Path) -> None:
        self.files, self.reads = files, 0

    def __call__(self) -> Iterator[Question]:
        self.reads += 1
        for number, file in enumerate(self.files):
            where = f"f.jsonl row {number}"
            images = (FileImage(file, where),)
            yield Question(where=where, text=f"What \u00e9 is {number}?", images=images)


@pytest.fixture
def source(tmp_path, monkeypatch) -> Source:
    monkeypatch.setattr("unidpo_mm.data.content.SETTLED_NS", 0)  # ctime cannot be set
    files = [tmp_path / f"{n}.png" for n in range(3)]
    for number, file in enumerate(files):
        photo(number, (60, 40)).save(file)
    return Source(*files)


def same(first: QuestionHashes, second: QuestionHashes) -> bool:
    return all(numpy.array_equal(getattr(second, n), v) for n, v in vars(first).items())


def test_the_second_time_reads_the_cache(source):
    first, second = (cached_hashes(KEY, source, "13gram") for _ in range(2))
    assert source.reads == 1
    assert same(first, second)
    assert same(first, hash_questions(source(), "13gram"))


def test_another_rule_or_key_is_computed_again(source):
    cached_hashes(KEY, source)
    cached_hashes(KEY, source, "13gram")
    cached_hashes("b" * 64, source)
    assert source.reads == 3


def test_a_changed_image_is_read_again(source):
    before = cached_hashes(KEY, source)
    photo(9, (61, 40)).save(source.files[1])
    after = cached_hashes(KEY, source)
    assert source.reads == 2
    assert (before.media_keys == after.media_keys).tolist() == [True, False, True]


def test_missing_images_and_failed_downloads_are_tried_again(source):
    source.files[0].unlink()
    assert len(cached_hashes(KEY, source).unreadable) == 1
    photo(0, (60, 40)).save(source.files[0])
    assert cached_hashes(KEY, source).unreadable == ()
    failing = UrlImage("http://127.0.0.1:9/none.png", "row 1")
    questions = [Question(where="row 1", text="What?", images=(failing,))]
    assert cached_hashes("b" * 64, lambda: questions).unreadable == (failing.describe(),)
    assert not question_path(f"{'b' * 64}-exact").exists()


@pytest.mark.parametrize("damage", ["cut", "overwritten", "empty", "other arrays", "not a store"])
def test_a_damaged_file_is_written_again(source, damage, caplog):
    expected = cached_hashes(KEY, source)
    path = question_path(f"{KEY}-exact")
    content = path.read_bytes()
    if damage == "cut":
        path.write_bytes(content[:-200])
    elif damage == "overwritten":
        path.write_bytes(content.replace(expected.stems.tobytes(), b"\xa5" * 24))
    elif damage == "other arrays":
        numpy.savez(path, stems=expected.stems, json=numpy.frombuffer(b"{}", numpy.uint8))
    else:
        path.write_bytes(b"" if damage == "empty" else b"text" * 99)
    assert same(expected, cached_hashes(KEY, source))
    assert source.reads == 2
    assert ("written again" in caplog.text) is (damage != "other arrays")
    assert path.read_bytes() == content
    cached_hashes(KEY, source)
    assert source.reads == 2


def test_a_cache_that_cannot_be_written_is_no_problem(source, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    assert len(cached_hashes(KEY, source, cache=tmp_path / "file")) == 3
    assert "not saved" in caplog.text


def test_the_cache_commands_list_verify_and_remove_the_files(source):
    cached_hashes(KEY, source)
    path = question_path(f"{KEY}-exact")

    def run(*arguments: str) -> str:
        return CliRunner().invoke(build_app(list(arguments)), list(arguments)).output

    assert "hashes of 3 questions" in run("cache", "info")
    assert "3 entries intact" in run("cache", "verify")
    path.write_bytes(path.read_bytes()[:-200])
    assert "cannot be read" in run("cache", "info")
    assert "damaged" in run("cache", "verify", "--dry-run")
    assert path.exists()
    assert "removed" in run("cache", "verify")
    cached_hashes(KEY, source)
    assert "1 store removed" in run("cache", "prune", "--days", "0")
    assert not path.exists()


def test_the_digest_covers_content_settings_and_directories(tmp_path):
    file, folder = tmp_path / "a.jsonl", tmp_path / "folder"
    folder.mkdir()
    file.write_text("1")
    (folder / "b.png").write_text("2")
    first = files_digest([file, folder])
    assert files_digest([folder, file]) == first
    assert files_digest([file, folder], {"images": "x"}) != first
    file.write_text("3")
    second = files_digest([file, folder])
    (folder / "b.png").write_text("34")
    assert len({first, second, files_digest([file, folder])}) == 3


def test_hashes_of_other_prompts_are_refused(source):
    index = LeakIndex(hash_questions(source()))
    prompts = list(source())
    assert keep_out(prompts, index, lambda prompt: [prompt], key=KEY).kept == ()
    assert keep_out(prompts, index, lambda prompt: [prompt], key=KEY).kept == ()
    with pytest.raises(ValueError, match="belongs to other prompts"):
        keep_out(prompts[1:], index, lambda prompt: [prompt], key=KEY)

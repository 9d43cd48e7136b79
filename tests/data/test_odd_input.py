"""Unusual values in real files are read correctly or reported; none is lost or made up."""

import base64
import io
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from builders import make_image

from unidpo_mm import plugins
from unidpo_mm.config import ScoreOptions, SourceOptions
from unidpo_mm.data.images import FileImage, ImageRules, MemoryImage, image_refs
from unidpo_mm.data.load import Loaded, load_rows, read_records, read_sources
from unidpo_mm.errors import DataError

PAIR: dict[str, Any] = {"prompt": "What?", "chosen": "good a", "rejected": "bad b"}


def result(loaded: Loaded) -> list[str]:
    return [str(problem) for problem in loaded.problems]


def write(path: Path, *records: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


# ---- prompts ----


@pytest.mark.parametrize("name", ["prompt", "question", "input", "query", "problem"])
@pytest.mark.parametrize("value", [None, "What is 2 + 2?"])
def test_responses_are_not_split_if_there_is_a_prompt_column(name: str, value: str | None) -> None:
    record = {name: value, "chosen": "The answer is 4", "rejected": "The answer is 5"}
    loaded = read_records([record])
    if name in ("prompt", "question") and value:
        assert loaded.rows[0].messages[0].text == value
        return
    assert not loaded.rows
    assert "columns: {prompt: question}" in result(loaded)[0]


@pytest.mark.parametrize(
    ("chosen", "rejected", "prompt"),
    [
        ("The sky is blue.", "The sky is green.", "The sky is"),
        ("The sky is blue", "The sky is blue and wide", "The sky is"),
        ("a b apple", "a b apricot", "a b"),
        ("apple", "apricot", None),
    ],
)
def test_an_implicit_prompt_ends_with_a_turn_or_a_word(
    chosen: str, rejected: str, prompt: str | None
) -> None:
    loaded = read_records([{"chosen": chosen, "rejected": rejected}])
    assert [row.messages[0].text for row in loaded.rows] == ([prompt] if prompt else [])
    if prompt:
        (row,) = loaded.rows
        assert [prompt + r.text for r in row.responses] == [chosen, rejected]


def test_a_transcript_in_one_string_is_split_into_turns() -> None:
    requests = "\n\nHuman: hi\n\nAssistant: hello\n\nHuman: Is tea hot?\n\nAssistant: Yes"
    (row,) = read_records([{"chosen": requests, "rejected": f"{requests}, and cold"}]).rows
    assert [(m.role, m.text) for m in row.messages] == [
        ("user", "hi"), ("assistant", "hello"), ("user", "Is tea hot?")]  # fmt: skip
    assert [r.text for r in row.responses] == ["Yes", "Yes, and cold"]


def test_turns_inside_a_prompt_of_helpsteer_are_turns() -> None:
    prompt = "Hi\n<extra_id_1>Assistant\nhello\n<extra_id_1>User\nA joke?"
    record = {"prompt": prompt, "response_1": "a", "response_2": "b", "preference_strength": -2}
    (row,) = read_records([record]).rows
    assert [m.role for m in row.messages] == ["user", "assistant", "user"]


def test_additional_keys_of_a_message_reach_the_template() -> None:
    turn = {"role": "tool", "content": "4", "name": "weather", "tool_call_id": "x", "index": None}
    (row,) = read_records([{**PAIR, "prompt": [{"role": "user", "content": "?"}, turn]}]).rows
    assert json.loads(row.messages[1].extras) == {"name": "weather", "tool_call_id": "x"}


@pytest.mark.parametrize("name", ["prompt", "chosen"])
def test_an_unpaired_surrogate_is_a_problem_of_its_row(name: str) -> None:
    loaded = read_records([{**PAIR, name: "Q \ud83d?"}])
    assert "the text contains an unpaired surrogate at position 2" in result(loaded)[0]


# ---- answers and scores ----


def test_lists_of_completions_of_different_lengths_are_a_problem() -> None:
    completions = {"response": ["a", "b", "c"], "overall_score": [1, 2]}
    loaded = read_records([{"instruction": "q", "completions": completions}])
    assert "have different lengths" in result(loaded)[0]


@pytest.mark.parametrize("rating", ["1/5", "-4", "²", "five"])
def test_a_rating_that_is_none_is_a_problem(rating: str) -> None:
    completions = [
        {"response": text, "annotations": {"Help": {"Rating": r}, "Truth": {"Rating": "3"}}}
        for text, r in (("a", "4"), ("b", rating))
    ]
    loaded = read_records([{"prompt": "q", "completions": completions}])
    assert f"found {rating!r}" in result(loaded)[0]


def test_two_rejected_responses_are_a_problem() -> None:
    messages = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "a"}]
    record = {"messages": messages, "rejected_response": "b", "rejected_messages": messages}
    assert "there are two rejected responses" in result(read_records([record]))[0]


def test_the_weight_of_a_row_counts_beside_those_of_its_pairs() -> None:
    answers = [{"text": "a"}, {"text": "b"}]
    record = {"prompt": "?", "responses": answers, "pairs": [[1, 0, 0.5], [0, 1]], "weight": 0.5}
    (row,) = read_records([record]).rows
    assert [pair.weight for pair in row.pairs] == [0.25, 0.5]


@pytest.mark.parametrize(
    "record",
    [
        {**PAIR, "score_chosen": 10**400, "score_rejected": 1},
        {**PAIR, "weight": 10**400},
        {"prompt": "?", "responses": [{"text": "a"}, {"text": "b"}], "pairs": [[0, 10**400]]},
        {**PAIR, "tools": "[" * 100_000},
        {"text": "[" * 100_000, "image": "p.png"},
        {1: "a", "prompt": "b"},
    ],
    ids=["score", "weight", "pair", "tools", "text", "column"],
)
def test_huge_numbers_and_deep_nesting_are_problems(record: dict[str, Any]) -> None:
    loaded = read_records([record])
    assert not loaded.rows
    assert loaded.problems


def test_numpy_and_decimal_numbers_are_accepted() -> None:
    import numpy as np

    for item in (np.int64(4), np.float32(4), Decimal("4")):
        (row,) = read_records([{**PAIR, "score_chosen": item, "score_rejected": 1}]).rows
        assert row.responses[0].score == 4.0


def test_a_data_set_of_arrays_is_read_as_numbers_and_lists() -> None:
    from datasets import Dataset, DatasetDict

    dataset = Dataset.from_list([{**PAIR, "score_chosen": 4, "score_rejected": 1}])
    (row,) = read_records(dataset.with_format("numpy")).rows
    assert [r.score for r in row.responses] == [4.0, 1.0]
    loaded = read_records(DatasetDict({"train": dataset}))
    assert "expected a list of rows, got DatasetDict of train" in result(loaded)[0]


# ---- images ----


def test_images_in_two_places_are_a_problem(tmp_path: Path) -> None:
    make_image(1).save(tmp_path / "a.png")
    source = SourceOptions(path="data", images=str(tmp_path))
    inside = [{"role": "user", "content": [{"type": "image", "image": "b.png"}]}]
    for record in (
        {**PAIR, "images": ["a.png"], "image": "b.png"},
        {**PAIR, "images": ["a.png"], "prompt": inside},
    ):
        assert "there are images in images and in" in result(read_records([record], source))[0]


def test_images_inside_the_prompt_are_its_images(tmp_path: Path) -> None:
    make_image(1).save(tmp_path / "a.png")
    parts = [{"type": "image", "image": "a.png"}, {"type": "text", "text": "What?"}]
    source = SourceOptions(path="data", images=str(tmp_path))
    (row,) = read_records([{**PAIR, "prompt": [{"role": "user", "content": parts}]}], source).rows
    assert row.images[0].open().size == (40, 30)


@pytest.mark.parametrize("name", ["a" * 300 + ".png", "a" * 5000])
def test_a_name_too_long_for_a_file_is_a_problem(name: str) -> None:
    (image,) = image_refs(name, ImageRules(), "here")
    with pytest.raises(DataError):
        image.open()


def test_base64_of_the_web_is_the_image() -> None:
    stream = io.BytesIO()
    make_image(1, (200, 200)).save(stream, "PNG")
    text = base64.urlsafe_b64encode(stream.getvalue()).decode()
    (image,) = image_refs(text, ImageRules(), "here")
    assert image.open().size == (200, 200)


@pytest.mark.parametrize(
    "address", ["http://h/a b.png", "http://h/é.png", "http://[::1/a.png", f"http://{'a' * 80}/p"]
)
def test_an_invalid_url_is_a_problem(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNIDPO_MM_CACHE", str(tmp_path))
    (image,) = image_refs(address, ImageRules(download=True), "here")
    with pytest.raises(DataError, match="cannot be downloaded"):
        image.open()


def test_the_limit_of_pixels_holds_for_images_in_memory_too() -> None:
    with pytest.raises(DataError, match="has 40 x 30 pixels and the limit is 1,000"):
        MemoryImage(make_image(1), "here", 1000).open()


def test_whatever_a_decoder_raises_is_a_problem() -> None:
    class Broken:
        size = (1, 1)

        def convert(self, mode: str) -> Any:
            raise RuntimeError("conversion failed")

        def tobytes(self) -> bytes:
            raise RuntimeError("conversion failed")

        getexif = tobytes

    with pytest.raises(DataError, match="cannot be read"):
        MemoryImage(Broken(), "here").open()


def test_the_file_system_root_is_an_ordinary_directory(tmp_path: Path) -> None:
    make_image(1).save(tmp_path / "a.png")
    rules = ImageRules(folder=Path("/"), explicit=True)
    (image,) = image_refs(str(tmp_path / "a.png"), rules, "here")
    assert isinstance(image, FileImage)
    assert image.open().size == (40, 30)


# ---- files and folders ----


def test_files_of_one_name_have_rows_of_different_names(tmp_path: Path) -> None:
    paths = [write(tmp_path / folder / "train.jsonl", PAIR, PAIR) for folder in "ab"]
    loaded = read_sources([SourceOptions(path=str(path)) for path in paths])
    assert not loaded.problems
    assert len({row.id for row in loaded.rows}) == 4
    assert [report.rows for report in loaded.reports] == [2, 2]


def test_a_bad_row_of_a_folder_is_named_with_its_file(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", PAIR)
    write(tmp_path / "b.jsonl", PAIR, {**PAIR, "chosen": ""})
    loaded = read_sources([SourceOptions(path=str(tmp_path))])
    assert len(loaded.rows) == 2
    assert result(loaded)[0].startswith(f"{tmp_path / 'b.jsonl'} row 2, field 'chosen'")


def test_a_folder_of_several_kinds_of_files_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", PAIR)
    (tmp_path / "b.json").write_text("[]")
    assert (
        "files of several kinds (.json, .jsonl)"
        in result(read_sources([SourceOptions(path=str(tmp_path))]))[0]
    )


@pytest.mark.parametrize("inside", ["", "data"])
def test_the_requested_split_of_a_directory_is_read(tmp_path: Path, inside: str) -> None:
    from datasets import Dataset

    folder = tmp_path / "set" / inside
    folder.mkdir(parents=True)
    for split, rows in (("train", 3), ("test", 2)):
        name = f"{split}-00000-of-00001.parquet"
        Dataset.from_list([PAIR] * rows).to_parquet(folder / name)
    for split, rows in ((None, 3), ("train", 3), ("test", 2)):
        loaded = read_sources([SourceOptions(path=str(tmp_path / "set"), split=split)])
        assert (len(loaded.rows), result(loaded)) == (rows, [])


def test_a_saved_data_set_and_an_arrow_file_are_read(tmp_path: Path) -> None:
    from datasets import Dataset, DatasetDict

    dataset = Dataset.from_list([PAIR, PAIR])
    dataset.save_to_disk(tmp_path / "plain")
    DatasetDict({"train": dataset, "test": dataset.select([0])}).save_to_disk(tmp_path / "dict")
    arrow = next((tmp_path / "plain").glob("*.arrow"))
    for path, split, rows in (
        (tmp_path / "plain", None, 2),
        (arrow, None, 2),
        (tmp_path / "dict", None, 2),
        (tmp_path / "dict", "test", 1),
    ):
        assert len(load_rows([SourceOptions(path=str(path), split=split)])) == rows
    loaded = read_sources([SourceOptions(path=str(tmp_path / "dict"), split="dev")])
    assert "there is no split 'dev' among train, test" in result(loaded)[0]


def test_a_damaged_file_is_reported_with_the_problems_of_its_readable_rows(tmp_path: Path) -> None:
    from datasets import Dataset

    path = tmp_path / "rows.parquet"
    rows = [{**PAIR, "chosen": "" if n == 0 else f"answer {n} {'x' * 50}"} for n in range(4000)]
    Dataset.from_list(rows).to_parquet(path, batch_size=1000)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 3000] = bytes(3000)
    path.write_bytes(content)
    loaded = read_sources([SourceOptions(path=str(path))])
    assert any("row 1, field 'chosen'" in text for text in result(loaded))
    assert any("not a valid Parquet file" in text for text in result(loaded))
    assert loaded.rows


def test_columns_that_no_row_has_are_a_problem() -> None:
    source = SourceOptions(path="data", columns={"score_chosen": "sc"})
    assert (
        "columns.score_chosen: no row has a column 'sc'" in result(read_records([PAIR], source))[0]
    )


def test_unused_columns_are_reported_before_a_run(caplog: pytest.LogCaptureFixture) -> None:
    from unidpo_mm.data.load import log_reports

    log_reports(read_records([{**PAIR, "screenshot": "a.png"}]).reports)
    assert "unused columns: screenshot (1)" in caplog.text
    assert "if the unused" not in caplog.text


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("chosen_score", "score_chosen"),
        ("rejectedScore", "score_rejected"),
        ("score_choosen", "score_chosen"),
        ("Images", "images"),
        ("judge", None),
        ("chosen_model", None),
    ],
)
def test_an_unused_column_that_resembles_one_of_the_format_is_named(
    name: str, column: str | None
) -> None:
    (report,) = read_records([{**PAIR, name: 3}]).reports
    hints = [sentence for sentence in report.sentences() if sentence.startswith("if the unused")]
    assert hints == (
        []
        if column is None
        else [
            f"if the unused column '{name}' is '{column}', set the source's columns to "
            f"{{{column}: {name}}}"
        ]
    )


def test_a_column_replaced_by_another_does_not_resemble_itself() -> None:
    rows = [{**PAIR, "score_chosen": 1, "good": 9, "score_rejected": 2}]
    loaded = read_records(rows, SourceOptions(path="data", columns={"score_chosen": "good"}))
    assert not any("if the unused" in text for text in loaded.reports[0].sentences())


@pytest.mark.parametrize("entry", [{"tags": 5}, {"columns": ["a"]}])
def test_a_registry_with_odd_entries_is_refused(tmp_path: Path, entry: dict[str, Any]) -> None:
    (tmp_path / "rows.json").write_text("[]")
    complete = {"file_name": "rows.json", "ranking": True, "formatting": "sharegpt", **entry}
    (tmp_path / "dataset_info.json").write_text(json.dumps({"a": complete}))
    loaded = read_sources([SourceOptions(path=str(tmp_path / "dataset_info.json"), subset="a")])
    assert "Write an object" in result(loaded)[0]


def test_options_and_role_names_of_a_registry_entry_are_used(tmp_path: Path) -> None:
    turn = {"speaker": "bot", "words": "a"}
    row = {"talk": [{"speaker": "me", "words": "?"}], "good": turn, "bad": {**turn, "words": "b"}}
    (tmp_path / "rows.json").write_text(json.dumps([row, row, row]))
    entry = {
        "file_name": "rows.json",
        "ranking": True,
        "formatting": "sharegpt",
        "num_samples": 2,
        "columns": {"messages": "talk", "chosen": "good", "rejected": "bad"},
        "tags": {"role_tag": "speaker", "content_tag": "words", "user_tag": "me",
                 "assistant_tag": "bot"},
    }  # fmt: skip
    (tmp_path / "dataset_info.json").write_text(json.dumps({"a": entry}))
    source = SourceOptions(path=str(tmp_path / "dataset_info.json"), subset="a")
    rows = load_rows([source])
    assert len(rows) == 2
    assert (rows[0].source, rows[0].messages[0].role) == ("a", "user")
    assert [r.text for r in rows[0].responses] == ["a", "b"]


def test_rows_without_a_pair_are_dropped_with_ties() -> None:
    ties = {"prompt": "?", "responses": [{"text": t, "score": 5} for t in "ab"]}
    alone = {"prompt": "?", "response": "a", "helpfulness": 3}
    source = SourceOptions(path="data", scores=ScoreOptions(ties="drop"))
    loaded = read_records([ties, alone], source)
    assert not loaded.rows
    assert loaded.reports[0].pairs.rows_dropped == 2


def test_installed_packages_are_not_searched_for_formats_at_every_row(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    searches = []
    installed = plugins.entry_points
    monkeypatch.setattr(
        plugins, "entry_points", lambda **group: searches.append(group) or installed(**group)
    )
    assert len(read_records([PAIR] * 50).rows) == 50
    assert len(searches) <= 2

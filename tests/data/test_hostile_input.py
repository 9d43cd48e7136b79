"""Regressions in reading data: no value is silently lost, altered or overwritten.

`bad_input.py` has the ordinary kinds of bad input.
"""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from builders import make_image
from PIL import Image
from support.commands import run_command as run

from unidpo_mm.config import ScoreOptions, SourceOptions, load_recipe
from unidpo_mm.config.from_recipe import config_of
from unidpo_mm.config.python import UniDPOConfig
from unidpo_mm.data.convert import write_rows
from unidpo_mm.data.groups import group_by_prompt
from unidpo_mm.data.images import MemoryImage
from unidpo_mm.data.load import Loaded, load_rows, read_records, read_sources
from unidpo_mm.data.scores import mapping_to
from unidpo_mm.errors import ImageError, Problem, RecipeError, UniDPOError
from unidpo_mm.training.configured_loss import configured_loss

PAIR: dict[str, Any] = {"prompt": "What?", "chosen": "yes", "rejected": "no"}
SCORED = {**PAIR, "score_chosen": 4, "score_rejected": 1}


def write(path: Path, *records: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def requests(number: int) -> dict[str, Any]:
    return {**PAIR, "prompt": f"Question {number}"}


def read(path: Path, **settings: Any) -> Loaded:
    return read_sources([SourceOptions(path=str(path), **settings)])


def result(loaded: Loaded) -> list[str]:
    return [str(problem) for problem in loaded.problems]


def questions(loaded: Loaded) -> list[str]:
    return [row.messages[0].text for row in loaded.rows]


# ---- folders ----


def test_the_files_of_the_requested_split_are_read(tmp_path: Path) -> None:
    for number, name in enumerate(("train.jsonl", "train-2.jsonl", "val.jsonl")):
        write(tmp_path / name, requests(number))
    assert questions(read(tmp_path)) == ["Question 1", "Question 0"]  # train-2 comes before train.
    for split in ("val", "valid", "validation"):
        assert questions(read(tmp_path, split=split)) == ["Question 2"]
    assert "no split 'test' among train, validation" in result(read(tmp_path, split="test"))[0]


def test_splits_are_recognized_in_the_file_names_of_a_cloned_data_set(tmp_path: Path) -> None:
    for number, name in enumerate(("train_prefs-00000-of-00001", "test_prefs-00000-of-00001")):
        write(tmp_path / "data" / f"{name}.jsonl", requests(number))
    (tmp_path / "dataset_infos.json").write_text("{}", encoding="utf-8")
    assert questions(read(tmp_path, split="test_prefs")) == ["Question 1"]
    assert "among test_prefs, train_prefs" in result(read(tmp_path))[0]


def test_files_with_and_without_a_split_in_their_name_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "docvqa_train_56k.jsonl", requests(1))
    write(tmp_path / "geometry3k_en.jsonl", requests(2))
    loaded = read(tmp_path)
    assert not loaded.rows
    assert (
        "the names of docvqa_train_56k.jsonl contain a split, those of geometry3k_en.jsonl do not"
        in (result(loaded)[0])
    )


def test_one_broken_or_empty_file_of_a_folder_does_not_hide_the_others(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[", encoding="utf-8")
    (tmp_path / "b.json").write_text("{}", encoding="utf-8")
    (tmp_path / "c.json").write_text("[]", encoding="utf-8")
    (tmp_path / "d.json").write_text(json.dumps([PAIR]), encoding="utf-8")
    loaded = read(tmp_path)
    assert len(loaded.rows) == 1
    assert [problem.where for problem in loaded.problems] == [
        str(tmp_path / name) for name in ("a.json", "b.json", "c.json")
    ]


def test_values_of_a_folder_are_those_of_its_files(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", {**PAIR, "id": "2020-01-01", "chosen": "2021-02-03"})
    (row,) = read(tmp_path).rows
    assert (row.id, row.responses[0].text) == ("2020-01-01", "2021-02-03")
    assert row.where == f"{tmp_path / 'train.jsonl'} row 1"


# ---- files ----


def test_compressed_lines_are_read_and_invalid_ones_reported(tmp_path: Path) -> None:
    packed = gzip.compress(json.dumps(PAIR).encode())
    (tmp_path / "rows.jsonl.gz").write_bytes(packed)
    assert len(read(tmp_path / "rows.jsonl.gz").rows) == 1
    (tmp_path / "half.jsonl.gz").write_bytes(packed[:-12])
    assert "cannot be read" in result(read(tmp_path / "half.jsonl.gz"))[0]


@pytest.mark.parametrize("name", ["x" * 300, "a\0b"])
def test_invalid_paths_are_reported(name: str) -> None:
    assert result(read(Path(name)))


def test_duplicate_keys_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "?", "chosen": "a", "rejected": "b", "chosen": "c"}')
    assert "duplicate key 'chosen'" in result(read(path))[0]


def test_both_kinds_of_arrow_files_are_read(tmp_path: Path) -> None:
    import pyarrow as pa

    table = pa.Table.from_pylist([PAIR])
    for name, writer in (("file", pa.ipc.new_file), ("stream", pa.ipc.new_stream)):
        path = tmp_path / f"{name}.arrow"
        with writer(str(path), table.schema) as out:
            out.write_table(table)
        assert len(read(path).rows) == 1


def test_duplicate_columns_are_refused(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = ["prompt", "chosen", "rejected", "chosen"]
    table = pa.Table.from_arrays([pa.array([name]) for name in names], names=names)
    pq.write_table(table, tmp_path / "rows.parquet")
    assert "duplicate column 'chosen'" in result(read(tmp_path / "rows.parquet"))[0]


# ---- records ----


@pytest.mark.parametrize("inputs", [5, "pairs.jsonl", Path("pairs.jsonl"), len, {"train": [PAIR]}])
def test_values_that_are_not_lists_of_rows_have_one_problem(inputs: Any) -> None:
    (problem,) = read_records(inputs).problems
    assert "expected a list of rows" in problem.message


def test_a_broken_image_of_a_data_set_in_memory_names_its_row() -> None:
    from datasets import Dataset, Features, Value
    from datasets import Image as ImageFeature

    columns: dict[str, Any] = {name: Value("string") for name in PAIR}
    features = Features({**columns, "image": ImageFeature()})
    records = [{**PAIR, "image": {"bytes": b"no image", "path": None}}]
    loaded = read_records(Dataset.from_list(records, features=features))
    with pytest.raises(UniDPOError, match="row 1, field 'image'"):
        loaded.rows[0].images[0].open()


def test_a_row_that_is_nested_too_deeply_is_reported() -> None:
    deep: Any = "x"
    for _ in range(3000):
        deep = {"a": deep}
    loaded = read_records([{**PAIR, "tools": [deep]}, PAIR])
    assert len(loaded.rows) == 1
    assert "nested too deeply" in result(loaded)[0]


def test_a_column_is_reported_as_unused_if_another_is_mapped_to_its_name() -> None:
    source = SourceOptions(path="data", columns={"prompt": "question"})
    loaded = read_records([{**PAIR, "question": "Why?"}], source)
    assert "prompt (1)" in loaded.reports[0].sentences()[0]


def test_messages_cannot_steer_a_terminal() -> None:
    assert "\x1b" not in str(Problem("rows row 1", "the role '\x1b[31m\r'", "Repair it"))


def test_line_breaks_between_images_stay_and_the_one_in_front_does_not() -> None:
    text = "<image>\r\nImage-1: <image>\nImage-2: <image>\nAre they the same?"
    images = [make_image(n) for n in (1, 2, 3)]
    (row,) = read_records([{**PAIR, "prompt": text, "images": images}]).rows
    assert [part for part in row.messages[0].parts if isinstance(part, str)] == [
        "Image-1: ", "\nImage-2: ", "\nAre they the same?"]  # fmt: skip


def test_rows_that_share_a_prompt_and_not_their_tools_stay_apart() -> None:
    records = [{**PAIR, "tools": [{"name": name}]} for name in ("A", "B")]
    assert len(group_by_prompt(read_records(records).rows, max_units=8)) == 2


def test_images_that_differ_only_in_palette_or_orientation_are_distinct(tmp_path: Path) -> None:
    images = []
    for colour in ((255, 0, 0), (0, 0, 255)):
        item = Image.new("P", (4, 4))
        item.putpalette([*colour] * 256)
        images.append(item)
    turned = make_image(1).copy()
    turned.getexif()[0x0112] = 6
    keys = {MemoryImage(item, "x").key() for item in (*images, make_image(1), turned)}
    assert len(keys) == 4
    rows = read_records([{**PAIR, "id": str(n), "image": p} for n, p in enumerate(images)]).rows
    write_rows(rows, tmp_path / "rows.jsonl", "native")
    again = load_rows([SourceOptions(path=str(tmp_path / "rows.jsonl"))])
    assert [row.images[0].open().getpixel((0, 0)) for row in again] == [(255, 0, 0), (0, 0, 255)]


# ---- answers without scores, and answers that are the same ----


def test_unrated_responses_make_no_pair_and_are_counted(tmp_path: Path) -> None:
    ratings = (("4", "5", "4"), ("N/A", "5", "N/A"), ("2", "5", "2"))
    aspects = ("Helpfulness", "Ethical Considerations", "Visual Faithfulness")
    completions = [
        {
            "response": f"answer {n}",
            "annotations": {a: {"Rating": r} for a, r in zip(aspects, rated, strict=True)},
        }
        for n, rated in enumerate(ratings)
    ]
    loaded = read_records([{"prompt": "?", "completions": completions}])
    (row,) = loaded.rows
    assert [(pair.chosen, pair.rejected) for pair in row.pairs] == [(0, 2)]
    assert any("1 response has no score" in text for text in loaded.reports[0].sentences())
    write_rows([row], tmp_path / "rows.jsonl", "native")
    (again,) = load_rows([SourceOptions(path=str(tmp_path / "rows.jsonl"))])
    assert (again.responses, again.pairs) != ((), ())
    assert [r.score for r in again.responses] == [r.score for r in row.responses]
    assert again.pairs == row.pairs


def test_equal_responses_with_two_scores_form_no_pair_and_are_counted() -> None:
    answers = [{"text": t, "score": s} for t, s in (("No", 8.5), ("No", 6.0), ("Rome", 2.0))]
    loaded = read_records([{"prompt": "?", "responses": answers}])
    assert [(p.chosen, p.rejected) for p in loaded.rows[0].pairs] == [(0, 2), (1, 2)]
    assert any(
        "the same response with two scores" in text for text in loaded.reports[0].sentences()
    )


@pytest.mark.parametrize(
    ("scores", "margin", "kept"),
    [((9.0, 0.0), 1.0, True), ((0.0, 9.0), 1.0, True), ((1.0, 1.0), 1.0, False),
     ((0.3, 0.1), 0.2, True)],
)  # fmt: skip
def test_a_margin_counts_whichever_response_is_better(
    scores: tuple[float, float], margin: float, kept: bool
) -> None:
    record = {**PAIR, "score_chosen": scores[0], "score_rejected": scores[1]}
    source = SourceOptions(path="data", scores=ScoreOptions(min_margin=margin))
    loaded = read_records([record], source)
    assert len(loaded.rows) == kept
    report_text = " ".join(loaded.reports[0].sentences())
    assert ("kept" in report_text) == (scores == (0.0, 9.0))


def test_scores_are_exact_without_a_target_scale() -> None:
    scale = mapping_to(None, ScoreOptions(scale=(1, 10)))
    assert scale(2.9) == 2.9


def test_pairs_that_all_weigh_nothing_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", {**SCORED, "weight": 0})
    done = run("data", "check", str(path))
    assert done.exit_code == 2
    assert "the weight of the only pair is 0" in done.output
    write(path, {**SCORED, "weight": 0}, {**SCORED, "prompt": "Why?"})
    assert run("data", "check", str(path)).exit_code == 0


# ---- the registry ----


def entry(folder: Path, **changes: Any) -> Loaded:
    write(folder / "rows.jsonl", {"instruction": "?", "chosen": "a", "rejected": "b"})
    content = {"mine": {"file_name": "rows.jsonl", "ranking": True, **changes}}
    (folder / "dataset_info.json").write_text(json.dumps(content), encoding="utf-8-sig")
    split = changes.pop("asked", None)
    return read(folder / "dataset_info.json", subset="mine", split=split)


def test_an_entry_of_a_registry_is_read_behind_a_byte_order_mark(tmp_path: Path) -> None:
    assert len(entry(tmp_path).rows) == 1


@pytest.mark.parametrize(
    ("changes", "report_text"),
    [
        ({"num_samples": True}, "'num_samples' is 'True'"),
        ({"num_samples": -1}, "'num_samples' is '-1'"),
        ({"columns": {"rejectd": "rejected"}}, "unknown name 'rejectd' in 'columns'"),
        ({"columns": {"images": "pics"}}, "no row has a column 'pics'"),
        ({"tags": {"role_tag": ["r"]}}, "'tags.role_tag' is of type list"),
        ({"asked": "test"}, "entries set their own"),
        ({"file_name": "a" * 300}, "does not exist"),
        ({"columns": {"audios": "clips"}}, "columns that are not supported yet: audios"),
    ],
)
def test_unsupported_options_of_registries_are_reported(
    tmp_path: Path, changes: dict[str, Any], report_text: str
) -> None:
    assert any(report_text in problem for problem in result(entry(tmp_path, **changes)))


def test_a_registry_without_entries_is_reported(tmp_path: Path) -> None:
    (tmp_path / "dataset_info.json").write_text("{}")
    (problem,) = result(read(tmp_path / "dataset_info.json", subset="mine"))
    assert "there is no entry 'mine'. Use a registry with entries" in problem


def test_an_entry_in_openai_formatting_is_read(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "?"}]
    answers = {n: {"role": "assistant", "content": n} for n in ("chosen", "rejected")}
    write(tmp_path / "rows.jsonl", {"messages": turns, **answers})
    content = {"mine": {"file_name": "rows.jsonl", "ranking": True, "formatting": "openai",
                        "columns": {"messages": "messages"}}}  # fmt: skip
    (tmp_path / "dataset_info.json").write_text(json.dumps(content), encoding="utf-8")
    loaded = read(tmp_path / "dataset_info.json", subset="mine")
    assert [r.text for r in loaded.rows[0].responses] == ["chosen", "rejected"]


def test_columns_missing_in_a_registry_entry_are_not_guessed(tmp_path: Path) -> None:
    extra = {"instruction": "What?", "system": "Shout.", "history": [["a", "b"]]}
    write(tmp_path / "rows.jsonl", {**PAIR, **extra})
    entries = {
        name: {"file_name": "rows.jsonl", "ranking": True, "columns": columns}
        for name, columns in (("bare", {}), ("named", {"system": "system"}))
    }
    (tmp_path / "dataset_info.json").write_text(json.dumps(entries), encoding="utf-8")
    bare, named = (read(tmp_path / "dataset_info.json", subset=name) for name in entries)
    assert [turn.role for turn in bare.rows[0].messages] == ["user"]
    assert [turn.role for turn in named.rows[0].messages] == ["system", "user"]
    assert {"system", "history"} <= bare.reports[0].unread.keys()
    assert "system" not in named.reports[0].unread


@pytest.mark.parametrize("name", ["reasoning_content", "thinking"])
def test_reasoning_beside_the_content_is_refused(name: str) -> None:
    response_text = {"role": "assistant", "content": "yes", name: "Let me see."}
    loaded = read_records(
        [{**PAIR, "prompt": [{"role": "user", "content": "?"}], "chosen": [response_text]}]
    )
    assert f"the response contains '{name}' in addition to its content" in result(loaded)[0]


def test_images_with_non_finite_pixels_are_reported() -> None:
    pixels = Image.new("F", (4, 4), float("nan"))
    with pytest.raises(ImageError, match="some of its pixels are not finite"):
        MemoryImage(pixels, "row 1").open()


def test_a_transform_of_the_user_makes_the_rows() -> None:
    from datasets import Dataset

    def prompts(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        return {**batch, "prompt": [f"Shown {text}" for text in batch["prompt"]]}

    made = Dataset.from_list([PAIR]).with_transform(prompts)
    assert questions(read_records(made)) == ["Shown What?"]


# ---- settings ----


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"score_scale": (5, 0)}, "score_scale"),
        ({"score_scale": "0,5"}, "score_scale"),
        ({"scores": {"pairs": "best-vs-worst"}}, "scores.pairs"),
        ({"scores": {"missing": 2.0}}, "scores.missing"),
        ({"scores": {"scale": (1, 1)}}, "scores.scale"),
        ({"scores": {"foo": 1}}, "scores.foo"),
        ({"scores": 5}, "scores"),
        ({"length_policy": "cut"}, "length_policy"),
        ({"pair_weighting": "x"}, "pair_weighting"),
        ({"max_skipped_fraction": 2.0}, "max_skipped_fraction"),
        ({"eval_fraction": float("nan")}, "eval_fraction"),
    ],
)
def test_options_of_the_trainer_are_checked_as_those_of_a_recipe(
    tmp_path: Path, options: dict[str, Any], named: str
) -> None:
    with pytest.raises(RecipeError) as error:
        UniDPOConfig(output_dir=str(tmp_path), **options)
    assert [problem.where for problem in error.value.problems] == [named]


def test_the_weight_of_missing_scores_reaches_the_loss(tmp_path: Path) -> None:
    config = UniDPOConfig(output_dir=str(tmp_path), scores={"missing": 0.5})
    assert configured_loss(config).config.missing_quality == 0.5


def recipe(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(f"model: {{name_or_path: none}}\n{text}", encoding="utf-8")
    return path


def test_two_sources_of_one_name_cannot_have_two_settings(tmp_path: Path) -> None:
    sources = [
        f"{{path: {write(tmp_path / folder / 'train.jsonl', SCORED)}, loss: {{eta: {eta}}}}}"
        for folder, eta in (("a", 0.1), ("b", 5.0))
    ]
    path = recipe(tmp_path, f"data: {{sources: [{', '.join(sources)}]}}\n")
    with pytest.raises(RecipeError, match="two sources have this name"):
        config_of(load_recipe(path))


# ---- commands ----


def test_reports_never_overwrite_an_input_file(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", SCORED)
    before = path.read_bytes()
    for option in ("--json", "--html"):
        assert run("data", "check", str(path), option, str(path)).exit_code == 2
    records = tmp_path / "rows.json"
    records.write_text(json.dumps([SCORED]), encoding="utf-8")
    text = recipe(tmp_path, f"data: {{sources: [{{path: {records}}}]}}\n")
    for source in (str(text), str(tmp_path)):
        assert run("data", "check", source, "--json", str(records)).exit_code == 2
    assert json.loads(records.read_text(encoding="utf-8")) == [SCORED]
    page = str(tmp_path / "page.html")
    assert run("data", "check", str(path), "--json", page, "--html", page).exit_code == 2
    assert path.read_bytes() == before


def test_converted_rows_never_overwrite_an_input_file(tmp_path: Path) -> None:
    path = write(tmp_path / "data" / "rows.jsonl", SCORED)
    before = path.read_bytes()
    text = recipe(tmp_path, f"data: {{sources: [{{path: {path}}}]}}\n")
    for source in (path, path.parent, text):
        assert run("data", "convert", str(source), "--output", str(path)).exit_code == 2
    assert path.read_bytes() == before


def test_invalid_rows_are_skipped_and_listed_on_request(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", SCORED, {**SCORED, "chosen": ""}, "no row", SCORED)
    out = tmp_path / "out.jsonl"
    words = ["data", "convert", str(path), "--output", str(out)]
    assert run(*words).exit_code == 2
    assert not out.exists()
    done = run(*words, "--skip-invalid")
    assert done.exit_code == 0
    assert len(out.read_text(encoding="utf-8").splitlines()) == 2
    assert "2 of 4 rows skipped" in done.output
    assert f"skipped: {path} row 2, field 'chosen'" in done.output


def test_rows_of_a_repeated_file_are_reported_as_duplicates(tmp_path: Path) -> None:
    path = str(write(tmp_path / "rows.jsonl", SCORED))
    response_text = " ".join(run("data", "check", path, path).output.split())
    assert "1 row has the same content as an earlier one" in response_text, response_text


def test_a_column_cannot_be_named_twice(tmp_path: Path) -> None:
    path = str(write(tmp_path / "rows.jsonl", SCORED))
    done = run("data", "check", path, "--column", "prompt=a", "--column", "prompt=b")
    assert done.exit_code == 2

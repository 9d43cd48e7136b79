"""Every public data set is read by the format it fits, and reads the same after conversion."""

import dataclasses
import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from builders import make_image

from unidpo_mm.config import SourceOptions
from unidpo_mm.data.convert import write_rows
from unidpo_mm.data.detect import formats
from unidpo_mm.data.load import SourceReport, load_rows, read_sources
from unidpo_mm.records import MediaSlot, PreferenceRow

FIXTURES = Path(__file__).parent / "fixtures"


class Expected(NamedTuple):
    """The expected format of a fixture, and the expected content of its first row."""

    format: str
    question: str
    answers: dict[str, float | None]
    """Answer -> score, as the pairs name them: first pair's chosen first."""
    images: int = 0
    rows: int = 1


EXPECTED = {
    "trl_standard": Expected("pairs", "The sky is", {" blue.": None, " green.": None}, rows=2),
    "trl_conversational": Expected(
        "pairs", "What colour is the sky?", {"It is blue.": None, "It is green.": None}
    ),
    "trl_implicit": Expected(
        "implicit", "What colour is the sky?", {"It is blue.": None, "It is green.": None}
    ),
    "trl_vision": Expected("pairs", "What is this?", {"A bird.": None, "A tree.": None}, 1),
    "trl_tools": Expected(
        "pairs", "How warm is it in Oslo?4", {"It is 4 degrees.": None, "It is warm.": None}
    ),
    "native": Expected(
        "ranked",
        "What is this?",
        {"A bird on a branch.": 9.0, "A bird.": 6.0, "A tree.": 1.0},
        1,
        rows=2,
    ),
    "factory_alpaca": Expected(
        "alpaca",
        "You translate.Translate: catchatTranslate into French.\nGood day",
        {"Bonjour": None, "Bonsoir": None},
        rows=2,
    ),
    "factory_sharegpt": Expected(
        "sharegpt", "What is on the branch?", {"A bird.": None, "A cat.": None}, 1
    ),
    "swift": Expected("swift", "Be brief.What is this?", {"A bird.": None, "A tree.": None}, 1),
    "official_text": Expected(
        "pairs",
        "Why is the sky blue?",
        {"Air scatters blue light most.": 4.5, "The sea is mirrored in it.": 1.5},
    ),
    "official_math": Expected(
        "pairs",
        "<|im_start|>user\nWhat is 6 times 7?<|im_end|>\n<|im_start|>assistant\n",
        {"6 times 7 is \\boxed{42}.": 9.2, "6 times 7 is \\boxed{48}.": 2.1},
    ),
    "official_multimodal": Expected(
        "alpaca", "How many birds are there?", {"One.": 4.0, "Three.": 1.0}, 1
    ),
    "ultrafeedback_binarized": Expected(
        "pairs", "Find a synonym of quick.", {"Fast.": 8.0, "Slow.": 3.0}
    ),
    "ultrafeedback": Expected(
        "ultrafeedback",
        "Name two rivers.",
        {"The Rhine and the Elbe.": 9.0, "The Rhine.": 5.0, "Rome and Paris.": 1.0},
    ),
    "rlhf_v": Expected(
        "rlhf_v",
        "What is the bird doing?",
        {"It sits on a branch.": None, "It flies over a lake.": None},
        1,
    ),
    "rlaif_v": Expected(
        "rlaif_v",
        "What do you see?",
        {"A small bird.": None, "A small bird and a dog.": None},
        1,
    ),
    "mm_rlhf": Expected(
        "pairs", "What is shown here?", {"A bird with a red beak.": None, "A boat.": None}, 1
    ),
    "vlfeedback": Expected(
        "vlfeedback",
        "Describe the image.",
        {"A bird on a branch.": 4.0, "A lake at night.": 4 / 3, "I would rather not say.": None},
        1,
    ),
    "spa_vl": Expected(
        "rlaif_v",
        "Is it safe to feed it bread?",
        {"A little does no harm, seeds are better.": None, "Feed it anything.": None},
        1,
    ),
    "mmpr": Expected(
        "rlaif_v",
        "How many legs can be seen?",
        {"Two legs can be seen.": None, "Four legs can be seen.": None},
        1,
        rows=2,
    ),
    "helpsteer2_preference": Expected(
        "helpsteer", "Name a metal.", {"Iron.": 2.0, "Wood.": 0.0}, rows=2
    ),
    "helpsteer3": Expected(
        "helpsteer3",
        "What is the boiling point of water?",
        {"100 degrees Celsius at sea level.": 3.0, "It is hot.": 0.0},
    ),
    "helpsteer2": Expected(
        "helpsteer_ratings", "Name a tree.", {"An oak.": 4.0, "A stone.": 0.0}, rows=2
    ),
    "skywork": Expected("implicit", "Spell seven.", {"s-e-v-e-n": None, "7": None}),
    "hh_rlhf": Expected(
        "implicit",
        "Is tea hot?",
        {"Mostly, yes.": None, "Most likely not.": None},
    ),
}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for number, name in enumerate(("bird", "branch")):
        make_image(number + 1).save(folder / f"{name}.png")
    return folder


def fixture(name: str) -> Path:
    (path,) = FIXTURES.glob(f"{name}.*")
    return path


def read(path: Path, images: Path) -> tuple[list[PreferenceRow], SourceReport]:
    loaded = read_sources([SourceOptions(path=str(path), images=str(images))])
    assert not loaded.problems
    (report,) = loaded.reports
    return loaded.rows, report


def test_every_fixture_and_every_format_is_tested() -> None:
    assert {path.stem for path in FIXTURES.iterdir()} == set(EXPECTED)
    of_pairs = {name for name in formats() if not name.endswith("labeled")}
    assert {item.format for item in EXPECTED.values()} == of_pairs


@pytest.mark.parametrize("name", EXPECTED)
def test_a_data_set_is_read_by_the_format_it_fits(name: str, images: Path) -> None:
    rows, report = read(fixture(name), images)
    expected = EXPECTED[name]
    assert set(report.formats) == {expected.format}
    assert len(rows) == expected.rows
    row = rows[0]
    assert "".join(message.text for message in row.messages) == expected.question
    assert len(row.images) == expected.images
    first = row.pairs[0]
    order = sorted(
        range(len(row.responses)), key=lambda n: (n != first.chosen, n == len(row.responses) - 1)
    )
    assert {row.responses[n].text: row.responses[n].score for n in order} == expected.answers
    assert row.responses[first.chosen].text == next(iter(expected.answers))
    for image in row.images:
        assert image.open().tobytes() == make_image(1).tobytes()


@pytest.mark.parametrize("name", EXPECTED)
def test_a_data_set_written_in_our_format_reads_the_same(
    name: str, images: Path, tmp_path: Path
) -> None:
    rows, _ = read(fixture(name), images)
    assert write_rows(rows, tmp_path / "rows.jsonl", "native") == len(rows)
    again = load_rows([SourceOptions(path=str(tmp_path / "rows.jsonl"))])
    assert [alike(row) for row in again] == [alike(row) for row in rows]


@pytest.mark.parametrize("name", EXPECTED)
def test_a_data_set_written_for_trl_has_the_same_pairs(
    name: str, images: Path, tmp_path: Path
) -> None:
    rows, _ = read(fixture(name), images)
    lines = write_rows(rows, tmp_path / "rows.jsonl", "trl")
    again = load_rows([SourceOptions(path=str(tmp_path / "rows.jsonl"))])
    assert lines == len(again) == sum(len(row.pairs) for row in rows)
    written = [pair for row in rows for pair in trl_records(row)]
    assert [pair for row in again for pair in trl_records(row)] == written


def test_images_inside_the_data_are_written_beside_the_lines(tmp_path: Path) -> None:
    from unidpo_mm.data.load import rows_from_records

    records = [
        {"prompt": "?", "chosen": "a", "rejected": answer, "images": [make_image(1), make_image(2)]}
        for answer in ("b", "c")
    ]
    write_rows(rows_from_records(records), tmp_path / "rows.jsonl", "native")
    assert len(list((tmp_path / "rows_images").iterdir())) == 2  # each once
    again = load_rows([SourceOptions(path=str(tmp_path / "rows.jsonl"))])
    for row in again:
        assert [i.open().tobytes() for i in row.images] == [make_image(n).tobytes() for n in (1, 2)]


def alike(row: PreferenceRow) -> Any:
    """Return a row without what depends on its file: its place and the order of its pairs."""
    images = [image.key() for image in row.images]
    pairs = frozenset(row.pairs)
    return (
        dataclasses.replace(
            row,
            source="",
            where="",
            images=(),
            messages=(slot_free(row),),
            responses=row.responses,
            pairs=(),
        ),
        images,
        pairs,
    )


def slot_free(row: PreferenceRow) -> Any:
    """Return the prompt as one message with all roles, texts and extras as JSON."""
    text = json.dumps(
        [
            [m.role, ["<>" if isinstance(p, MediaSlot) else p for p in m.parts], m.extras]
            for m in row.messages
        ]
    )
    return dataclasses.replace(row.messages[0], parts=(text,))


def trl_records(row: PreferenceRow) -> list[Any]:
    """Return the pairs of a row in the columns of TRL."""
    spoken = [(m.role, [p for p in m.parts if p != ""], m.extras) for m in row.messages]
    images = [image.key() for image in row.images]
    return [
        (
            spoken,
            images,
            row.tools,
            row.responses[p.chosen].text,
            row.responses[p.rejected].text,
            row.responses[p.chosen].score,
            row.responses[p.rejected].score,
            p.weight,
        )
        for p in row.pairs
    ]

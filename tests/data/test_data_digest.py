"""The data digest: what changes it, what does not, and how a difference is described."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from builders import make_image, row
from PIL import Image

from unidpo_mm.data.digest import DataDigest, data_digest, difference
from unidpo_mm.data.images import FileImage
from unidpo_mm.records import Message, Pair, PreferenceRow, Response

ROWS = [
    row(str(number), f"What is {number}?", (f"It is {number}.", "Nothing"), source="pairs")
    for number in range(1, 9)
]


def changes(new: list[PreferenceRow], old: list[PreferenceRow] = ROWS) -> list[str]:
    """Compare two lists of rows by way of the JSON form, as a checkpoint does."""
    stored = json.loads(json.dumps(data_digest(old).to_json()))
    return difference(DataDigest.from_json(stored), data_digest(new), new)


def test_rows_that_differ_only_in_their_ids_have_equal_digests() -> None:
    renamed = [dataclasses.replace(item, id=f"x{item.id}", where="elsewhere") for item in ROWS]
    named = tuple(dataclasses.replace(item, field="answer") for item in ROWS[0].responses)
    renamed[0] = dataclasses.replace(renamed[0], responses=named)
    assert data_digest(renamed) == data_digest(ROWS)
    assert changes(renamed) == []
    assert changes([], []) == []


def test_a_difference_is_described() -> None:
    extra = row("9", "What is 9?", ("Nine.", "Ten"), source="pairs")
    changed = [*ROWS]
    changed[6] = dataclasses.replace(ROWS[6], tools="[{}]")
    other = [dataclasses.replace(item, source="other") for item in ROWS]
    assert changes([*ROWS, extra]) == ["source 'pairs': 1 row added, the first is data.jsonl row 9"]
    assert changes(ROWS[2:]) == [
        "source 'pairs': 2 rows removed, the first was row 1 of the earlier run"
    ]
    assert changes(ROWS[::-1]) == ["source 'pairs': the same 8 rows in another order"]
    assert changes(changed) == ["source 'pairs': 1 row changed, the first is data.jsonl row 7"]
    assert changes([*ROWS[1:], extra]) == [
        "source 'pairs': 1 row added, the first is data.jsonl row 9; 1 row removed, the first was "
        "row 1 of the earlier run"
    ]
    assert changes([extra, *ROWS[::-1]]) == [
        "source 'pairs': 1 row added, the first is data.jsonl row 9; the other rows are in another "
        "order"
    ]
    assert changes([ROWS[0], *ROWS]) == [
        "source 'pairs': 1 row added, the first is data.jsonl row 1"
    ]
    assert changes(other) == [
        "source 'pairs': removed, it had 8 rows",
        "source 'other': added, it has 8 rows",
    ]
    assert changes([*other, *ROWS], [*ROWS, *other]) == [
        "the rows of the sources are interleaved in another order"
    ]


def replaced(**fields: object) -> Callable[[PreferenceRow], PreferenceRow]:
    return lambda item: dataclasses.replace(item, **fields)  # type: ignore[arg-type] # any field


SEEN_BY_THE_MODEL = {
    "domain": replaced(domain="math"),
    "raw": replaced(raw=False),
    "tools": replaced(tools="[]"),
    "role": replaced(messages=(Message("user", ("What?",)), Message("assistant", ("Eh?",)))),
    "extras": replaced(messages=(Message("user", ("What is 3 + 4?",), '{"name": "x"}'),)),
    "parts": replaced(messages=(Message("user", ("What is ", "3 + 4?")),)),
    "text": replaced(responses=(Response("7", 4.0), Response("Eight", 1.0))),
    "score": replaced(responses=(Response("The answer is 7.", 4.0 + 1e-15), Response("Eight", 1))),
    "no score": replaced(responses=(Response("The answer is 7.", None), Response("Eight", 1.0))),
    "pair": replaced(pairs=(Pair(1, 0),)),
    "weight": replaced(pairs=(Pair(0, 1, 0.5),)),
}


@pytest.mark.parametrize("change", SEEN_BY_THE_MODEL.values(), ids=list(SEEN_BY_THE_MODEL))
def test_everything_that_the_model_sees_counts(
    change: Callable[[PreferenceRow], PreferenceRow],
) -> None:
    before = row()
    assert data_digest([change(before)]).ordered != data_digest([before]).ordered


def test_images_count_by_their_content(tmp_path: Path) -> None:
    def of_file(name: str, shade: int) -> PreferenceRow:
        make_image(shade).save(tmp_path / name)
        images = (FileImage(tmp_path / name, "here"),)
        return dataclasses.replace(row(images=[make_image()]), images=images)

    first = data_digest([of_file("a.png", 1)])
    assert data_digest([of_file("moved.png", 1)]) == first
    assert data_digest([of_file("a.png", 2)]) != first
    (tmp_path / "a.png").unlink()
    gone = data_digest(
        [
            dataclasses.replace(
                row(images=[make_image()]), images=(FileImage(tmp_path / "a.png", "here"),)
            )
        ]
    )
    assert gone != first

    memory = data_digest([row(images=[make_image(1)])])
    assert data_digest([row(images=[make_image(1)])]) == memory
    assert data_digest([row(images=[make_image(2)])]) != memory
    flat = Image.new("RGB", (20, 30)), Image.new("RGB", (30, 20))  # the same bytes in two sizes
    assert data_digest([row(images=[flat[0]])]) != data_digest([row(images=[flat[1]])])


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"ordered": "", "sources": [{"source": "a"}]},
        {
            "ordered": "",
            "sources": [
                {"source": "a", "rows": 3, "ordered": "", "unordered": "", "row_digests": "AAAA"}
            ],
        },
        {"ordered": "", "sources": None},
    ],
)
def test_what_is_not_a_digest_is_refused(content: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="not a data digest"):
        DataDigest.from_json(content)

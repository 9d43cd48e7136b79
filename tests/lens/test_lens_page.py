"""The page of a ledger: its contents, which pairs it shows, and what it says of missing data."""

import base64
import html
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy
import pytest
from PIL import Image
from support.ledgers import write_data, write_ledger

from unidpo_mm.errors import DataError
from unidpo_mm.ledger.tables import RANKINGS, read_ledger, top_pairs
from unidpo_mm.lens import LensOptions, lens_page


def content_of(page: str) -> dict[str, Any]:
    """Return the content of a page; nothing inside it may end its element."""
    match = re.search(r'<script type="application/json" id="content">(.*?)</script>', page, re.S)
    assert match is not None
    content: dict[str, Any] = json.loads(match[1])
    return content


def names(count: int) -> list[str]:
    return [f"r{number}:{number:016x}:{number + 1:016x}" for number in range(count)]


def test_the_page_has_every_pair_with_its_visits(tmp_path: Path) -> None:
    write_ledger(tmp_path / "out", names(30), epochs=2)
    content = content_of(lens_page(tmp_path / "out"))
    visits = read_ledger(tmp_path / "out").visits.sort("pair_id", "step").collect()
    pairs = content["pairs"]
    assert sorted(pairs["pair_id"]) == sorted(names(30))
    assert pairs["visits"] == [2] * 30
    assert pairs["steps"] == visits["step"].to_list()
    for name in ("reward_margin", "contribution", "w_perf", "pair_weight"):
        assert pairs["values"][name] == pytest.approx(visits[name].to_list(), rel=1e-3)
    assert content["rules"][0] == "All 30 pairs of the run are shown."
    assert len(content["curves"]["last_step"]) == 16


def test_ranked_pairs_are_shown_before_others(tmp_path: Path) -> None:
    write_ledger(tmp_path / "out", names(200))
    options = LensOptions(max_pairs=60, max_excerpts=10, ranked=10)
    content = content_of(lens_page(tmp_path / "out", options))
    page_ids = content["pairs"]["pair_id"]
    assert len(page_ids) == len(set(page_ids)) == 60
    opened = read_ledger(tmp_path / "out")
    for ranking in content["rankings"]:
        expected = top_pairs(opened, ranking["name"], limit=10)["pair_id"].to_list()
        assert ranking["ids"] == expected
        assert ranking["text"] == RANKINGS[ranking["name"]]
        assert set(expected) <= set(page_ids)
    assert content["rules"][0].startswith("60 of 200 pairs are shown: the first of each list")


def test_texts_and_images_are_read_from_the_data_of_the_run(tmp_path: Path) -> None:
    rows = write_data(tmp_path / "out", 4)
    ids = [row.pair_id(row.pairs[0]) for row in rows]
    write_ledger(tmp_path / "out", [*ids, "gone:0:1"])
    page = lens_page(tmp_path / "out")
    content = content_of(page)
    assert content["excerpts"].keys() == set(ids)
    excerpt = content["excerpts"][ids[2]]
    assert excerpt["prompt"] == "user: [image] What is 2? <b>"
    assert (excerpt["chosen"], excerpt["rejected"]) == ("good </script> 2", "bad & 2")
    encoded = excerpt["images"][0].removeprefix("data:image/jpeg;base64,")
    image = Image.open(io.BytesIO(base64.b64decode(encoded)))
    assert image.size == (320, 160)
    assert abs(int(numpy.asarray(image)[9, 9, 0]) - 20) < 4
    assert content["rules"][-1] == "1 pair is not in the data of the run any more."
    assert page.count("</script>") == 2


def test_a_run_from_python_has_no_texts(tmp_path: Path) -> None:
    write_ledger(tmp_path / "out", names(5))
    content = content_of(lens_page(tmp_path / "out"))
    assert content["excerpts"] == {}
    assert "started from Python" in content["rules"][-1]


def test_data_that_have_moved_are_explained(tmp_path: Path) -> None:
    write_data(tmp_path / "out", 2)
    write_ledger(tmp_path / "out", names(5))
    (tmp_path / "pairs.jsonl").unlink()
    content = content_of(lens_page(tmp_path / "out"))
    assert content["excerpts"] == {}
    assert any("pairs.jsonl" in rule for rule in content["rules"])


def test_the_page_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    write_ledger(tmp_path / "out <i>", names(5))
    page = lens_page(tmp_path / "out <i>")
    assert not re.search(r"""(src|href)=["'](?!data:)|url\(|import """, page)
    assert html.escape(f"Ledger of {tmp_path / 'out <i>'}") in page


def test_a_directory_without_ledger_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="contains no ledger"):
        lens_page(tmp_path)

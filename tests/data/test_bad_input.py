"""Ninety kinds of bad input are reported with their place; random JSON raises only data errors."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from bad_input import BAD, Bad, table, write_surroundings
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unidpo_mm.config import ScoreOptions, SourceOptions
from unidpo_mm.data.decoding import MAX_PIXELS
from unidpo_mm.data.detect import formats
from unidpo_mm.data.load import Loaded, ReadOptions, read_records, read_sources
from unidpo_mm.errors import DataError, Problem
from unidpo_mm.records import FrameSampling

ALL = [case for cases in BAD.values() for case in cases]
SCORE_OPTIONS = ("scale", "misordered", "ties", "min_margin", "missing")


def source_of(bad: Bad, path: str, folder: Path) -> SourceOptions:
    options = {k: v for k, v in bad.source.items() if k in SourceOptions.model_fields}
    if "images" in options:
        options["images"] = str(folder)
    score_options = ScoreOptions(**{k: v for k, v in bad.source.items() if k in SCORE_OPTIONS})
    return SourceOptions(path=path, scores=score_options, **options)


def read_options_of(bad: Bad) -> ReadOptions:
    private = bad.source.get("fetch_private_addresses", False)
    return ReadOptions(
        needs_scores=lambda source: bad.source.get("needs_scores", False),
        private_downloads=private,
        max_pixels=bad.source.get("max_pixels", MAX_PIXELS),
    )


def problems_of(loaded: Loaded) -> list[Problem]:
    """Return the problems of reading and, of good rows, with their scores and images."""
    result = list(loaded.problems)
    for row in loaded.rows:
        result += row.missing_scores()
        uses = [image.open for image in row.images]
        uses += [partial(video.sample, FrameSampling()) for video in row.videos]
        for use in uses:
            try:
                use()
            except DataError as error:
                result += error.problems
    return result


@pytest.mark.parametrize("bad", ALL, ids=[case.kind for case in ALL])
def test_bad_input_is_reported_with_its_place(
    bad: Bad, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNIDPO_MM_CACHE", str(tmp_path / "cache"))
    write_surroundings(tmp_path)
    if bad.file is not None:
        name, content = bad.file
        path = tmp_path / name
        if not name.endswith("/") and name != "-":
            path.write_bytes(content)
        loaded = read_sources([source_of(bad, str(path), tmp_path)], read_options_of(bad))
        where = str(path)
    else:
        monkeypatch.chdir(tmp_path)
        loaded = read_records(bad.records, source_of(bad, "data", tmp_path), read_options_of(bad))
        where = f"data set 'data' row {len(bad.records)}"
    if bad.outcome == "skipped":
        (report,) = loaded.reports
        assert not loaded.rows
        assert not loaded.problems
        assert any(bad.message in sentence for sentence in report.sentences())
        return
    report_text = [p for p in problems_of(loaded) if bad.message in p.message]
    assert report_text, [str(problem) for problem in problems_of(loaded)]
    assert report_text[0].where.startswith(where)
    assert bad.place == "" or report_text[0].where.endswith(f"field '{bad.place}'")
    assert report_text[0].remedy


def test_there_are_ninety_kinds_and_docs_data_md_lists_them() -> None:
    assert len({item.kind for item in ALL}) == len(ALL) >= 90
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    assert table() in page, "run python tests/bad_input.py and put the table into docs/data.md"


# ---- random records ----

COLUMNS = sorted({name for item in formats().values() for name in item.columns})
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 12),
    st.floats(),
    st.sampled_from(["", " ", "<image>", "yes", "no", "user", "assistant", "{}", "[]", "a\0"]),
    st.text(max_size=8),
)
KEYS = st.sampled_from(
    "role content type text image score from value bytes path url response annotations Rating "
    "overall_score question chosen rejected".split()
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=4)),
    max_leaves=12,
)
RECORDS = st.one_of(
    VALUES,
    st.dictionaries(st.sampled_from(COLUMNS), VALUES, max_size=6),
    st.sampled_from(list(formats().values())).flatmap(
        lambda item: st.fixed_dictionaries(
            dict.fromkeys(sorted(item.required), VALUES),
            optional=dict.fromkeys(sorted(item.columns - item.required), VALUES),
        )
    ),
)


any_records = given(
    records=st.lists(RECORDS, max_size=3), needs=st.booleans(), strict=st.booleans()
)
slow_examples = [HealthCheck.too_slow]


@settings(max_examples=100, deadline=None, suppress_health_check=slow_examples)
@any_records
def test_random_records_raise_only_data_errors(
    records: list[Any], needs: bool, strict: bool
) -> None:
    check_records(records, needs=needs, strict=strict)


@pytest.mark.slow
@settings(max_examples=2000, deadline=None, suppress_health_check=slow_examples)
@any_records
def test_many_random_records_raise_only_data_errors(
    records: list[Any], needs: bool, strict: bool
) -> None:
    check_records(records, needs=needs, strict=strict)


def check_records(records: list[Any], *, needs: bool, strict: bool) -> None:
    score_options = ScoreOptions(
        scale=(0.0, 10.0) if strict else None, ties="drop" if strict else "keep"
    )
    source = SourceOptions(path="data", scores=score_options)
    loaded = read_records(records, source, ReadOptions(needs_scores=lambda name: needs))
    for problem in problems_of(loaded):
        assert problem.where.startswith("data set 'data' row")
        assert problem.message
        assert problem.remedy
    kept = len(loaded.rows) + loaded.reports[0].pairs.rows_dropped
    assert loaded.problems or kept or not records


@settings(max_examples=100, deadline=None)
@given(content=st.binary(max_size=200), suffix=st.sampled_from([".json", ".jsonl", ".parquet"]))
def test_random_bytes_raise_only_data_errors(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, suffix: str
) -> None:
    path = tmp_path_factory.mktemp("bytes") / f"rows{suffix}"
    path.write_bytes(content)
    loaded = read_sources([SourceOptions(path=str(path))])
    assert loaded.problems  # no bytes as random as these are a row


@settings(max_examples=100, deadline=None)
@given(registry=VALUES)
def test_random_registries_raise_only_data_errors(
    tmp_path_factory: pytest.TempPathFactory, registry: Any
) -> None:
    path = tmp_path_factory.mktemp("registry") / "dataset_info.json"
    path.write_text(json.dumps({"a": registry}))
    assert read_sources([SourceOptions(path=str(path), subset="a")]).problems

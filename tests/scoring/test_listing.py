"""The list of names is readable at 80 columns and can be filtered."""

import io

import pytest
from rich.console import Console
from support.eval_commands import run, text_of
from unidpo_mm_eval.benchmarks import benchmark_names
from unidpo_mm_eval.cli.catalog import KINDS, catalog, print_catalog


def printed(width: int) -> list[str]:
    text = io.StringIO()
    print_catalog(catalog(), Console(file=text, width=width))
    return text.getvalue().splitlines()


def test_no_word_is_broken_at_80_columns() -> None:
    words = {
        word
        for entries in catalog().values()
        for item in entries
        for text in (item.name, item.title, *item.details)
        for word in text.split()
    }
    lines = printed(80)
    assert max(map(len, lines)) <= 80
    expected = words | {"Benchmarks", "Protocols", "Prompt", "profiles", "Suites", "Other", "tools"}
    assert {word for line in lines for word in line.split()} <= expected


@pytest.mark.parametrize(
    ("words", "kinds", "names"),
    [
        (["pope"], {"benchmark"}, {"pope"}),
        (["REALWORLD"], {"benchmark"}, {"realworldqa"}),
        (["--kind", "suite"], {"suite"}, None),
        (["math-verify", "--kind", "protocol"], {"protocol"}, None),
    ],
)
def test_the_list_is_filtered(words: list[str], kinds: set[str], names: set[str] | None) -> None:
    part = None if words[0] == "--kind" else words[0]
    actual = catalog(part, words[-1] if "--kind" in words else None)
    assert set(actual) == kinds
    if names is not None:
        assert {item.name for entries in actual.values() for item in entries} == names
    done = run("list", *words)
    assert done.exit_code == 0, text_of(done)
    for entries in actual.values():
        assert all(item.name in done.output for item in entries)


def test_everything_is_listed() -> None:
    actual = catalog()
    assert list(actual) == list(KINDS)
    assert [item.name for item in actual["benchmark"]] == list(benchmark_names())
    assert "clean" in actual["benchmark"][0].details[0]


def test_unknown_names_are_reported_with_the_nearest() -> None:
    assert "did you mean 'pope'" in text_of(run("list", "popee"))
    assert "did you mean 'protocol'" in text_of(run("list", "--kind", "protocols"))

"""The list of names is readable at 80 columns and can be filtered."""

import io

import pytest
from rich.console import Console
from scores import run, told
from unidpo_mm_eval.benchmarks import benchmark_names
from unidpo_mm_eval.report.listing import KINDS, listed, print_names


def shown(width: int) -> list[str]:
    text = io.StringIO()
    print_names(listed(), Console(file=text, width=width))
    return text.getvalue().splitlines()


def test_no_word_is_broken_at_80_columns() -> None:
    words = {
        word
        for entries in listed().values()
        for one in entries
        for text in (one.name, one.title, *one.details)
        for word in text.split()
    }
    lines = shown(80)
    assert max(map(len, lines)) <= 80
    known = words | {"Benchmarks", "Protocols", "Prompt", "profiles", "Suites", "Other", "tools"}
    assert {word for line in lines for word in line.split()} <= known


@pytest.mark.parametrize(
    ("words", "kinds", "names"),
    [
        (["pope"], {"benchmark"}, {"pope"}),
        (["REALWORLD"], {"benchmark"}, {"realworldqa"}),
        (["--kind", "suite"], {"suite"}, None),
        (["math-verify", "--kind", "protocol"], {"protocol"}, None),
    ],
)
def test_it_is_filtered(words: list[str], kinds: set[str], names: set[str] | None) -> None:
    part = None if words[0] == "--kind" else words[0]
    found = listed(part, words[-1] if "--kind" in words else None)
    assert set(found) == kinds
    if names is not None:
        assert {one.name for entries in found.values() for one in entries} == names
    done = run("list", *words)
    assert done.exit_code == 0, told(done)
    for entries in found.values():
        assert all(one.name in done.output for one in entries)


def test_everything_is_listed() -> None:
    found = listed()
    assert list(found) == list(KINDS)
    assert [one.name for one in found["benchmark"]] == list(benchmark_names())
    assert "clean" in found["benchmark"][0].details[0]


def test_what_is_not_there_is_told_with_the_nearest() -> None:
    assert "did you mean 'pope'" in told(run("list", "popee"))
    assert "did you mean 'protocol'" in told(run("list", "--kind", "protocols"))

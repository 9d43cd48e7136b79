"""Plugins in users' own files: every kind is loaded from a path, with the same errors."""

import json
import re
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from unidpo_mm import plugins
from unidpo_mm.cli import main as cli
from unidpo_mm.errors import UniDPOError
from unidpo_mm.plugins import (
    CALLBACKS,
    FAMILIES,
    FORMATS,
    LOSSES,
    OBSERVERS,
    Kind,
    load,
    plugin_names,
)  # fmt: skip

KINDS = (LOSSES, FAMILIES, FORMATS, CALLBACKS, OBSERVERS)
every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.noun)

FAMILY = '''
"""The text family with upper-case responses."""

import dataclasses

from model_adapters.text import ADAPTER as TEXT, TextAdapter
from model_adapters._limits import ModelLimits


class UpperCase(TextAdapter):
    def encode(self, row):
        responses = [dataclasses.replace(r, text=r.text.upper()) for r in row.responses]
        print("upper case:", responses[0].text)
        return super().encode(dataclasses.replace(row, responses=tuple(responses)))


def create(tokenizer, config, options):
    return UpperCase(tokenizer, options, ModelLimits.of(config))


ADAPTER = dataclasses.replace(TEXT, name="upper_case", create=create)
'''
FORMAT = '''
"""Rows with the columns `good` and `bad`."""

import dataclasses

from unidpo_mm.data.formats.pairs import FORMAT as PAIRS


def parse(record, context):
    values = {"prompt": record["q"], "chosen": record["good"], "rejected": record["bad"]}
    return PAIRS.parse(values, context)


COLUMNS = frozenset({"q", "good", "bad"})
FORMAT = dataclasses.replace(PAIRS, name="good_bad", required=COLUMNS, parse=parse)
'''
LOSS = '''
"""A constant multiple of DPO."""

import dataclasses

from unidpo_mm.losses.dpo import LOSS as DPO

LOSS = dataclasses.replace(DPO, name="renamed_dpo")
'''
CALLBACK = '''
"""Print the number of steps."""

from transformers import TrainerCallback


class Count(TrainerCallback):
    def __init__(self, settings):
        self.word = settings["word"]

    def on_train_end(self, args, state, control, **kwargs):
        print(self.word, state.global_step)


CALLBACK = Count
'''
OBSERVER = '''
"""Print the pairs of each micro-batch with their quality weights."""


class Watcher:
    def __init__(self, settings):
        self.word = settings["word"]

    def on_step(self, batch, output):
        rewards = output.loss.chosen_rewards.detach()
        print(self.word, sorted(batch.pairs.row_ids), len(set(batch.pairs.ids)), len(rewards))


OBSERVER = Watcher
'''


def test_files_of_every_kind_train_together_through_the_command_line(
    tmp_path: Path, checkpoint, monkeypatch: pytest.MonkeyPatch, capsys
):
    for name, text in {
        "family": FAMILY, "format": FORMAT, "loss": LOSS, "call": CALLBACK, "observer": OBSERVER,
    }.items():  # fmt: skip
        (tmp_path / f"my_{name}.py").write_text(text)
    rows = [{"q": f"What is {n}?", "good": "Seven" + "x" * n, "bad": "Eight"} for n in range(4)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "recipe.yaml").write_text(
        f"model: {{name_or_path: {checkpoint('llama')}, adapter: ./my_family.py}}\n"
        "data: {sources: [{path: rows.jsonl, format: ./my_format.py}]}\n"
        "loss: {name: ./my_loss.py, beta: 0.2}\n"
        "run: {callbacks: {./my_call.py: {word: counted}}, "
        "observers: {./my_observer.py: {word: saw}}}\n"
        f"train: {{output_dir: {tmp_path / 'out'}, max_steps: 2, use_cpu: true, report_to: none, "
        "save_strategy: 'no', disable_tqdm: true}\n"
    )
    elsewhere = tmp_path / "elsewhere"  # paths are relative to the recipe
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    monkeypatch.setattr(sys, "argv", ["unidpo-mm", "train", str(tmp_path / "recipe.yaml")])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    output = capsys.readouterr()
    assert not caught.value.code, output.err
    assert "upper case: SEVENX" in output.out
    assert "counted 2" in output.out
    assert len(re.findall(r"saw \['rows:\d'.*\] (\d) \1$", output.out, re.M)) == 2, output.out
    assert "renamed_dpo with beta 0.2" in output.err


@every_kind
def test_the_error_of_an_unknown_name_suggests_and_lists(
    kind: Kind, monkeypatch: pytest.MonkeyPatch
):
    if kind is OBSERVERS:  # none is part of this package
        points = [EntryPoint("ledger", "elsewhere:OBSERVER", kind.group)]
        monkeypatch.setattr(plugins, "entry_points", lambda group: points)
    first = next(iter(plugin_names(kind)))
    with pytest.raises(kind.error) as caught:
        load(kind, f"{first}x")
    assert f"{kind.where}: unknown {kind.noun} '{first}x', did you mean '{first}'?" in str(
        caught.value
    )
    assert "or the path of a Python file" in str(caught.value)


@every_kind
@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "my_plugin.py' does not exist"),
        ("x = 1", "has no {export} that is"),
        ("{export} = 3", "has no {export} that is"),
        ("x = 1\n{export} = absent", "cannot be imported: line 2 of my_plugin.py: NameError"),
        ("{export} = (", "cannot be imported: line 1: "),
    ],
    ids=["absent", "no export", "wrong object", "name error", "syntax error"],
)
def test_every_kind_has_the_same_errors_for_files(
    kind: Kind, text: str | None, message: str, tmp_path: Path
):
    path = tmp_path / "my_plugin.py"
    if text is not None:
        path.write_text(text.format(export=kind.export))
    with pytest.raises(kind.error) as caught:
        load(kind, str(path))
    assert message.format(export=kind.export) in str(caught.value)
    assert str(caught.value).startswith(f"{kind.where}: ")


def test_another_package_can_define_a_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    package = tmp_path / "books_of_tests"
    package.mkdir()
    (package / "__init__.py").write_text("PLUGIN_API = 1")
    (package / "first.py").write_text("BOOK = 'a string'")
    (package / "_helper.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    kind = Kind(
        noun="book",
        where="--book",
        export="BOOK",
        attributes=("title",),
        expected="a string",
        package="books_of_tests",
        group="tests.books",
        error=UniDPOError,
    )
    assert plugin_names(kind) == {"first": "books_of_tests.first"}
    assert load(kind, "first") == "a string"
    with pytest.raises(UniDPOError, match=r"--book: unknown book 'frst', did you mean 'first'\?"):
        load(kind, "frst")


@every_kind
def test_an_entry_point_may_lead_to_a_package_of_plugins(
    kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    package = tmp_path / f"brought_{kind.export.lower()}"
    package.mkdir()
    (package / "__init__.py").write_text("PLUGIN_API = 1")
    (package / "brought_plugin.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    points = [EntryPoint("any", package.name, kind.group)]
    monkeypatch.setattr(plugins, "entry_points", lambda group: points)
    assert plugin_names(kind)["brought_plugin"] == f"{package.name}.brought_plugin"
    with pytest.raises(kind.error, match=f"brought_plugin has no {kind.export} that is"):
        load(kind, "brought_plugin")
    both = [*points, EntryPoint("brought_plugin", "elsewhere:PLUGIN", kind.group)]
    monkeypatch.setattr(plugins, "entry_points", lambda group: both)
    with pytest.raises(UniDPOError, match=f"two packages provide a {kind.noun} called 'brought_p"):
        plugin_names(kind)


def test_a_package_for_another_version_of_the_contract_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    package = tmp_path / "package_of_the_future"
    package.mkdir()
    (package / "__init__.py").write_text("PLUGIN_API = 99")
    monkeypatch.syspath_prepend(tmp_path)
    points = [EntryPoint("future", package.name, FAMILIES.group)]
    monkeypatch.setattr(plugins, "entry_points", lambda group: points)
    with pytest.raises(UniDPOError, match=r"has PLUGIN_API = 99, and this version .* needs 1"):
        plugin_names(FAMILIES)

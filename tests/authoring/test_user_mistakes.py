"""The files of the pages in docs/ train, and mistakes in a user's file are explained."""

import json
import re
import sys
from pathlib import Path

import pytest

from unidpo_mm.cli import main as cli

ROOT = Path(__file__).resolve().parents[2]
PAGES = "".join(
    (ROOT / "docs" / f"{name}.md").read_text("utf-8") for name in ("losses", "formats", "families")
)
FILES = dict(re.findall(r"```python\n# (my_\w+\.py)\n(.*?)```", PAGES, re.DOTALL))

MISTAKES = {
    "compute is no function": ("loss", "compute=compute", "compute=3", "LOSS.compute is 3"),
    "unit": ("loss", 'unit="pair"', 'unit="pairs"', "LOSS.unit is 'pairs'"),
    "tensor": ("loss", "return loss_output(", "return (", "compute returns tuple"),
    "terms": ("loss", "chosen, rejected)\n", "chosen, rejected, gap=chosen)\n", "LOSS.terms is []"),
    "name in compute": ("loss", "(pairs, beta", "(pair, beta", ": NameError while training"),
    "columns": ("format", "frozenset({", "list({", "FORMAT.required is ["),
    "row": ("format", "return row.pair(", "return (", "returned tuple, not a PreferenceRow"),
    "key": ("format", 'row.response("bad", "bad_score")', "row.record[7]", "line 11: KeyError"),
    "create": ("family", "create=create", "create=None", "ADAPTER.create is None"),
    "attribute": ("family", "in row.responses", "in row.answers", "my_family.py, line 23: Attrib"),
    "field": (
        "family",
        "create=create",
        "creates=create",
        "of my_family.py: TypeError: AdapterFamily",
    ),
}


def train(folder: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    row = {"question": "What?", "good": "One", "bad": "Two", "good_score": 2, "bad_score": 1}
    (folder / "rows.jsonl").write_text((json.dumps(row) + "\n") * 2)
    (folder / "recipe.yaml").write_text(
        f"model: {{name_or_path: {model}, adapter: ./my_family.py}}\n"
        "data: {sources: [{path: rows.jsonl, format: ./my_format.py}]}\n"
        "loss: {name: ./my_loss.py}\n"
        f"train: {{output_dir: {folder / 'out'}, max_steps: 1, use_cpu: true, report_to: none, "
        "save_strategy: 'no', disable_tqdm: true}\n"
    )
    monkeypatch.setattr(sys, "argv", ["unidpo-mm", "train", str(folder / "recipe.yaml")])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return int(caught.value.code or 0)


def write_files(folder: Path) -> None:
    for name in ("my_loss.py", "my_format.py", "my_family.py"):
        (folder / name).write_text(f"# {name}\n{FILES[name]}")


def test_the_files_in_the_documentation_train_together(
    tmp_path: Path, checkpoint, monkeypatch: pytest.MonkeyPatch, capsys
):
    write_files(tmp_path)
    assert train(tmp_path, checkpoint("llama"), monkeypatch) == 0, capsys.readouterr().err


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_explained(
    mistake: str, tmp_path: Path, checkpoint, monkeypatch: pytest.MonkeyPatch, capsys
):
    write_files(tmp_path)
    kind, before, after, message = MISTAKES[mistake]
    path = tmp_path / f"my_{kind}.py"
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1))
    code = train(tmp_path, checkpoint("llama"), monkeypatch)
    error = capsys.readouterr().err
    assert message in error
    assert code == 2
    assert "Traceback" not in error

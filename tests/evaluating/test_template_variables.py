"""Variables for the chat template: parsed, passed on, recorded, compared with the training's."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.eval_commands import run, text_of, unwrapped
from support.small_benchmarks import option_table, run_arguments, varied_checkpoint
from unidpo_mm_eval.results.result import read_result

from unidpo_mm.errors import RecipeError
from unidpo_mm.inference.checkpoint import LoadedCheckpoint
from unidpo_mm.inference.template_variables import parse_variables

OFF = {"enable_thinking": False}
OPTION = ("--chat-template-kwargs", '{"enable_thinking": false}')


@pytest.mark.parametrize(
    ("values", "variables"),
    [
        ([], {}),
        (['{"enable_thinking": false}'], OFF),
        (["enable_thinking=false"], OFF),
        (["enable_thinking=true", "effort=low", '{"n": 1}'],
         {"enable_thinking": True, "effort": "low", "n": 1}),
        (["stop="], {"stop": None}),
    ],
)  # fmt: skip
def test_template_variables_are_parsed(values: list[str], variables: dict[str, Any]) -> None:
    assert parse_variables(values) == variables


def test_invalid_variables_are_reported_immediately() -> None:
    with pytest.raises(RecipeError) as refused:
        parse_variables(['{"a": }', "enable_thinking", "a b=1", "[1]", "x={"])
    assert len(refused.value.problems) == 5
    assert "--chat-template-kwargs: cannot parse 'enable_thinking'" in str(refused.value)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return varied_checkpoint(tmp_path_factory.mktemp("trained") / "llava", "llava")


def record(checkpoint: Path, variables: Any) -> None:
    """Write the trainer's record next to the directory of checkpoints."""
    content = {"prompts": {"style": "chat", "chat_template_kwargs": variables}}
    (checkpoint.parent / "run.json").write_text(json.dumps(content))


def test_template_variables_reach_the_adapter_and_are_recorded(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[Any] = []
    create = LoadedCheckpoint.adapter

    def adapter(self: LoadedCheckpoint, options: Any) -> Any:
        used.append(dict(options.chat_template_kwargs))
        return create(self, options)

    monkeypatch.setattr(LoadedCheckpoint, "adapter", adapter)
    data, out = option_table(tmp_path, rows=3), tmp_path / "out"
    done = run(*run_arguments(checkpoint, data, out, "ai2d", *OPTION))
    assert done.exit_code == 0, text_of(done)
    result = read_result(out / "llava" / "ai2d.json")
    assert result.manifest["chat_template_kwargs"] == OFF
    other = run(*run_arguments(checkpoint, data, out, "ai2d"))
    assert "chat_template_kwargs was" in text_of(other)
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text('{"prompt": "Hello?", "chosen": "The answer.", "rejected": "Eight"}\n')
    done = run("prefs", checkpoint, "--data", pairs, "--output", tmp_path / "prefs", *OPTION)
    assert done.exit_code == 0, text_of(done)
    assert used == [OFF, {}, OFF]
    assert (
        read_result(tmp_path / "prefs" / "llava" / "preferences.json").manifest[
            "chat_template_kwargs"
        ]
        == OFF
    )


def test_a_checkpoint_trained_with_other_variables_causes_a_warning(
    checkpoint: Path, tmp_path: Path
) -> None:
    data = option_table(tmp_path, rows=3)
    warned = {}
    try:
        for name, variables, extra in (
            ("same", OFF, OPTION),
            ("other", OFF, ()),
            ("none", {}, OPTION),
            ("default", {}, ()),
        ):
            record(checkpoint, variables)
            done = run(*run_arguments(checkpoint, data, tmp_path / name, "ai2d", *extra))
            assert done.exit_code == 0, text_of(done)
            result = read_result(tmp_path / name / "llava" / "ai2d.json")
            warned[name] = [item for item in result.warnings if "was trained with" in item]
    finally:
        (checkpoint.parent / "run.json").unlink()
    assert [name for name, texts in warned.items() if texts] == ["other", "none"]
    assert "--chat-template-kwargs '{\"enable_thinking\": false}'" in warned["other"][0]


def test_prompts_without_a_template_take_none(checkpoint: Path, tmp_path: Path) -> None:
    data = option_table(tmp_path, rows=3)
    done = run(*run_arguments(checkpoint, data, tmp_path, "ai2d", "--style", "raw", *OPTION))
    assert "do not use a chat template" in unwrapped(done)

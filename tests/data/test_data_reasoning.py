"""Options of sources and rows for rendering: reasoning and variables of the chat template."""

import json
from pathlib import Path
from typing import Any

import pytest
from builders import row

from unidpo_mm.config import SourceOptions
from unidpo_mm.data.groups import group_by_prompt
from unidpo_mm.data.load import read_records, read_sources
from unidpo_mm.errors import DataError

THOUGHTS = {
    "prompt": "3 + 4?",
    "chosen": "<think>Add.</think>Seven",
    "rejected": "[THINK]Hm.[/THINK]\n\nNine",
}
PLAIN = {"prompt": "3 + 5?", "chosen": "Eight", "rejected": "Nine"}


def source(reasoning: Any) -> SourceOptions:
    return SourceOptions(path="data", reasoning=reasoning)


def texts(rows: Any) -> list[list[str]]:
    return [[response.text for response in item.responses] for item in rows]


@pytest.mark.parametrize("reasoning", [None, "keep"])
def test_responses_stay_as_they_are_written(reasoning: Any) -> None:
    loaded = read_records([THOUGHTS], source(reasoning))
    assert texts(loaded.rows) == [[THOUGHTS["chosen"], THOUGHTS["rejected"]]]
    assert loaded.rows[0].reasoning == reasoning
    assert loaded.reports[0].sentences() == []


def test_stripped_reasoning_is_counted_and_reported() -> None:
    loaded = read_records([THOUGHTS, PLAIN], source("strip"))
    assert texts(loaded.rows) == [["Seven", "Nine"], ["Eight", "Nine"]]
    assert {item.reasoning for item in loaded.rows} == {"strip"}
    assert loaded.reports[0].sentences() == ["reasoning was removed from 2 responses"]


@pytest.mark.parametrize(
    ("chosen", "rejected", "field", "reason"),
    [
        ("<think>Add", "Nine", "chosen", "after its reasoning is removed, the response is empty"),
        ("Nine", "<think>So?</think>", "rejected", "after its reasoning is removed, the response"),
        ("<think>a</think>Nine", "<think>b</think>Nine", "chosen", "chosen and rejected are the s"),
    ],
)
def test_a_row_that_consists_only_of_reasoning_is_refused(
    chosen: str, rejected: str, field: str, reason: str
) -> None:
    records = [{"prompt": "x", "chosen": chosen, "rejected": rejected}, THOUGHTS]
    loaded = read_records(records, source("strip"))
    (problem,) = loaded.problems
    assert problem.where == f"data set 'data' row 1, field '{field}'"
    assert reason in str(problem)
    assert "Set reasoning to keep" in problem.remedy
    assert len(loaded.rows) == 1


def test_rows_in_memory_keep_their_own_values() -> None:
    options = [
        row("own", "x", (THOUGHTS["chosen"], "b"), reasoning="keep"),
        row("none", "x", (THOUGHTS["chosen"], "b")),
    ]
    loaded = read_records(options, source("strip"))
    assert [(row.id, row.reasoning) for row in loaded.rows] == [("own", "keep"), ("none", "strip")]
    assert texts(loaded.rows) == [[THOUGHTS["chosen"], "b"], ["Seven", "b"]]


@pytest.mark.parametrize("value", [{"enable_thinking": False}, '{"enable_thinking": false}'])
def test_variables_of_the_template_come_with_a_row(value: Any) -> None:
    loaded = read_records([{**PLAIN, "chat_template_kwargs": value}, PLAIN])
    assert [item.template_kwargs for item in loaded.rows] == ['{"enable_thinking": false}', ""]
    assert loaded.reports[0].sentences() == []  # the column is read


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("enable_thinking", "not valid JSON"),
        ([1], "it is list, not a mapping"),
        ({"tools": [1]}, "'tools' is set by unidpo-mm itself"),
    ],
)
def test_variables_that_cannot_be_used_are_refused(value: Any, reason: str) -> None:
    (problem,) = read_records([{**PLAIN, "chat_template_kwargs": value}]).problems
    assert problem.where.startswith("data set 'data' row 1, field 'chat_template_kwargs'")
    assert reason in str(problem)


def test_rows_that_are_rendered_otherwise_are_never_joined() -> None:
    prompts = [row(str(n), "x", (f"a{n}", "b"), **fields) for n, fields in enumerate(
        ({}, {"reasoning": "keep"}, {"template_kwargs": '{"enable_thinking": true}'}, {})
    )]  # fmt: skip
    joined = group_by_prompt(prompts, max_units=8)
    assert [item.id for item in joined] == ["0 + 3", "1", "2"]


def test_the_option_of_a_source_affects_only_its_rows(tmp_path: Path) -> None:
    files = []
    for number, reasoning in enumerate((None, "keep", "strip")):
        path = tmp_path / f"{number}.jsonl"
        path.write_text(json.dumps(THOUGHTS))
        files.append(SourceOptions(path=str(path), reasoning=reasoning))
    loaded = read_sources(files)
    assert [item.reasoning for item in loaded.rows] == [None, "keep", "strip"]
    assert [report.stripped for report in loaded.reports] == [0, 0, 2]


def test_a_setting_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    from unidpo_mm import UniDPOConfig
    from unidpo_mm.errors import RecipeError

    with pytest.raises(RecipeError, match="reasoning: found the text 'kep', did you mean"):
        UniDPOConfig(output_dir=str(tmp_path), report_to="none", reasoning="kep")  # type: ignore[arg-type]


def test_settings_reach_rows_prompts_and_the_record_of_a_run(tmp_path: Path) -> None:
    import reasoning_templates as templates
    from transformers import AutoTokenizer

    from unidpo_mm.config import load_recipe
    from unidpo_mm.config.from_recipe import config_of
    from unidpo_mm.plugins import load_family
    from unidpo_mm.training.run import train_from_recipe

    folder = load_family("text").tiny(tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = templates.QWEN3
    tokenizer.save_pretrained(folder)
    (tmp_path / "data.jsonl").write_text(f"{json.dumps(THOUGHTS)}\n{json.dumps(PLAIN)}\n")
    recipe_file = tmp_path / "recipe.yaml"

    def recipe(reasoning: str) -> Any:
        recipe_file.write_text(f"""
model: {{name_or_path: model, chat_template_kwargs: {{enable_thinking: false}}}}
data: {{sources: [{{path: data.jsonl, name: rows, reasoning: {reasoning}}}]}}
loss: {{name: dpo}}
train: {{output_dir: out, max_steps: 1, use_cpu: true, report_to: none, disable_tqdm: true,
  save_strategy: "no"}}
""")
        return load_recipe(recipe_file)

    with pytest.raises(DataError, match=r"data.jsonl row 1, field 'chosen': the chat template cha"):
        train_from_recipe(recipe("null"))
    for reasoning, scored in (("keep", THOUGHTS["chosen"]), ("strip", "Seven")):
        settings = recipe(reasoning)
        assert config_of(settings).chat_template_kwargs == {"enable_thinking": False}
        train = settings.train.model_copy(update={"output_dir": str(tmp_path / reasoning)})
        trainer = train_from_recipe(settings.model_copy(update={"train": train}))
        adapter, first = trainer.parts.adapter, trainer.parts.train_rows[0]
        group = adapter.encode(first)
        assert group.prompt_ids.tolist() == adapter.encode_prompt(first).prompt_ids.tolist()
        text = tokenizer.decode([*group.prompt_ids, *group.response_ids[0]])
        assert text.endswith(f"assistant\n<think>\n\n</think>\n\n{scored}<|im_end|>\n")
        record = json.loads((tmp_path / reasoning / "run.json").read_text())["prompts"]
        assert record["chat_template_kwargs"] == {"enable_thinking": False}
        assert record["reasoning"] == {"rows": reasoning}

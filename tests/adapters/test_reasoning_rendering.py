"""Targets are the text of the response, after exactly the prompt that generation starts from."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import reasoning_templates as templates
import torch
from builders import row

from unidpo_mm.adapter import AdapterOptions
from unidpo_mm.errors import DataError, ModelError
from unidpo_mm.modeling.families import family_for
from unidpo_mm.modeling.load import ModelSource, load_adapter, load_config
from unidpo_mm.records import Message, PreferenceRow

Checkpoint = Callable[[str], Path]

THOUGHTS = ("<think>Add: 3 + 4 = 7.</think>Seven", "<think>No idea.</think>Nine")
CANONICAL = ("<think>\nAdd: 3 + 4 = 7.\n</think>\n\nSeven", "<think>\nHm.\n</think>\n\nNine")
PLAIN = ("Seven", "Nine, I think")
END = "<|im_end|>"
"""The end-of-sequence token of the tiny models."""


def adapter_of(folder: Path, template: Any = None, **options: Any) -> Any:
    """Return the adapter of a checkpoint with another chat template, without weights."""
    source = ModelSource(name_or_path=str(folder))
    config = load_config(source)
    adapter: Any = load_adapter(
        source, AdapterOptions(**options), config=config, family=family_for(config)
    )
    if template is not None:
        adapter.processor.chat_template = template
    return adapter


def encoded(adapter: Any, example: PreferenceRow) -> tuple[str, list[str]]:
    """Return prompt and responses as text; the prompt is that of generation."""
    group = adapter.encode(example)
    assert torch.equal(group.prompt_ids, adapter.encode_prompt(example).prompt_ids)
    tokenizer = getattr(adapter.processor, "tokenizer", adapter.processor)
    return tokenizer.decode(group.prompt_ids), [tokenizer.decode(x) for x in group.response_ids]


def row_of(responses: tuple[str, ...], **fields: Any) -> PreferenceRow:
    return row("r1", "3 + 4?", responses, **fields)


REMOVED = {
    "deepseek": (templates.DEEPSEEK_R1, THOUGHTS),
    "magistral": (templates.MAGISTRAL, ("[THINK]Add.[/THINK]Seven", "[THINK]Hm.[/THINK]Nine")),
    "qwen3 rewrites blanks": (templates.QWEN3, THOUGHTS),
    "qwen3, thinking off": (templates.QWEN3, CANONICAL),
    "escaped": (
        templates.GEMMA.replace("| trim", "| trim | replace('+', 'plus')"),
        ("3 + 4", "3 + 5"),
    ),
}


@pytest.mark.parametrize("model_type", ["llama", "llava"])
@pytest.mark.parametrize("case", REMOVED)
def test_a_response_that_the_template_changes_is_refused_or_kept_unchanged(
    checkpoint: Checkpoint, model_type: str, case: str
) -> None:
    template, responses = REMOVED[case]
    if model_type == "llava":
        template = template.replace("m['content']", "m['content'][0]['text']")
        template = template.replace("m.content", "m.content[0].text")
    off = {"chat_template_kwargs": {"enable_thinking": False}} if "off" in case else {}
    adapter = adapter_of(checkpoint(model_type), template, **off)
    with pytest.raises(DataError) as error:
        adapter.encode(row_of(responses))
    assert [problem.where for problem in error.value.problems] == [
        "data.jsonl row r1, field 'chosen'",
        "data.jsonl row r1, field 'rejected'",
    ]
    assert "the chat template changes the re" in str(error.value)
    assert "keep" in error.value.problems[0].remedy

    prompt, kept = encoded(adapter, row_of(responses, reasoning="keep"))
    if prompt.endswith("<think>\n"):  # the prompt contains the tag
        responses = tuple(text.removeprefix("<think>") for text in responses)
    assert [text.rstrip() for text in kept] == [text + END for text in responses]
    if "off" in case:
        assert prompt.endswith("assistant\n<think>\n\n</think>\n\n")


@pytest.mark.parametrize("reasoning", [None, "keep"])
def test_a_template_that_changes_every_response_is_refused(
    checkpoint: Checkpoint, reasoning: Any
) -> None:
    adapter = adapter_of(checkpoint("llama"), templates.GEMMA.replace("| trim", "| upper"))
    with pytest.raises(DataError, match=r"field 'rejected': the chat template changes the respon"):
        adapter.encode(row_of(("SEVEN", "nine"), reasoning=reasoning))


def test_without_reasoning_the_final_answers_remain(checkpoint: Checkpoint) -> None:
    adapter = adapter_of(checkpoint("llama"), templates.DEEPSEEK_R1)
    _, texts = encoded(adapter, row_of(THOUGHTS).without_reasoning())
    assert texts == [f"Seven{END}\n", f"Nine{END}\n"]


UNCHANGED = {
    "qwen3": (templates.QWEN3, CANONICAL, {}, "assistant\n", CANONICAL),
    "qwen3 without thoughts": (
        templates.QWEN3,
        PLAIN,
        {},
        "assistant\n",
        [f"<think>\n\n</think>\n\n{text}" for text in PLAIN],
    ),
    "qwen3, thinking off": (
        templates.QWEN3,
        PLAIN,
        {"enable_thinking": False},
        "assistant\n<think>\n\n</think>\n\n",
        PLAIN,
    ),
    "qwen3, thinking on": (
        templates.QWEN3_THINKING,
        CANONICAL,
        {},
        "assistant\n<think>\n",
        [text.removeprefix("<think>\n") for text in CANONICAL],
    ),
    "qwen3, thinking on, without thoughts": (
        templates.QWEN3_THINKING,
        PLAIN,
        {},
        "assistant\n<think>\n",
        [f"\n</think>\n\n{text}" for text in PLAIN],
    ),
    "block in the prompt alone": (
        templates.EMPTY_BLOCK_IN_PROMPT_ALONE,
        PLAIN,
        {"enable_thinking": False},
        "assistant\n<think>\n\n</think>\n\n",
        PLAIN,
    ),
    "glm": (templates.GLM, PLAIN, {}, "assistant", [f"\n<think></think>\n{t}" for t in PLAIN]),
    "glm, thinking off": (
        templates.GLM,
        PLAIN,
        {"enable_thinking": False},
        "/nothink<|im_start|>assistant\n<think></think>",
        [f"\n{text}" for text in PLAIN],
    ),
    "deepseek without thoughts": (
        templates.DEEPSEEK_R1,
        PLAIN,
        {},
        "assistant\n<think>\n",
        PLAIN,
    ),
    "trimmed": (
        templates.GEMMA,
        ("  Seven \n", "\n\nNine"),
        {},
        "<|im_start|>model\n",
        ("Seven", "Nine"),
    ),
}


@pytest.mark.parametrize("case", UNCHANGED)
def test_an_unchanged_response_follows_the_generation_prompt(
    checkpoint: Checkpoint, case: str
) -> None:
    template, responses, variables, prompt_end, scored = UNCHANGED[case]
    adapter = adapter_of(checkpoint("llama"), template, chat_template_kwargs=variables)
    prompt, texts = encoded(adapter, row_of(responses))
    assert prompt.endswith(prompt_end)
    assert [text.rstrip("\n").removesuffix(END) for text in texts] == list(scored)


def test_a_block_that_the_template_writes_before_responses_gives_one_warning(
    checkpoint: Checkpoint, caplog: pytest.LogCaptureFixture
) -> None:
    adapter = adapter_of(checkpoint("llama"), templates.QWEN3)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            adapter.encode(row_of(PLAIN))
    assert len(caplog.records) == 1
    assert "'<think>\\n\\n</think>\\n\\n' between the generation prompt" in caplog.text
    assert "model.chat_template_kwargs" in caplog.text


def test_an_answer_inside_an_open_block_gives_a_warning(
    checkpoint: Checkpoint, caplog: pytest.LogCaptureFixture
) -> None:
    adapter = adapter_of(checkpoint("llama"), templates.DEEPSEEK_R1)
    with caplog.at_level(logging.WARNING):
        adapter.encode(row_of(PLAIN))
    assert "the generation prompt opens a reasoning block and the responses contain" in caplog.text


# ---- variables of the template ----


def test_variables_of_a_row_override_those_of_the_run(checkpoint: Checkpoint) -> None:
    adapter = adapter_of(
        checkpoint("llama"), templates.QWEN3, chat_template_kwargs={"enable_thinking": False}
    )
    prompt, _ = encoded(adapter, row_of(PLAIN, template_kwargs='{"enable_thinking": true}'))
    assert prompt.endswith("assistant\n")


@pytest.mark.parametrize("model_type", ["llama", "llava"])
def test_a_variable_that_the_template_does_not_use_gives_a_warning(
    checkpoint: Checkpoint, caplog: pytest.LogCaptureFixture, model_type: str
) -> None:
    adapter = adapter_of(checkpoint(model_type), chat_template_kwargs={"enable_thinkng": False})
    with caplog.at_level(logging.WARNING):
        adapter.encode(row_of(PLAIN))
        adapter.encode_prompt(row_of(PLAIN))
    (record,) = caplog.records
    assert "no variable 'enable_thinkng'" in record.getMessage()


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"tools": []}, r"model.chat_template_kwargs.tools: 'tools' is set by unidpo-mm itself"),
        ({"tokenize": True}, "'tokenize' is set by"),
        (["enable_thinking"], "it is list, not a mapping of names"),
        ({1: 2}, "not a mapping of names"),
    ],
)
def test_reserved_variables_are_refused(variables: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        AdapterOptions(chat_template_kwargs=variables)


# ---- templates that refuse a row ----


@pytest.mark.parametrize(
    ("template", "messages", "field", "reason", "remedy"),
    [
        (
            templates.GEMMA,
            [("system", "Be kind"), ("user", "Hi")],
            "prompt",
            "System role not supported",
            "Move the system message into the first user message",
        ),
        (
            templates.GEMMA,
            [("user", "Hi"), ("user", "Again")],
            "prompt",
            "Conversation roles must alternate",
            "Change the turns of the row",
        ),
        (
            "{% if messages | length > 1 %}{{ missing.attribute }}{% endif %}x",
            [("user", "Hi")],
            "chosen",
            "'missing' is undefined",
            "use another chat template",
        ),
        ("{{ messages[0].content + 1 }}", [("user", "Hi")], "prompt", "TypeError", "another chat"),
        ("{% if %}", [("user", "Hi")], "prompt", "Expected an expression", "another chat"),
    ],
)
def test_the_error_of_a_row_that_the_template_refuses_has_field_and_remedy(
    checkpoint: Checkpoint, template: str, messages: Any, field: str, reason: str, remedy: str
) -> None:
    adapter = adapter_of(checkpoint("llama"), template)
    example = row("r1", [Message(role, (text,)) for role, text in messages])
    with pytest.raises(DataError) as error:
        adapter.encode(example)
    problem = error.value.problems[0]
    assert problem.where == f"data.jsonl row r1, field '{field}'"
    assert reason in str(error.value)
    assert remedy in problem.remedy


def test_an_omitted_system_message_gives_a_warning(
    checkpoint: Checkpoint, caplog: pytest.LogCaptureFixture
) -> None:
    adapter = adapter_of(checkpoint("llama"), templates.DEEPSEEK_R1)
    example = row("r1", [Message("system", ("Be kind",)), Message("user", ("Hi",))])
    with caplog.at_level(logging.WARNING):
        adapter.encode(example)
    assert "changes or omits the system message of data.jsonl row r1" in caplog.text


def test_a_changed_user_message_gives_a_warning(
    checkpoint: Checkpoint, caplog: pytest.LogCaptureFixture
) -> None:
    template = templates.GEMMA.replace("| trim", "| trim | replace('a < b', 'a &lt; b')")
    adapter = adapter_of(checkpoint("llama"), template)
    with caplog.at_level(logging.WARNING):
        adapter.encode(row("r0", "Is b < a?"))
        adapter.encode(row("r1", "Is a < b?"))
        adapter.filler()
    (record,) = caplog.records
    assert "changes or omits the user message of data.jsonl row r1" in record.getMessage()


# ---- named templates ----


@pytest.mark.parametrize("model_type", ["llama", "llava"])
@pytest.mark.parametrize("as_list", [False, True], ids=["dict", "list"])
def test_the_named_template_depends_on_the_tools_of_a_row(
    checkpoint: Checkpoint, model_type: str, as_list: bool
) -> None:
    start = "{% if add_generation_prompt %}A{% else %}AB{{ messages[-1].content | string }}"
    named: Any = {
        "default": f"default {start}{{% endif %}}",
        "tool_use": f"with tools {start}{{% endif %}}",
    }
    if as_list:
        named = [{"name": name, "template": text} for name, text in named.items()]
    adapter = adapter_of(checkpoint(model_type), named)
    with_tools = row_of(PLAIN, tools='[{"type": "function", "function": {"name": "f"}}]')
    tokenizer = getattr(adapter.processor, "tokenizer", adapter.processor)
    for example, prompt in ((row_of(PLAIN), "default A"), (with_tools, "with tools A")):
        assert tokenizer.decode(adapter.encode_prompt(example).prompt_ids) == prompt


def test_named_templates_without_a_default_are_refused(checkpoint: Checkpoint) -> None:
    adapter = adapter_of(checkpoint("llama"), {"rag": "x", "tool_use": "y"})
    with pytest.raises(ModelError, match=r"chat templates are rag, tool_use, and none is"):
        adapter.encode(row_of(PLAIN))

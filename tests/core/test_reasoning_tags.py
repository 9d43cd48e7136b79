"""Reasoning blocks are removed in every notation, complete or not."""

import time

import pytest

from unidpo_mm.reasoning import TAGS, opens_reasoning, strip_reasoning


@pytest.mark.parametrize("example", TAGS)
def test_every_notation_is_removed(example):
    block = example.replace("...", " a cat? no ").replace("thought a", "thought\n a")
    for response in (f"{block}\n\nYes", f"{block.upper()} Yes", f"{block}{block}\nYes"):
        stripped = strip_reasoning(response)
        assert stripped.text == "Yes"
        assert stripped.has_reasoning
        assert not stripped.unclosed
    cut = block[: block.index("no ")]
    stripped = strip_reasoning(cut)
    assert (stripped.text, stripped.unclosed) == ("", True)
    closing = block[block.index("no ") :]
    assert strip_reasoning(f"{closing}\nYes").text == "Yes"


@pytest.mark.parametrize(
    ("response", "text", "blocks", "unclosed"),
    [
        ("Yes", "Yes", 0, False),
        ("  Yes\n", "  Yes\n", 0, False),  # nothing to remove: unchanged
        ("<think>\n\n</think>\n\nYes", "Yes", 1, False),
        ("<thinking>a</thinking>Yes", "Yes", 1, False),
        ("<reasoning depth='2'>a</reasoning >Yes", "Yes", 1, False),
        ("<seed:think>a</seed:think>Yes", "Yes", 1, False),
        ("<think/>Yes", "Yes", 1, False),
        ("<think>a<think>b</think>c</think>Yes", "Yes", 1, False),
        ("<thinking>a<think>b</think>c</thinking>Yes", "Yes", 1, False),
        ("<think>the tag <think> is a mention</think>Yes", "Yes", 1, False),
        ("<think>a</thinking>Yes", "Yes", 1, False),
        ("<think>a</think>Yes<think>b</think>, it is", "Yes, it is", 2, False),
        ("<think>a</think>Yes<think>b", "Yes", 2, True),
        ("a</think>Yes", "Yes", 1, False),
        ("a</think>b</think>Yes", "Yes", 2, False),
        ("<think>a</think>b</think>Yes", "Yes", 2, False),
        ("<think>a</think>Yes</think>", "Yes", 1, False),
        ("a cat</think>", "", 1, False),
        ("`<think>` opens a block", "`<think>` opens a block", 0, False),
        ("<think>so `</think>` ends it</think>Yes", "Yes", 1, False),
        ("<thinker>a</thinker>Yes", "<thinker>a</thinker>Yes", 0, False),
        ("<think>a</think>\n<answer>B</answer>", "<answer>B</answer>", 1, False),
        ("[THINK]a[/THINK]Yes", "Yes", 1, False),
        ("<|START_THINKING|>a<|END_THINKING|>Yes", "Yes", 1, False),
        (
            "<|channel|>analysis<|message|>a cat?<|end|>"
            "<|start|>assistant<|channel|>final<|message|>Yes<|return|>",
            "Yes",
            1,
            False,
        ),
        (
            "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>commentary "
            "to=functions.look <|constrain|>json<|message|>{}<|call|><|start|>assistant"
            "<|channel|>final<|message|>Yes",
            "Yes",
            2,
            False,
        ),
        ("a<|end|><|start|>assistant<|channel|>final<|message|>Yes", "Yes", 1, False),
        ("<|channel|>analysis<|message|>a cat? no", "", 1, True),
        ("<|channel|>analysis", "", 1, True),
        ("analysisIs it a cat? No.assistantfinalYes", "Yes", 1, False),
        ("analysisIs it a cat", "", 1, True),
        ("analysis of the image: a cat", "analysis of the image: a cat", 0, False),
    ],
)
def test_the_text_without_reasoning(response, text, blocks, unclosed):
    stripped = strip_reasoning(response)
    assert (stripped.text, len(stripped.blocks), stripped.unclosed) == (text, blocks, unclosed)


def test_an_empty_block_is_not_reasoning():
    assert not strip_reasoning("<think>\n\n</think>\n\nYes").has_reasoning
    assert strip_reasoning("<think>a</think>Yes").blocks == ("a",)


def test_a_response_after_a_prompt_that_opens_a_block():
    assert strip_reasoning("a</think>Yes", opened=True).text == "Yes"
    cut = strip_reasoning("is it A? or B", opened=True)
    assert (cut.text, cut.unclosed, cut.blocks) == ("", True, ("is it A? or B",))
    again = strip_reasoning("<think>a</think>Yes", opened=True)  # the model repeats the tag
    assert (again.text, again.blocks) == ("Yes", ("a",))


@pytest.mark.parametrize(
    ("prompt", "opens"),
    [
        ("<|im_start|>assistant\n<think>\n", True),
        ("<|im_start|>assistant\n<think>\n\n</think>\n\n", False),
        ("<|im_start|>assistant\n", False),
        ("Use <think> tags.<|im_start|>assistant\n", False),
        ("[/INST][THINK]", True),
        ("<|start|>assistant<|channel|>analysis<|message|>", True),
        ("<|start|>assistant<|channel|>final<|message|>", False),
    ],
)
def test_prompts_that_open_a_block(prompt, opens):
    assert opens_reasoning(prompt) is opens


@pytest.mark.parametrize(
    "piece",
    ["<think>", "a</think>", "<think>a</think>", "<think a", "<|channel|>", "[THINK]", "<", " "],
)
def test_the_time_is_linear_in_the_length(piece):
    def seconds(count: int) -> float:
        start = time.process_time()
        strip_reasoning(piece * count)
        return time.process_time() - start

    short = min(seconds(1_000) for _ in range(3))
    long = min(seconds(10_000) for _ in range(3))
    assert long < 40 * short + 0.01  # quadratic time would be 100 times as long

"""Layout does not count when questions are compared; the question itself does."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unidpo_mm.data.question_text import GRAM, hash_grams, parse_question, share_options

STEM = "how many red birds sit on the fence"
OPTIONS = frozenset({"two", "three birds", "none"})

LAYOUTS = (
    "<image>\nHow many red birds sit on the fence?\nA. two\nB. three birds\nC. none",
    "How many red birds sit on the fence?\n(A) none\n(B) two\n(C) three birds\n<image>",
    "How many red birds sit on the fence?\nOptions: A: two, B: three birds, C: none.",
    "Hint: Look closely.\nQuestion: How many red birds sit on the fence?\nOptions:\nA. two\n"
    "B. three birds\nC. none\nPlease select the correct answer from the options above. \n",
    "HOW MANY  RED\tBIRDS SIT ON THE FENCE? A) three birds B) two C) none\n"
    "Answer with the option's letter from the given choices directly.",
    "\uff28ow many red birds sit on the fence?\n\uff21\uff0e two\n\uff22\uff0e three birds\n"
    "\uff23\uff0e none",
    "<|vision_start|><|image_pad|><|vision_end|>How many red birds sit on the fence? "
    "B. three birds A. two C. none",
)

CHINESE = (
    "\u4ec0\u4e48\u989c\u8272?\nA\u3001\u7ea2 B\u3001\u84dd\n"
    "\u8bf7\u76f4\u63a5\u56de\u7b54\u9009\u9879\u5b57\u6bcd\u3002"
)
"""What color? A. red B. blue. Please answer with the letter of the option."""


@pytest.mark.parametrize("text", LAYOUTS)
def test_layouts_of_a_question_are_equal(text: str):
    parsed = parse_question(text)
    assert (parsed.stem, parsed.options) == (STEM, OPTIONS)


def test_options_may_be_apart_from_the_text():
    options = ["Two.", "none", "three  birds", ""]
    assert parse_question("How many red birds sit on the fence?", options).options == OPTIONS


@pytest.mark.parametrize(
    ("text", "stem"),
    [
        ("What is 3 + 4?\nAnswer the question using a single word or phrase.", "what is 3 + 4"),
        ("Is it red? Please answer yes or no.", "is it red"),
        ("Solve x. Let's think step by step and put the answer within \\boxed{}", "solve x"),
        ("What is shown? Answer:", "what is shown"),
        (CHINESE, "\u4ec0\u4e48\u989c\u8272"),
        # whole prompts that look like a part of another one stay
        ("Answer with the word in the image.", "answer with the word in the image"),
        ("Write about vitamin A: how does it work?", "write about vitamin a: how does it work"),
        ("Compare B. Franklin and T. Paine, e. g. their style.",
         "compare b. franklin and t. paine, e. g. their style"),
        ("Does the caption mention <blue> hats?", "does the caption mention <blue> hats"),
        ("<image>", ""),
    ],
)  # fmt: skip
def test_only_layout_is_removed(text: str, stem: str):
    assert parse_question(text).stem == stem


def test_a_prompt_of_options_alone_is_compared_by_them():
    first, second = parse_question("A. red B. blue"), parse_question("A. blue\nB. red")
    assert first == second
    assert first.stem == "blue red"


@given(st.text(alphabet=st.characters(codec="ascii"), max_size=80))
def test_case_and_white_space_do_not_count(text: str):
    spaced = "\u00a0\n ".join(text.upper().split(" "))
    assert parse_question(f" \t{spaced}\n") == parse_question(text)


@given(st.text(max_size=60))
def test_any_text_is_parsed(text: str):
    parsed = parse_question(text)
    assert parse_question(text) == parsed
    assert parsed.stem == " ".join(parsed.stem.split())


@pytest.mark.parametrize(
    ("first", "second", "shared"),
    [
        (set(), {1, 2}, True),
        ({1, 2, 3, 4}, {1, 2}, True),
        ({1, 2, 3, 4}, {3, 4, 5, 6}, True),
        ({1, 2, 3, 4}, {4, 5, 6, 7}, False),
        ({1, 2}, {3, 4}, False),
    ],
)
def test_questions_with_other_options_are_other_questions(first, second, shared):
    assert share_options(first, second) is shared
    assert share_options(second, first) is shared


def test_grams_are_those_of_each_text():
    words = [f"w{n}" for n in range(20)]
    texts = [" ".join(words), " ".join(words[:GRAM]), " ".join(words[: GRAM - 1]), ""]
    owners, grams = hash_grams([*texts, " ".join(words[3:18])])
    assert owners.tolist() == [0] * 8 + [1] + [4] * 3
    assert grams[8] == grams[0]
    assert grams[9:].tolist() == grams[3:6].tolist()
    assert len(set(grams[:8].tolist())) == 8
    assert [len(column) for column in hash_grams([])] == [0, 0]

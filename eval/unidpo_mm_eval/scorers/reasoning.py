"""The part of a response with reasoning that a protocol scores.

Every protocol names one of these rules in its field ``reasoning``; it is applied before any other
rule reads the response.
"""

from collections.abc import Callable, Mapping
from typing import Literal

from unidpo_mm.reasoning import strip_reasoning

ReasoningRule = Literal["none", "lmms", "split_think", "clean"]
DESCRIPTIONS: Mapping[ReasoningRule, str] = {
    "none": "responses are scored completely, including reasoning",
    "lmms": "lmms-eval's default: <think> and <analysis> blocks are removed; unclosed ones stay",
    "split_think": "VLMEvalKit with SPLIT_THINK: the text after the last </think> is scored",
    "clean": "reasoning blocks in any notation are removed; an unclosed block is not an answer",
}
LMMS_TAGS = (("<think>", "</think>"), ("<analysis>", "</analysis>"))
"""Default of lmms-eval's option ``--reasoning_tags``; case matters, attributes are not allowed."""
THINK_END = "</think>"


def strip_lmms_tags(response: str) -> str:
    """Return a response as lmms-eval scores it by default.

    Blocks are removed pair by pair, from the first opening tag to the next closing tag. If closing
    tags remain and no opening tag does, the text after the last one counts, because the chat
    template put the opening tag into the prompt. An unclosed block stays. A response without tags
    is unchanged, so its whitespace still counts for rules that do not ignore it.
    """
    text = response
    for opening, closing in LMMS_TAGS:
        start = text.find(opening)
        while start >= 0 and (end := text.find(closing, start)) >= 0:
            text = text[:start] + text[end + len(closing) :]
            start = text.find(opening)
        if start < 0 and closing in text:
            text = text.rpartition(closing)[2]
    return response if text == response else text.strip()


def split_think(response: str) -> str:
    """Return a response as VLMEvalKit scores it with ``SPLIT_THINK`` set; it is off by default."""
    if THINK_END not in response:
        return response
    return response.rpartition(THINK_END)[2].strip()


RULES: Mapping[ReasoningRule, Callable[[str], str]] = {
    "none": lambda response: response,
    "lmms": strip_lmms_tags,
    "split_think": split_think,
}


def scored_text(response: str, rule: ReasoningRule, *, opened: bool = False) -> str:
    """Return the part of a response that is scored.

    `opened` means that the prompt ends with an opening tag. Only ``clean`` uses it; the
    toolkits do not know their prompts when they score.
    """
    if rule == "clean":
        return strip_reasoning(response, opened=opened).text
    return RULES[rule](response)

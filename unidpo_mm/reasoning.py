"""Detection and removal of reasoning blocks in responses.

Reasoning models write their reasoning before the answer, in `<think>...</think>` or another of the
notations in `TAGS`. Evaluation grades the answer alone, and a data source can be used without
reasoning. Both use `strip_reasoning`, so a new notation is added only here.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

__all__ = [
    "TAGS",
    "Stripped",
    "is_reasoning_token",
    "opens_reasoning",
    "strip_reasoning",
]

NAMES = "thinking|think|thoughts|thought|reasoning|reason|analysis|reflection|scratchpad"
"""Names of tags that enclose reasoning."""

TAGS = {
    "<think>...</think>": (
        rf"<(?:\w+:)?(?P<name>{NAMES}|antthinking)(?:\s[^<>]*)?/?>",
        rf"</(?:\w+:)?(?P<name>{NAMES}|antthinking)\s*>",
    ),
    "<|begin_of_thought|>...<|end_of_thought|>": (
        rf"<\|?(?:begin|start)_(?:of_)?(?P<name>{NAMES})\|?>",
        rf"<\|?end_(?:of_)?(?P<name>{NAMES})\|?>",
    ),
    "<|think|>...<|/think|>": (rf"<\|(?P<name>{NAMES})\|>", rf"<\|/(?P<name>{NAMES})\|>"),
    "[THINK]...[/THINK]": (
        r"\[(?P<name>think|thinking|reasoning)\]",
        r"\[/(?P<name>think|thinking|reasoning)\]",
    ),
    "\u25c1think\u25b7...\u25c1/think\u25b7": (
        r"\u25c1(?P<name>think)\u25b7",
        r"\u25c1/(?P<name>think)\u25b7",
    ),
    "<|channel>thought...<channel|>": (r"<\|channel>(?:\s*\w+)?", r"<channel\|>"),
}
"""A block in each notation -> its opening and closing tag.

If the tags have a group ``name``, it must be the same. Case, attributes and a namespace are
ignored.
"""
OPENING, CLOSING = (
    [re.compile(pattern, re.IGNORECASE) for pattern in patterns]
    for patterns in zip(*TAGS.values(), strict=True)
)

MESSAGE = re.compile(
    r"(?:<\|start\|>\s*\w*)?<\|channel\|>\s*(?P<channel>\w*)[^<]*(?:<\|constrain\|>[^<]*)?"
    r"(?:<\|message\|>|\Z)(?P<content>.*?)"
    r"(?P<end><\|(?:end|return|call)\|>|(?=<\|(?:start|channel)\|>)|\Z)",
    re.DOTALL | re.IGNORECASE,
)
"""A message of a response in channels; all channels except ``final`` contain reasoning."""
HEADER = re.compile(r"<\|channel\|>\s*(?P<channel>\w*)[^<]*<\|message\|>\s*\Z", re.IGNORECASE)
FINAL = "final"
CHANNEL_TOKENS = frozenset(
    f"<|{name}|>" for name in ("start", "channel", "constrain", "message", "end", "return", "call")
)
END = re.compile(r"<\|end\|>", re.IGNORECASE)
DECODED = re.compile(r"\s*analysis.*assistantfinal", re.DOTALL)
"""A response in channels decoded without special tokens, up to the final message."""
DECODED_UNCLOSED = re.compile(r"\s*analysis(?=[A-Z])")


@dataclass(frozen=True)
class Stripped:
    """A response without its reasoning blocks.

    Attributes:
        text: The rest of the response; the unchanged response if it has no block.
        blocks: The content of each removed block, in order.
        unclosed: Whether the last block has no end, usually because the response was cut.
    """

    text: str
    blocks: tuple[str, ...] = ()
    unclosed: bool = False

    @property
    def has_reasoning(self) -> bool:
        """Whether a block is not empty; templates may insert an empty one."""
        return any(block.strip() for block in self.blocks)


@dataclass(frozen=True)
class _Tag:
    start: int
    end: int
    style: int
    name: str
    opens: bool
    empty: bool = False


def strip_reasoning(text: str, *, opened: bool = False) -> Stripped:
    """Remove the reasoning blocks of a response.

    Nested blocks are removed as one. A closing tag without an opening one ends a block that started
    with the response: some chat templates put the opening tag into the generation prompt. A block
    without an end extends to the end of the text. A tag in backticks is a quotation.

    Args:
        text: The response.
        opened: Whether the prompt ends with an opening tag, so that the response starts inside a
            block.
    """
    channels = _final_channel(text)
    rest = _outside_tags(channels.text, opened=opened and not channels.blocks)
    blocks = (*channels.blocks, *rest.blocks)
    if not blocks and rest.text == text:
        return Stripped(text)
    return Stripped(rest.text.strip(), blocks, channels.unclosed or rest.unclosed)


def opens_reasoning(prompt: str) -> bool:
    """Return whether a prompt ends with an opening tag, so that a response starts inside it."""
    header = HEADER.search(prompt)
    if header:
        return header["channel"].lower() != FINAL
    tags = list(_tags(prompt))
    return bool(tags) and tags[-1].opens and not prompt[tags[-1].end :].strip()


def is_reasoning_token(token: str) -> bool:
    """Return whether a special token belongs to the notation of reasoning blocks.

    Such tokens must be kept when decoding, to distinguish reasoning and answer.
    """
    tags = list(_tags(token))
    return token in CHANNEL_TOKENS or (len(tags) == 1 and tags[0].end - tags[0].start == len(token))


def _final_channel(text: str) -> Stripped:
    """Return the final message of a response that is written in channels."""
    if decoded := DECODED.match(text):
        return Stripped(text[decoded.end() :], (decoded[0],))
    if decoded := DECODED_UNCLOSED.match(text):
        return Stripped("", (text[decoded.end() :],), unclosed=True)
    messages = list(MESSAGE.finditer(text))
    if not messages:
        return Stripped(text)
    kept, blocks, unclosed = [], [], False
    before = text[: messages[0].start()]
    if END.search(before):  # the prompt opened the first message
        blocks.append(END.split(before)[0])
    else:
        kept.append(before)
    for message in messages:
        if message["channel"].lower() == FINAL:
            kept.append(message["content"])
        else:
            blocks.append(message["content"])
            unclosed = not message["end"] and message.end() == len(text)
    kept.append(text[messages[-1].end() :])
    return Stripped("".join(kept), tuple(blocks), unclosed)


def _outside_tags(text: str, *, opened: bool) -> Stripped:
    tags = list(_tags(text))
    blocks: list[str] = []
    kept = ""
    position = number = 0
    if opened and not (tags and tags[0].opens and not text[: tags[0].start].strip()):
        first = next((n for n, tag in enumerate(tags) if not tag.opens), None)
        if first is None:
            return Stripped("", (text,), unclosed=True)
        blocks.append(text[: tags[first].start])
        position, number = tags[first].end, first + 1
    while number < len(tags):
        tag = tags[number]
        before = kept + text[position : tag.start]
        position = tag.end
        if not tag.opens:
            # a second closing tag at the very end is a mistake; any other one ends a block
            last = number + 1 == len(tags) and not text[tag.end :].strip()
            if last and blocks and before.strip():
                kept = before
            else:
                blocks.append(before)
                kept = ""
            number += 1
            continue
        kept = before
        end = number if tag.empty else _closing(tags, number)
        if end is None:
            return Stripped(kept, (*blocks, text[tag.end :]), unclosed=True)
        blocks.append("" if tag.empty else text[tag.end : tags[end].start])
        position, number = tags[end].end, end + 1
    return Stripped(kept + text[position:], tuple(blocks))


def _closing(tags: Sequence[_Tag], number: int) -> int | None:
    """Return the index of the tag that closes another one, `None` if there is none."""
    key = (tags[number].style, tags[number].name)
    depth = 1
    same: int | None = None
    other: int | None = None
    for n in range(number + 1, len(tags)):
        tag = tags[n]
        if (tag.style, tag.name) != key:
            if other is None and not tag.opens:
                other = n
            continue
        if not tag.empty:
            depth += 1 if tag.opens else -1
            same = same if tag.opens else n
        if not depth:
            return n
    # an inner opening tag was a mention, or the closing tag has another name
    return other if same is None else same


def _tags(text: str) -> Iterator[_Tag]:
    """Yield the tags of a text in order, except those in backticks."""
    tags = [
        _Tag(
            match.start(),
            match.end(),
            style,
            match.groupdict().get("name", "").lower(),
            opens,
            empty=opens and match[0].endswith("/>"),
        )
        for patterns, opens in ((OPENING, True), (CLOSING, False))
        for style, pattern in enumerate(patterns)
        for match in pattern.finditer(text)
    ]
    for tag in sorted(tags, key=lambda tag: tag.start):
        quoted = text[max(tag.start - 1, 0) : tag.start] == text[tag.end : tag.end + 1] == "`"
        if not quoted:
            yield tag

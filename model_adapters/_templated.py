"""Detect plain prompts and responses to which a chat template was already applied."""

import re
from collections.abc import Sequence

from unidpo_mm.records import PreferenceRow

from ._notices import Notices

__all__ = ["warn_of_templated_text"]

TURN_MARKS = re.compile(
    r"<\|im_start\|>|<\|start_header_id\|>|<start_of_turn>|<\|start_of_role\|>|<\|turn>"
    r"|<\|(?:user|assistant|system|User|Assistant)\|>|<\uff5c(?:User|Assistant)\uff5c>|\[/?INST\]"
    r"|<\|START_OF_TURN_TOKEN\|>|^\s*(?:USER|Human|### Instruction):.*(?:ASSISTANT|Assistant|###"
    r" Response):\s*$",
    re.DOTALL,
)
"""Turn markers in widely used chat templates of any model."""
SHORTEST_MARK = 4


def warn_of_templated_text(
    row: PreferenceRow, prompt: str, continuations: Sequence[str], notices: Notices
) -> None:
    """Warn if the chat template is applied to text that already contains one.

    Args:
        row: The row.
        prompt: Its generation prompt.
        continuations: Its continuations, each a response with the end of its turn.
        notices: Where the warning goes.
    """
    text = "".join(message.text for message in row.messages).strip()
    mark = _turn_mark(text, prompt) if row.raw and text else None
    if mark is not None:
        notices.warn(
            "templated prompt",
            row,
            "the prompt of %s already contains a chat template (%r), and the model's chat template "
            "is applied again. Set model.prompt_style to raw (prompt_style: raw) if the "
            "prompts are rendered already",
            row.where,
            mark,
        )
    for response, rendered in zip(row.responses, continuations, strict=False):
        written = response.text.strip()
        end = rendered.rpartition(written)[2].strip()
        if end and written.endswith(end):
            notices.warn(
                "ended response",
                row,
                "a response of %s already ends with %r, and the chat template ends its turn once "
                "more. Remove it from the responses, or set model.prompt_style to raw "
                "(prompt_style: raw) if prompts and responses are rendered already",
                row.where,
                end,
            )


def _turn_mark(text: str, prompt: str) -> str | None:
    """Return a turn marker in a prompt, or `None`.

    Args:
        text: The prompt in the data.
        prompt: The same prompt as rendered by the template.
    """
    before, _, after = prompt.rpartition(text)
    lines = [line.strip() for line in (*before.splitlines()[-1:], *after.splitlines()[-1:])]
    for line in lines:
        if len(line) >= SHORTEST_MARK and (text.startswith(line) or text.endswith(line)):
            return line
    match = TURN_MARKS.search(text)
    return None if match is None else match[0][:20]

"""Warnings about the rendering of rows, once per data source instead of once per row."""

import logging
import re
from collections.abc import Sequence
from typing import Any

from torch.utils.data import get_worker_info

from unidpo_mm.records import PreferenceRow

__all__ = ["Notices", "warn_of_changed_messages", "warn_of_templated_text"]

logger = logging.getLogger(__name__)

TURN_MARKS = re.compile(
    r"<\|im_start\|>|<\|start_header_id\|>|<start_of_turn>|<\|start_of_role\|>|<\|turn>"
    r"|<\|(?:user|assistant|system|User|Assistant)\|>|<\uff5c(?:User|Assistant)\uff5c>|\[/?INST\]"
    r"|<\|START_OF_TURN_TOKEN\|>|^\s*(?:USER|Human|### Instruction):.*(?:ASSISTANT|Assistant|###"
    r" Response):\s*$",
    re.DOTALL,
)
"""Turn markers in widely used chat templates of any model."""
SHORTEST_MARK = 4


class Notices:
    """A log of warnings that reports each kind once per data source."""

    def __init__(self) -> None:
        self._logged: set[tuple[str, str]] = set()

    def warn(self, kind: str, row: PreferenceRow, message: str, *args: Any) -> None:
        """Log a warning unless its kind was already logged for the row's data source.

        Of several data-loading workers only the first one logs. Rows without a place in the data,
        such as fillers, are ignored.
        """
        worker = get_worker_info()
        first = (kind, row.source) not in self._logged and (worker is None or worker.id == 0)
        if first and row.where != row.source:
            self._logged.add((kind, row.source))
            logger.warning("data source '%s': " + message, row.source, *args)


def warn_of_changed_messages(row: PreferenceRow, prompt: str, notices: Notices) -> None:
    """Warn if the prompt lacks a system or user message."""
    for message in row.messages:
        texts = [part.strip() for part in message.parts if isinstance(part, str)]
        if message.role in ("system", "user") and not all(text in prompt for text in texts):
            notices.warn(
                f"{message.role} message",
                row,
                "the chat template changes or omits the %s message of %s, so the model sees "
                "another text than the data",
                message.role,
                row.where,
            )


def warn_of_templated_text(
    row: PreferenceRow, prompt: str, continuations: Sequence[str], notices: Notices
) -> None:
    """Warn if the chat template is applied to text that already contains one."""
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
    """Return a turn marker in the prompt of the data, which is rendered as `prompt`."""
    before, _, after = prompt.rpartition(text)
    lines = [line.strip() for line in (*before.splitlines()[-1:], *after.splitlines()[-1:])]
    for line in lines:
        if len(line) >= SHORTEST_MARK and (text.startswith(line) or text.endswith(line)):
            return line
    match = TURN_MARKS.search(text)
    return None if match is None else match[0][:20]

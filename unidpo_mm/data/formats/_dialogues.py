"""Read dialogues that contain both the prompt and a response."""

from collections.abc import Callable
from typing import Any

from ...records import Response
from ..invalid_value import InvalidValue
from ._messages import Prompt, shared_turns
from ._reader import VIDEO_COLUMNS, RowReader
from ._values import describe, has_no_media

__all__ = ["extend_prompt", "split_dialogue"]

REMEDY = "Use the turns of the prompt, followed by the response of the assistant"


def split_dialogue(
    row: RowReader,
    name: str,
    change: Callable[[Any], Any] = lambda turn: turn,
    *,
    score_name: str = "score",
) -> Response:
    """Read a dialogue whose last turn is the response as the prompt; return the response.

    Args:
        row: The reader of the row.
        name: The column of the dialogue.
        change: Changes each turn into a message.
        score_name: The column of the score of the response.

    Raises:
        DataError: If it has fewer than two turns.
    """
    turns = row.get(name)
    if not isinstance(turns, list | tuple) or len(turns) < 2:
        row.note(name, f"found {describe(turns)}", REMEDY)
        row.stop()
    turns = [change(turn) for turn in turns]
    row.read_prompt(name, turns[:-1])
    return row.response(name, score_name, text=turns[-1:])


def extend_prompt(row: RowReader, *names: str) -> None:
    """Extend the prompt with the first turns that all responses share, as TRL does.

    Responses may be complete dialogues. The turns that they share become the prompt if they start
    or end with the prompt; otherwise the prompt is not changed.

    Args:
        row: The reader of the row.
        names: The columns of the responses.
    """
    values = [row.get(name) for name in names]
    if not all(isinstance(value, list | tuple) and len(value) > 1 for value in values):
        return
    try:
        dialogues = [row.dialogue(value).messages for value in values]
    except InvalidValue:
        return  # reported when the responses are read
    shared = shared_turns(dialogues)
    prompt, length = row.prompt.messages, len(row.prompt.messages)
    if len(shared) <= length:
        return
    shared_texts = [(turn.role, turn.text) for turn in shared]
    prompt_texts = [(turn.role, turn.text) for turn in prompt]
    for start in dict.fromkeys((0, len(shared) - length)):
        if shared_texts[start : start + length] == prompt_texts:
            messages = (*shared[:start], *prompt, *shared[start + length :])
            columns = (*row.image_columns, *VIDEO_COLUMNS)
            media = row.prompt
            has_media = media.images or media.videos
            if not has_media and all(map(has_no_media, map(row.get, columns))):
                media = row.dialogue(list(values[0])[: len(shared)])
            row.prompt = Prompt(messages, False, media.images, media.videos)
            return

"""Read and check the results of batch files: JSON lines with the id of a request."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import DataError, Problem
from ..inference.endpoint import ChatFailure, ChatReplies, failure_of, replies_of
from .prompt_set import MadePrompt
from .served_requests import Block

__all__ = ["BatchIds", "Result", "checked_results", "result_files"]

RESULTS = re.compile(r"results-([0-9]+)\b.*\.jsonl")
"""Name of a file with results, which has the number of the file with requests."""
CUSTOM_ID = re.compile(r"([0-9a-f]+):(.*)#([0-9]+)-([0-9]+)", re.DOTALL)


@dataclass(frozen=True)
class BatchIds:
    """The ids of requests.

    Attributes:
        tag: Hash of everything that the responses depend on.
        prompts: The prompts by id.
    """

    tag: str
    prompts: Mapping[str, MadePrompt]

    def write(self, block: Block) -> str:
        """Return the id of the request for a block."""
        return f"{self.tag}:{block.prompt.id}#{block.first}-{block.first + block.count - 1}"

    def read(self, custom_id: str) -> Block | str:
        """Return the block of an id, or what is wrong with the id."""
        match = CUSTOM_ID.fullmatch(custom_id)
        if match is None:
            return f"the custom_id '{custom_id}' is not that of a request for this data set"
        tag, name, first, last = match.groups()
        if tag != self.tag:
            return f"the custom_id '{custom_id}' is that of a request with other settings"
        if name not in self.prompts or int(last) < int(first):
            return f"the custom_id '{custom_id}' belongs to no prompt"
        return Block(self.prompts[name], int(first), int(last) - int(first) + 1)


@dataclass(frozen=True)
class Result:
    """A line of results.

    Attributes:
        where: File and row.
        custom_id: The id of the request.
        block: The responses that were requested.
        reply: The responses, or why there are none.
    """

    where: str
    custom_id: str
    block: Block
    reply: ChatReplies | ChatFailure


def result_files(directory: Path) -> dict[Path, int]:
    """Return the files with results, and the numbers of their files with requests.

    Empty files, which a program may create before it starts, are ignored.
    """
    files = {path: RESULTS.fullmatch(path.name) for path in sorted(directory.glob("*.jsonl"))}
    return {path: int(match[1]) for path, match in files.items() if match and path.stat().st_size}


def checked_results(files: Sequence[Path], ids: BatchIds) -> Iterator[Result]:
    """Yield the results in files, after all lines of all files have been checked.

    Args:
        files: The files.
        ids: The ids of requests.

    Raises:
        DataError: If lines are invalid, or an id is unknown or occurs twice.
    """
    problems: list[Problem] = []
    places: dict[str, tuple[Path, str, bool]] = {}
    for path in files:
        for result in _results(path, ids):
            if isinstance(result, Problem):
                problems.append(result)
                continue
            usable = isinstance(result.reply, ChatReplies)
            first = places.get(result.custom_id)
            if first is not None and (first[0] == path or (usable and first[2])):
                text = f"the custom_id '{result.custom_id}' occurs twice, first in {first[1]}"
                problems.append(Problem(result.where, text, "Remove one of the two lines"))
            elif first is None or usable:
                places[result.custom_id] = (path, result.where, usable)
    if problems:
        raise DataError(problems)
    for path in files:  # again, so that not all of them are in memory
        yield from (result for result in _results(path, ids) if isinstance(result, Result))


def _results(path: Path, ids: BatchIds) -> Iterator[Result | Problem]:
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            if line.strip():
                yield _result(line, f"{path} row {number}", ids)


def _result(line: bytes, where: str, ids: BatchIds) -> Result | Problem:
    try:
        content = json.loads(line)
        custom_id = content["custom_id"]
        response = content.get("response") or {}
        body, status = response.get("body"), int(response.get("status_code") or 0)
        error = content.get("error")
    except (ValueError, KeyError, TypeError, AttributeError):
        text = "the line is not a complete result of a batch"
        return Problem(where, text, "Wait for the end of the program, or copy the file again")
    block = ids.read(str(custom_id))
    if isinstance(block, str):
        return Problem(where, block, "Remove the line, or use another directory")
    return Result(where, custom_id, block, _reply(body, status, error))


def _reply(body: object, status: int, error: object) -> ChatReplies | ChatFailure:
    if status >= 400:
        return failure_of(status, json.dumps(error or body, ensure_ascii=False))
    if error or body is None:
        text = json.dumps(error, ensure_ascii=False)[:200]
        return ChatFailure("server_error", f"no response: {text}")
    try:
        return replies_of(body)
    except ChatFailure as failure:
        return failure

"""Sample responses through files in OpenAI's batch format, which another program answers.

A run writes files with requests for the missing responses and ends with the commands that answer
them. The next run of the same command stores the results, and writes further files for what is
missing. The id of a request has a hash of the settings: results of others are never used.
"""

import hashlib
import json
import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..atomic import replacement
from ..distributed.processes import processes
from ..errors import DataError, Problem, RecipeError, UniDPOError, counted
from ..inference.endpoint import EXTENDED, ChatFailure, ChatReplies
from .batch_results import BatchIds, Result, checked_results, result_files
from .files import ResponseFile, Share
from .prompt_set import MadePrompt
from .recipe import BatchFilesSection, MakeRecipe
from .served_requests import Block, Record, SampleRequests, faults, missing_blocks

__all__ = ["BatchFilesWaiting", "BatchSampling"]

MAX_BYTES = 200_000_000
"""Maximum size of a file with requests: OpenAI's limit."""
MAX_REQUESTS = 50_000
"""Maximum number of requests of a file: OpenAI's limit."""
MIN_EQUAL = 8
"""Number of prompts with equal responses from which the program is at fault."""
STORED = 1000
"""Number of results that are stored together."""
URL = "/v1/chat/completions"
REQUESTS = re.compile(r"requests-([0-9]+)\.jsonl")
"""Name of a file with requests."""
KIND_REMEDY = "Set sample.batch_files.kind to vllm if it is vllm run-batch"
Progress = Callable[[str, int, int], None]


class BatchFilesWaiting(UniDPOError):
    """Files with requests wait for another program."""

    exit_code = 1


@dataclass
class _Summary:
    """The failures and the choices of results.

    Attributes:
        failures: Id of a request that is written again -> its failure.
        refused: The refused requests.
        fewer: Whether a request was answered with fewer responses than requested.
        equal: Number of requests with several responses, all of them equal.
        different: Number of requests with different responses.
    """

    failures: dict[str, ChatFailure] = field(default_factory=dict)
    refused: list[Result] = field(default_factory=list)
    fewer: bool = False
    equal: int = 0
    different: int = 0

    def add(self, result: Result) -> None:
        """Add a result."""
        reply = result.reply
        if isinstance(reply, ChatFailure):
            if reply.about_prompt:
                self.refused.append(result)
            else:
                self.failures[result.custom_id] = reply
            return
        self.failures.pop(result.custom_id, None)
        self.fewer = self.fewer or len(reply.choices) < result.block.count
        if len(reply.choices) > 1:
            distinct = len({choice.text for choice in reply.choices})
            self.equal += distinct == 1
            self.different += distinct > 1

    def divided(self, block: Block) -> list[Block]:
        """Return a block, or its responses one by one if the program gives a single one."""
        return block.singles() if self.fewer else [block]


class BatchSampling:
    """The sampling of a recipe through batch files.

    Args:
        recipe: The recipe.
        section: Its section on batch files.

    Raises:
        RecipeError: If the directory is a file, or the program does not support what the recipe
            needs.
    """

    def __init__(self, recipe: MakeRecipe, section: BatchFilesSection) -> None:
        self.section, self.n = section, recipe.sample.n
        self.directory = Path(section.directory)
        if self.directory.exists() and not self.directory.is_dir():
            text = f"'{self.directory}' is not a directory"
            remedy = "Use the path of a directory"
            raise RecipeError(Problem("sample.batch_files.directory", text, remedy))
        self.model = str(recipe.served_model)
        self.requests = SampleRequests.of(
            recipe,
            self.model,
            where="sample.batch_files",
            extended=section.kind in EXTENDED,
            remedy=KIND_REMEDY,
        )

    def manifest(self) -> dict[str, Any]:
        """Return what the manifest records: the fields of requests."""
        return {"request": dict(self.requests.fields), "server": {"kind": self.section.kind}}

    def request_missing(
        self,
        prompts: Sequence[MadePrompt],
        store: ResponseFile,
        share: Share,
        on_progress: Progress,
    ) -> None:
        """Store the results that exist, and write files with requests for what is missing.

        Raises:
            BatchFilesWaiting: If responses are missing, with the commands to run.
            DataError: If results are invalid, or belong to other requests.
            RecipeError: If there are several processes, or all responses to a prompt are equal.
        """
        if share.count > 1 or processes().num_processes > 1:
            text = "a single process writes all batch files"
            remedy = "Sample without `accelerate launch` and --share"
            raise RecipeError(Problem("sample.batch_files", text, remedy))
        ids = BatchIds(_tag(store), {prompt.id: prompt for prompt in prompts})
        self.directory.mkdir(parents=True, exist_ok=True)
        written = self._request_files(ids)
        results = result_files(self.directory)
        summary = self._store_results([*results], ids, store)
        missing = [*missing_blocks(prompts, self.n, store.done)]
        total = len(prompts) * self.n
        on_progress("sample", total - sum(block.count for block in missing), total)
        if not missing:
            return
        waiting = [path for path, number in written.items() if number not in results.values()]
        if not waiting:
            blocks = (part for block in missing for part in summary.divided(block))
            number = max(written.values(), default=0) + 1
            waiting = self._write(number, self._lines(blocks, ids, store))
        if waiting:
            raise BatchFilesWaiting(self._message(waiting, missing, [*summary.failures.values()]))

    # ---- results ----

    def _store_results(
        self, files: Sequence[Path], ids: BatchIds, store: ResponseFile
    ) -> "_Summary":
        """Store the responses of results, and of refused prompts that they are refused."""
        summary = _Summary()
        records: list[Record] = []
        for result in checked_results(files, ids):
            summary.add(result)
            records += [item for item in self._records(result) if item["id"] not in store.done]
            if len(records) >= STORED:
                self._check_equal(summary)
                store.add(records)
                records = []
        self._check_equal(summary)
        store.add([*records, *self._faults(summary, store)])
        return summary

    def _records(self, result: Result) -> list[Record]:
        reply = result.reply
        return self.requests.records(result.block, reply) if isinstance(reply, ChatReplies) else []

    def _faults(self, summary: _Summary, store: ResponseFile) -> Iterator[Record]:
        """Yield records of refused prompts, unless the number of choices may be the reason."""
        several = summary.equal + summary.different > 0
        for result in summary.refused:
            assert isinstance(result.reply, ChatFailure)
            if several or result.block.count == 1:
                records = faults(result.block, "refused", result.reply.message)
                yield from (item for item in records if item["id"] not in store.done)
            else:
                summary.fewer = True

    def _check_equal(self, summary: _Summary) -> None:
        """Raise an error if all responses to each prompt are equal."""
        random = self.requests.fields["temperature"] > 0
        if random and not summary.different and summary.equal >= MIN_EQUAL:
            text = f"all responses to each of {summary.equal:,} prompts are equal"
            remedy = (
                "Remove the files with results and requests, add --generation-config vllm to the "
                "command, and check sample.top_k and sample.temperature"
            )
            raise RecipeError(Problem(str(self.directory), text, remedy))

    # ---- requests ----

    def _request_files(self, ids: BatchIds) -> dict[Path, int]:
        """Return the files with requests and their numbers.

        Raises:
            DataError: If one of them was written for other settings.
        """
        files = {path: REQUESTS.fullmatch(path.name) for path in self.directory.glob("*.jsonl")}
        numbers = sorted((int(match[1]), path) for path, match in files.items() if match)
        problems = []
        for _, path in numbers:
            with path.open("rb") as stream:
                line = stream.readline()
            if not line.startswith(f'{{"custom_id": "{ids.tag}:'.encode()):
                text = "the requests were written for other settings or prompts"
                remedy = "Use another directory, or remove the files"
                problems.append(Problem(str(path), text, remedy))
        if problems:
            raise DataError(problems)
        return {path: number for number, path in numbers}

    def _lines(
        self, blocks: Iterable[Block], ids: BatchIds, store: ResponseFile
    ) -> Iterator[bytes]:
        """Yield the lines of requests; prompts that cannot be sent get records instead."""
        for block in blocks:
            try:
                body = self.requests.body(block)
            except DataError as error:
                store.add(faults(block, "prompt", str(error)))
                continue
            request = {"custom_id": ids.write(block), "method": "POST", "url": URL, "body": body}
            line = f"{json.dumps(request)}\n".encode()
            if len(line) > MAX_BYTES:
                text = f"the request has {len(line):,} bytes, and a file at most {MAX_BYTES:,}"
                store.add(faults(block, "prompt", text))
                continue
            yield line

    def _write(self, number: int, lines: Iterator[bytes]) -> list[Path]:
        """Write lines to as many files as necessary, and return these."""
        written = []
        line = next(lines, None)
        while line is not None:
            path = self.directory / f"requests-{number}.jsonl"
            size = count = 0
            with replacement(path) as stream:
                while line is not None and count < MAX_REQUESTS and size + len(line) <= MAX_BYTES:
                    size += stream.write(line)
                    count += 1
                    line = next(lines, None)
            written.append(path)
            number += 1
        return written

    def _message(
        self, files: Sequence[Path], missing: Sequence[Block], failures: Sequence[ChatFailure]
    ) -> str:
        total = counted(sum(block.count for block in missing), "response is", "responses are")
        lines = [f"{total} missing."]
        if failures:
            kinds = sorted(Counter(failure.kind for failure in failures).items())
            listed = ", ".join(f"{number:,} {kind}" for kind, number in kinds)
            lines += [f"{len(failures):,} requests failed ({listed}), the last: {failures[-1]}."]
        return "\n".join([*lines, *self._commands(files)])

    def _commands(self, files: Sequence[Path]) -> Iterator[str]:
        yield "Answer the requests, then run the same command again:"
        for path in files:
            results = path.with_name(path.name.replace("requests", "results"))
            if self.section.kind == "vllm":
                words = ["vllm", "run-batch", "-i", str(path), "-o", str(results)]
                words += ["--model", self.model, "--generation-config", "vllm"]
                yield f"  {shlex.join(words)}"
            else:
                yield f"  send {path} to the Batch API, and save its output as {results}"


def _tag(store: ResponseFile) -> str:
    """Return a hash of what the responses depend on."""
    stable = {name: store.manifest[name] for name in store.manifest if name not in store.unstable}
    return hashlib.sha256(json.dumps(stable, sort_keys=True).encode()).hexdigest()[:12]

"""The first stage: read prompts and their right answers, and remove what must not be used."""

import dataclasses
import hashlib
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..data.convert import MediaWriter, native
from ..data.discovery import list_source
from ..data.groups import prompt_key
from ..data.load import ReadOptions, read_sources
from ..data.locations import SourceLocation
from ..data.media_keys import UNREADABLE, MediaKeys
from ..data.source_report import Loaded
from ..errors import DataError, Problem, counted
from ..records import PreferenceRow
from .funnel import Funnel
from .keep_out import leave_out_leaks
from .prompt_set import MadePrompt, Prompts
from .recipe import PromptsSection, SampleSection

__all__ = ["GOLD_COLUMNS", "read_prompts", "write_prompts"]

GOLD_COLUMNS = ("answer", "solution", "gold", "ground_truth")
"""Columns that may have the right answer, if the format of a row does not read them."""
OWN_GOLD = "gold"
"""Column of the right answer in files that this package writes; the native format reads it."""
ID_DIGITS = 16
"""Hexadecimal digits of the id of a prompt that has none in its file."""


def read_prompts(
    section: PromptsSection, sample: SampleSection, pilot: int | None = None
) -> Prompts:
    """Read the prompts of a recipe.

    Equal prompts become one unless the responses of the sources are used, whose rows stay as they
    are.

    Args:
        section: Where the prompts are.
        sample: Which responses are used.
        pilot: Number of prompts to use, spread over all; `None` for all.

    Raises:
        DataError: With all problems of the sources.
    """
    options = ReadOptions(
        incomplete=True,
        max_pixels=section.images.max_pixels,
        private_downloads=section.images.fetch_private_addresses,
    )
    loaded = read_sources(section.sources, options)
    problems = list(loaded.problems)
    rows = list(loaded.rows)
    keys = MediaKeys(rows)
    unreadable = {row.where: [*_media_problems(row, keys)] for row in rows}
    skipped = {where for where, messages in unreadable.items() if messages}
    if len(skipped) > section.images.max_skipped_fraction * len(rows):
        problems += itertools.chain.from_iterable(unreadable.values())
    golds, gold_problems = _golds(section, loaded)
    problems += gold_problems
    usable = [row for row in rows if row.where not in skipped]
    items = [_made_prompt(row, keys, golds.get(row.where)) for row in usable]
    if sample.responses == "given":
        problems += _missing_responses(items)
    if problems:
        raise DataError(problems)
    funnel = Funnel()
    funnel.count("prompts", "read", len(rows))
    funnel.count("prompts", "with missing media", len(skipped))
    if sample.responses == "sampled":
        items = _distinct(_with_own_ids(items, section), funnel)
    items = _part(items, section.part, funnel)
    prompts = Prompts(items, funnel, loaded)
    if section.keep_out is not None:
        prompts = leave_out_leaks(prompts, section.keep_out)
    if not prompts.items:
        text = f"no prompt remains of {counted(len(rows), 'row')}: {funnel.sentence('prompts')}"
        raise DataError(Problem("prompts", text, "Use other sources, or fewer limits"))
    if pilot is not None:
        step = max(len(prompts.items) / pilot, 1.0)
        count = min(pilot, len(prompts.items))
        funnel.count("prompts", "not in the pilot", len(prompts.items) - count)
        prompts.items = [prompts.items[int(number * step)] for number in range(count)]
    funnel.count("prompts", "used", len(prompts.items))
    return prompts


def write_prompts(prompts: Sequence[MadePrompt], path: Path) -> Iterator[str]:
    """Yield the lines of a file of prompts; media without a file are written next to it."""
    media = MediaWriter(path)
    for prompt in prompts:
        record = native(prompt.question, media)
        kept = {name: record[name] for name in record if name not in ("responses", "pairs")}
        if prompt.gold is not None:
            kept["gold"] = prompt.gold
        yield json.dumps(kept, ensure_ascii=False) + "\n"


# ---- identity ----


def _made_prompt(row: PreferenceRow, keys: MediaKeys, gold: str | None) -> MadePrompt:
    content = repr((prompt_key(row, keys.of(row)), row.template_kwargs))
    return MadePrompt(row, gold, _hash(content))


def _with_own_ids(items: Iterable[MadePrompt], section: PromptsSection) -> list[MadePrompt]:
    """Return the prompts; those without an id in their file get one from their content.

    The number of a row, which is the id otherwise, changes with the file.
    """
    names = {source.source_name for source in section.sources}
    names |= {f"{n}:{source.path}" for n, source in enumerate(section.sources, start=1)}
    numbered = re.compile(f"(?:{'|'.join(map(re.escape, sorted(names)))}):[0-9]+")
    return [
        dataclasses.replace(item, row=dataclasses.replace(item.row, id=item.digest[:ID_DIGITS]))
        if numbered.fullmatch(item.id)
        else item
        for item in items
    ]


def _distinct(items: Iterable[MadePrompt], funnel: Funnel) -> list[MadePrompt]:
    """Return each prompt once, with the id of its first row.

    Raises:
        DataError: If equal prompts have different right answers, or different prompts one id.
    """
    by_digest: dict[str, MadePrompt] = {}
    by_id: dict[str, MadePrompt] = {}
    problems = []
    for item in items:
        first = by_digest.setdefault(item.digest, item)
        if first is not item:
            funnel.count("prompts", "equal to another one", 1)
            if first.gold != item.gold:
                text = f"the prompt equals that of {first.row.where}, with another right answer"
                remedy = "Remove one of the two, or correct its answer"
                problems.append(Problem(item.row.where, text, remedy))
            continue
        other = by_id.setdefault(item.id, item)
        if other is not item:
            text = f"another prompt, {other.row.where}, has the same id '{item.id}'"
            problems.append(Problem(item.row.where, text, "Give every prompt an id of its own"))
    if problems:
        raise DataError(problems)
    return list(by_digest.values())


def _part(items: list[MadePrompt], part: str | None, funnel: Funnel) -> list[MadePrompt]:
    if part is None:
        return items
    number, count = map(int, part.split("/"))
    kept = [item for item in items if int(item.digest[:12], 16) % count == number - 1]
    funnel.count("prompts", "in other parts", len(items) - len(kept))
    return kept


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


# ---- problems ----


def _media_problems(row: PreferenceRow, keys: MediaKeys) -> Iterator[Problem]:
    for media in row.media:
        if keys.key(media).startswith(UNREADABLE):
            text = f"{media.describe()} cannot be read"
            remedy = "Correct the path, or set the source's 'images' to their directory"
            yield Problem(row.where, text, remedy)


def _missing_responses(items: Iterable[MadePrompt]) -> Iterator[Problem]:
    for item in items:
        if not item.source_responses:
            text = "the row has no response to be scored"
            remedy = "Add responses, or set sample.responses to sampled"
            yield Problem(item.row.where, text, remedy)


# ---- right answers ----


def _golds(section: PromptsSection, loaded: Loaded) -> tuple[dict[str, str], list[Problem]]:
    """Return the right answers by the places of their rows, and their problems."""
    golds: dict[str, str] = {}
    problems: list[Problem] = []
    if section.gold is False:
        return golds, problems
    for source, report in zip(section.sources, loaded.reports, strict=True):
        columns = [section.gold] if section.gold else _unread(report.unread)
        if not columns:
            continue
        location = SourceLocation(path=source.path, split=source.split, subset=source.subset)
        count = 0
        for path, number, record in list_source(location).records:
            value = _first(record, columns)
            if value is None:
                continue
            where = f"{path} row {number}"
            text = _text(value)
            if text is None:
                problem = f"the right answer is a {type(value).__name__}"
                remedy = "Write it as text or as a number, or set prompts.gold to false"
                problems.append(Problem(f"{where}, field '{columns[0]}'", problem, remedy))
            else:
                golds[where] = text
                count += 1
        if section.gold and not count:
            text = f"no row of '{source.source_name}' has a column '{section.gold}' with a value"
            problems.append(Problem("prompts.gold", text, "Use the name of a column, or null"))
    return golds, problems


def _unread(columns: Mapping[str, int]) -> list[str]:
    return [name for name in GOLD_COLUMNS if columns.get(name) or name == OWN_GOLD]


def _first(record: Any, columns: Sequence[str]) -> Any:
    if not isinstance(record, Mapping):
        return None
    return next((record[name] for name in columns if record.get(name) is not None), None)


def _text(value: Any) -> str | None:
    """Return a right answer as text; a list of one answer is that answer."""
    if isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str | int | float):
        return str(value)
    return None

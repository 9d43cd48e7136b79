"""The third stage: give every response a score, scorer by scorer.

Batches are settled before the first one is scored, from the responses that no finished file has.
So neither an interruption nor the number of processes changes a score.
"""

import contextlib
import dataclasses
import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any, SupportsFloat, SupportsIndex

from ..cache.keys import file_digest
from ..errors import DataError, Problem, UniDPOError, counted
from ..plugins import is_path
from ..records import PreferenceRow
from .files import Files, ScoreFile, Share, json_values
from .load import Making
from .scorer import Candidate, Fault, Score, Scored, Scorer, ScoringContext
from .timing import Timing

__all__ = ["Group", "ScoringRun", "check_scorers", "score_all"]

BATCH = 64
"""Number of responses that are stored together."""
MIN_EQUAL = 64
"""Number of different responses with the same score from which a model must be broken."""
NO_RESPONSE = "no response"
"""Kind of the fault of a response without text, which is not a fault of the scorer."""
EXAMPLES = 3
"""Number of faults that a message quotes."""


@dataclass(frozen=True)
class Group:
    """The responses to one prompt.

    Attributes:
        question: The prompt.
        gold: The right answer; `None` if there is none.
        ids: Ids of the responses.
    """

    question: PreferenceRow
    gold: str | None
    ids: tuple[str, ...]


@dataclass(kw_only=True)
class ScoringRun:
    """The common input of all scorers of a run.

    Attributes:
        making: The recipe.
        files: The paths.
        groups: All prompts with the ids of their responses.
        texts: Id -> record of a response.
        fingerprint: Hash of prompts and responses, which the files of scores record.
        share: The share of this process.
        timing: Receives the times of the scorers.
        on_progress: Called with the name of a score, the number of newly finished responses, and
            that of all.
    """

    making: Making
    files: Files
    groups: Sequence[Group]
    texts: Mapping[str, Mapping[str, Any]]
    fingerprint: str
    share: Share
    timing: Timing
    on_progress: Callable[[str, int, int], None] = lambda name, count, total: None

    @property
    def ids(self) -> list[str]:
        """Ids of all responses."""
        return [name for group in self.groups for name in group.ids]


def check_scorers(making: Making) -> None:
    """Check what identifies each scorer, such as the checkpoint of a model.

    Raises:
        UniDPOError: If a checkpoint does not exist.
    """
    for name, scorer in making.scorers.items():
        with _problems_of(name):
            scorer.fingerprint()


def score_all(run: ScoringRun) -> dict[str, ScoreFile]:
    """Run every scorer and return the files of scores by name.

    Raises:
        UniDPOError: If a score is not finite or outside of its scale, or there are too many faults.
    """
    files: dict[str, ScoreFile] = {}
    for name, scorer in run.making.scorers.items():
        if scorer.upstream() is None:
            files[name] = _score(run, name, scorer, files)
        elif run.share.merges:  # combining needs all scores, and hardly any time
            alone = dataclasses.replace(run, share=dataclasses.replace(run.share, works=True))
            files[name] = _score(alone, name, scorer, files)
    return files


def _score(
    run: ScoringRun, name: str, scorer: Scorer, before: Mapping[str, ScoreFile]
) -> ScoreFile:
    files = run.files
    path = files.scores(name, _group_size(run, scorer))
    path.parent.mkdir(parents=True, exist_ok=True)
    store = ScoreFile(path, _manifest(run, name, scorer), rank=run.share.index)
    upstream = {other: before[other] for other in scorer.upstream() or ()}

    def work() -> None:
        with run.timing.stage(name) as store.stopwatch:
            scales = {other: run.making.scorers[other].scale for other in before}
            context = ScoringContext(directory=files.scratch(name), scales=scales)
            with _problems_of(name):
                function = scorer.start(context)
            store.loaded()
            batches = _batches(run.groups, store, scorer)
            total = sum(len(batch) for batch in batches)
            for batch in run.share.of(batches):
                if not all(candidate_id in store.done for _, candidate_id in batch):
                    records = _scored_batch(run, name, batch, upstream, function)
                    store.add([record for record in records if record["id"] not in store.done])
                run.on_progress(name, len(batch) * run.share.count, total)

    store.complete(run.ids, work, merge=run.share.merges)
    if run.share.merges:
        _check_texts(name, store, run)
        _check_faults(name, store, run, upstream)
        _check_spread(name, scorer, store)
    return store


def _scored_batch(
    run: ScoringRun,
    name: str,
    batch: Sequence[tuple[Group, str]],
    upstream: Mapping[str, ScoreFile],
    function: Callable[[Sequence[Candidate]], Sequence[Scored]],
) -> list[dict[str, Any]]:
    """Return the records of a batch; responses without text are not passed to the scorer."""
    scorer = run.making.scorers[name]
    records = [*_faulty(name, scorer, run, batch)]
    faulty = {record["id"] for record in records}
    usable = [item for item in batch if item[1] not in faulty]
    candidates = [*_candidates(run, usable, upstream)]
    return [*records, *(_records(name, scorer, candidates, function) if candidates else [])]


@contextlib.contextmanager
def _problems_of(name: str) -> Iterator[None]:
    """Add the name of a score to the problems of its scorer, which knows its parameters only."""
    try:
        yield
    except UniDPOError as error:
        if not error.problems:
            raise
        raise type(error)(
            Problem(f"score.{name}, {item.where}", item.message, item.remedy)
            for item in error.problems
        ) from error


def _manifest(run: ScoringRun, name: str, scorer: Scorer) -> dict[str, Any]:
    section = run.making.recipe.score[name]
    with _problems_of(name):
        settings = json_values(dict(scorer.fingerprint()))
    return {
        "score": name,
        "scorer": section.scorer,
        **({"file": file_digest(Path(section.scorer))} if is_path(section.scorer) else {}),
        "settings": settings,
        "scale": None if scorer.scale is None else list(scorer.scale),
        "responses": run.fingerprint,
        "upstream": {
            other: _manifest(run, other, run.making.scorers[other])["settings"]
            for other in scorer.upstream() or ()
        },
    }


def _group_size(run: ScoringRun, scorer: Scorer) -> int | None:
    """Return the number of sampled responses per prompt if scores depend on the others."""
    upstream = [run.making.scorers[name] for name in scorer.upstream() or ()]
    grouped = scorer.unit == "group" or any(_group_size(run, other) for other in upstream)
    sample = run.making.recipe.sample
    return sample.n if grouped and sample.responses != "given" else None


def _batches(
    groups: Sequence[Group], store: ScoreFile, scorer: Scorer
) -> list[list[tuple[Group, str]]]:
    """Return batches of (group, id of a response) of what the finished file does not have."""
    final = store.final_ids()
    batches: list[list[tuple[Group, str]]] = []
    batch: list[tuple[Group, str]] = []
    for group in groups:
        missing = [name for name in group.ids if name not in final]
        if missing and scorer.unit == "group":
            missing = list(group.ids)
        batch += [(group, name) for name in missing]
        if len(batch) >= BATCH:
            batches.append(batch)
            batch = []
    return [*batches, batch] if batch else batches


def _faulty(
    name: str, scorer: Scorer, run: ScoringRun, batch: Sequence[tuple[Group, str]]
) -> Iterator[dict[str, Any]]:
    """Yield the records of responses without text, which no scorer gets."""
    for group, candidate_id in batch:
        if fault := missing_response(run.texts[candidate_id]):
            text = run.texts[candidate_id]["response"]
            candidate = Candidate(id=candidate_id, prompt=group.question, text=text)
            yield _record(name, scorer, candidate, fault)


def missing_response(record: Mapping[str, Any]) -> Fault | None:
    """Return why a record of a response has no text that can be scored; `None` if it has."""
    if "error" in record:
        return Fault(NO_RESPONSE, record["error"], temporary=True)
    if not record["response"].strip():
        return Fault(NO_RESPONSE, record.get("message", "the response is empty"))
    return None


def _candidates(
    run: ScoringRun, batch: Sequence[tuple[Group, str]], upstream: Mapping[str, ScoreFile]
) -> Iterator[Candidate]:
    for group, name in batch:
        yield Candidate(
            id=name,
            prompt=group.question,
            text=run.texts[name]["response"],
            gold=group.gold,
            scores={other: file.done[name].get("score") for other, file in upstream.items()},
        )


def _records(
    name: str,
    scorer: Scorer,
    candidates: Sequence[Candidate],
    function: Callable[[Sequence[Candidate]], Sequence[Scored]],
) -> list[dict[str, Any]]:
    """Return the records of candidates; equal responses to a prompt are scored once."""
    first: dict[tuple[str, str, tuple[float | None, ...]], int] = {}
    keys = [(c.prompt.id, c.text, tuple(c.scores.values())) for c in candidates]
    distinct: list[Candidate] = []
    for key, candidate in zip(keys, candidates, strict=True):
        if scorer.unit == "group" or key not in first:
            first.setdefault(key, len(distinct))
            distinct.append(candidate)
    results = function(distinct)
    number = len(results) if isinstance(results, Sized) else f"{type(results).__name__}, not"
    if number != len(distinct):
        text = f"it returned {number} scores for {counted(len(distinct), 'response')}"
        raise UniDPOError(Problem(f"score.{name}", text, "Return one per response, in order"))
    if scorer.unit == "group":
        pairs = zip(candidates, results, strict=True)
    else:
        pairs = zip(candidates, (results[first[key]] for key in keys), strict=True)
    return [_record(name, scorer, candidate, result) for candidate, result in pairs]


def _record(name: str, scorer: Scorer, candidate: Candidate, result: Scored) -> dict[str, Any]:
    record: dict[str, Any] = {"id": candidate.id, "text": text_digest(candidate.text)}
    if isinstance(result, Fault):
        key = "error" if result.temporary else "message"
        return {**record, "score": None, "fault": result.kind, key: result.message}
    where = f"score.{name}, response '{candidate.id}'"
    score = result if isinstance(result, Score) else Score(result)
    value = _number(score.value, where)
    if not math.isfinite(value):
        text = f"the score is {value}"
        raise UniDPOError(Problem(where, text, "Check the model of the scorer, which is broken"))
    if scorer.scale is not None and not scorer.scale[0] <= value <= scorer.scale[1]:
        low, high = scorer.scale
        text = f"the score {value:g} is outside of the scorer's scale [{low:g}, {high:g}]"
        raise UniDPOError(Problem(where, text, "Correct the scorer, or declare another scale"))
    evidence = json_values(dict(score.evidence))
    try:
        json.dumps(evidence)
    except (TypeError, ValueError) as error:
        text, remedy = f"the evidence is not JSON: {error}", "Use text, numbers, lists and dicts"
        raise UniDPOError(Problem(where, text, remedy)) from error
    return {**record, "score": value, **({"evidence": evidence} if evidence else {})}


def _number(value: Any, where: str) -> float:
    """Return a score as float, which numbers of numpy and torch become, too."""
    if isinstance(value, SupportsFloat | SupportsIndex):
        with contextlib.suppress(TypeError, ValueError):  # an array of several numbers
            return float(value)
    text = f"the score is a {type(value).__name__}, not a number"
    raise UniDPOError(Problem(where, text, "Return a number, a Score or a Fault"))


def text_digest(text: str) -> str:
    """Return a short hash of a response, by which its score is known to be its own."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def _check_texts(name: str, store: ScoreFile, run: ScoringRun) -> None:
    """Raise an error if responses were sampled again after they were scored."""
    for record in store.done.values():
        response = run.texts.get(record["id"])
        if response is not None and record["text"] != text_digest(response["response"]):
            text = f"the score of '{record['id']}' is that of another response"
            remedy = "Delete the file, so that all responses are scored again"
            raise DataError(Problem(str(store.path), text, remedy))


def _check_faults(
    name: str, store: ScoreFile, run: ScoringRun, upstream: Mapping[str, ScoreFile]
) -> None:
    """Raise an error if the share of faults is too large.

    Responses without a score that this scorer combines are faults of the other scorer.
    """
    kinds: Counter[str] = Counter()
    examples: list[str] = []
    for record in store.done.values():
        inherited = any(
            file.done[record["id"]].get("score") is None
            for file in upstream.values()
            if record.get("fault") and record["id"] in file.done
        )
        if record.get("fault", NO_RESPONSE) != NO_RESPONSE and not inherited:
            kinds[record["fault"]] += 1
            if len(examples) < EXAMPLES:
                message = record.get("message", record.get("error", ""))
                examples.append(f"'{record['id']}': {message}")
    faults, total = sum(kinds.values()), max(len(store.done), 1)
    limit = run.making.recipe.score[name].max_faults
    if faults / total > limit:
        listed = ", ".join(f"{number:,} {kind}" for kind, number in kinds.most_common())
        text = (
            f"{faults:,} of {counted(total, 'response')} have no score ({listed}), for example "
            f"{'; '.join(examples)}"
        )
        remedy = f"Correct the scorer, or raise score.{name}.max_faults, which is {limit:g}"
        raise DataError(Problem(f"score.{name}", text, remedy))


def _check_spread(name: str, scorer: Scorer, store: ScoreFile) -> None:
    """Raise an error if a scorer without a scale, which is a model, gives everything one score."""
    if scorer.scale is not None or len(store.done) < MIN_EQUAL:
        return
    scores = (record["score"] for record in store.done.values())
    values = {score for score in scores if score is not None}
    if len(values) == 1:
        text = f"all {len(store.done):,} responses have the score {values.pop():g}"
        remedy = "Check that its head was loaded, and that its input is not truncated"
        raise DataError(Problem(f"score.{name}", text, remedy))

"""The last stage: form pairs from the scores, apply the limits, and write the rows.

It takes seconds and is always repeated, so that its settings can be changed at will.
"""

import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..data import pairing
from ..data.convert import MediaWriter, native
from ..data.pairing import IndexPair, Rated
from ..records import Pair, Response
from .files import Files
from .funnel import WITH_PAIRS, Funnel
from .load import Making, right_score
from .prompt_set import MadePrompt
from .scoring import Group

__all__ = ["MadeRow", "PairStage", "form_rows", "is_right", "length_of", "row_lines"]

Scores = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""Name of a score -> id of a response -> record."""


@dataclass
class MadeRow:
    """A prompt with its responses and pairs.

    Attributes:
        prompt: The prompt.
        ids: Ids of its responses.
        rated: Its responses; those of a source without a score have none.
        scores: Name -> score, for each response.
        pairs: The pairs.
        weights: Weights of pairs of the source; 1 for all others.
    """

    prompt: MadePrompt
    ids: Sequence[str]
    rated: Sequence[Rated]
    scores: Sequence[Mapping[str, float | None]]
    pairs: list[IndexPair]
    weights: Mapping[IndexPair, float] = field(default_factory=dict)

    def margins(self) -> Iterator[float]:
        """Yield the differences of the two scores of each pair with scores."""
        for chosen, rejected in self.pairs:
            better, worse = self.rated[chosen].score, self.rated[rejected].score
            if better is not None and worse is not None:
                yield better - worse


@dataclass(kw_only=True)
class PairStage:
    """The input of forming pairs.

    Attributes:
        making: The recipe.
        prompts: The prompts.
        groups: Their responses.
        texts: Id -> record of a response.
        scores: The records of all scores.
        funnel: Receives the counts.
    """

    making: Making
    prompts: Sequence[MadePrompt]
    groups: Sequence[Group]
    texts: Mapping[str, Mapping[str, Any]]
    scores: Scores
    funnel: Funnel


def form_rows(stage: PairStage) -> list[MadeRow]:
    """Return the rows with pairs, in the order of the prompts."""
    rows: list[MadeRow] = []
    length = length_of(stage.texts.values())
    for prompt, group in zip(stage.prompts, stage.groups, strict=True):
        row = _row(stage, prompt, group, length)
        stage.funnel.count("pairs", "formed", len(row.pairs))
        _limit(stage, row)
        rows.append(row)
    _count_prompts(stage, rows)
    rows = [row for row in rows if row.pairs]
    _limit_all(stage, rows)
    rows = [row for row in rows if row.pairs]
    stage.funnel.count("pairs", "kept", sum(len(row.pairs) for row in rows))
    return rows


def row_lines(rows: Sequence[MadeRow], files: Files) -> Iterator[str]:
    """Yield the rows as lines of the native format, with all scores of each response.

    A row has the responses of its pairs only: training computes every response of a row.
    """
    media = MediaWriter(files.rows)
    for row in rows:
        kept = sorted({number for pair in row.pairs for number in pair})
        position = {number: n for n, number in enumerate(kept)}
        pairs = tuple(
            Pair(position[chosen], position[rejected], row.weights.get((chosen, rejected), 1.0))
            for chosen, rejected in row.pairs
        )
        responses = tuple(Response(row.rated[n].text, row.rated[n].score) for n in kept)
        record = native(
            dataclasses.replace(row.prompt.row, responses=responses, pairs=pairs, labels=()), media
        )
        record["pairs"] = [[pair.chosen, pair.rejected, pair.weight] for pair in pairs]
        for response, number in zip(record["responses"], kept, strict=True):
            response |= {"scores": dict(row.scores[number]), "id": row.ids[number]}
        if row.prompt.gold is not None:
            record["gold"] = row.prompt.gold
        yield json.dumps(record, ensure_ascii=False) + "\n"


def length_of(records: Iterable[Mapping[str, Any]]) -> Callable[[Mapping[str, Any]], int]:
    """Return the function that measures responses, in one unit for all records.

    It is the number of tokens if all texts have one, and else that of words.
    """
    if all("new_tokens" in record for record in records if record["response"]):
        return lambda record: int(record.get("new_tokens", 0))
    return lambda record: len(record["response"].split())


def _row(
    stage: PairStage,
    prompt: MadePrompt,
    group: Group,
    length: Callable[[Mapping[str, Any]], int],
) -> MadeRow:
    making = stage.making
    scores = [
        {name: records[name_].get("score") for name, records in stage.scores.items()}
        for name_ in group.ids
    ]
    rated = [
        _rated(stage, stage.texts[name], values, n, prompt, length)
        for n, (name, values) in enumerate(zip(group.ids, scores, strict=True))
    ]
    row = MadeRow(prompt, group.ids, rated, scores, [])
    options = making.recipe.pair
    if options.rule == "given":
        weights = {(pair.chosen, pair.rejected): pair.weight for pair in prompt.row.pairs}
        row.pairs, row.weights = [*weights], weights
        _count_disagreements(stage, row)
    else:
        row.pairs = pairing.form_pairs(rated, options.rule, key=f"{options.seed}/{prompt.id}")
    return row


def _rated(
    stage: PairStage,
    record: Mapping[str, Any],
    scores: Mapping[str, float | None],
    number: int,
    prompt: MadePrompt,
    length: Callable[[Mapping[str, Any]], int],
) -> Rated:
    """Return a response with what the rules need, and count it."""
    making, funnel = stage.making, stage.funnel
    name = making.recipe.pair_score
    score = prompt.source_responses[number].score if name is None else scores[name]
    funnel.count("responses", "expected", 1)
    truncated = record.get("finish_reason") == "length"
    usage = making.recipe.sample.truncated
    dropped = None
    if "error" in record or "fault" in record:
        dropped = "not generated"
    elif not record["response"].strip():
        dropped = "empty"
    elif truncated and usage == "drop":
        dropped = "truncated"
    elif score is None and making.recipe.pair.rule != "given":
        dropped = "without a score"
    funnel.count("responses", dropped or "usable", 1)
    right = right_score(making.recipe, making.scorers)
    gates = making.gates
    return Rated(
        text=record["response"],
        score=None if dropped else score,
        right=None if right is None else is_right(scores.get(right), making, right),
        length=length(record),
        choosable=not (truncated and usage == "reject")
        and all(condition.holds(scores) for condition in gates["chosen"]),
        rejectable=all(condition.holds(scores) for condition in gates["rejected"]),
    )


def is_right(score: float | None, making: Making, name: str) -> bool | None:
    """Return whether a score is that of a right answer; `None` without a score."""
    scale = making.scorers[name].scale
    return None if score is None else score >= (1.0 if scale is None else scale[1])


def _limit(stage: PairStage, row: MadeRow) -> None:
    """Apply the limits within a prompt, and count what they drop."""
    options, key = stage.making.recipe.pair, f"{stage.making.recipe.pair.seed}/{row.prompt.id}"
    rated = row.rated

    def keep(name: str, pairs: list[IndexPair]) -> None:
        stage.funnel.count("pairs", name, len(row.pairs) - len(pairs))
        row.pairs = pairs

    if options.min_margin:
        keep(
            "below the minimum margin",
            pairing.without_small_margins(rated, row.pairs, options.min_margin),
        )
    if options.contained == "drop":
        keep("with the chosen response inside", pairing.without_contained(rated, row.pairs))
    if options.length_ratio is not None:
        kept = pairing.without_uneven_lengths(rated, row.pairs, *options.length_ratio)
        keep("of uneven lengths", kept)
    if options.per_prompt is not None:
        kept = pairing.limited(rated, row.pairs, options.per_prompt, key=key)
        keep("beyond the number per prompt", kept)


def _limit_all(stage: PairStage, rows: Sequence[MadeRow]) -> None:
    """Apply the limits over all prompts."""
    options = stage.making.recipe.pair
    listed = [(row, pair) for row in rows for pair in row.pairs]
    if options.balance_length is not None:
        lengths = [(row.rated[a].length, row.rated[b].length) for row, (a, b) in listed]
        key = f"{options.seed}/balance"
        kept = pairing.balanced(lengths, options.balance_length, key=key)
        stage.funnel.count("pairs", "to balance lengths", len(listed) - len(kept))
        listed = [listed[n] for n in kept]
    if options.max_pairs is not None and len(listed) > options.max_pairs:
        order = sorted(range(len(listed)), key=lambda n: pairing.draw(f"{options.seed}/pairs", n))
        stage.funnel.count("pairs", "beyond the maximum", len(listed) - options.max_pairs)
        listed = [listed[n] for n in sorted(order[: options.max_pairs])]
    for row in rows:
        row.pairs = []
    for row, pair in listed:
        row.pairs.append(pair)


def _count_prompts(stage: PairStage, rows: Sequence[MadeRow]) -> None:
    """Count why prompts have no pair, in the order in which the causes occur."""
    by_answer = stage.making.recipe.pair.rule.startswith("right_")
    for row in rows:
        if row.pairs:
            stage.funnel.count("outcomes", WITH_PAIRS, 1)
            continue
        usable = [rated for rated in row.rated if rated.score is not None]
        texts = {rated.text.strip() for rated in usable}
        scores = {rated.score for rated in usable}
        rights = {rated.right for rated in usable}
        if len(usable) < 2:
            reason = "with fewer than two usable responses"
        elif not any(rated.choosable for rated in usable):
            reason = "whose responses may all not be chosen (truncated, or by pair.gates)"
        elif len(texts) == 1:
            reason = "with equal responses only"
        elif rights == {True} and by_answer:
            reason = "with right answers only"
        elif rights == {False} and by_answer:
            reason = "with wrong answers only"
        elif len(scores) == 1:
            reason = "with equal scores only"
        else:
            reason = "without a pair within the limits"
        stage.funnel.count("outcomes", reason, 1)


def _count_disagreements(stage: PairStage, row: MadeRow) -> None:
    """Count the pairs of the source that the scores order the other way, or not at all."""
    margins = list(row.margins())
    stage.funnel.count("given pairs", "in the order of their scores", sum(m > 0 for m in margins))
    stage.funnel.count("given pairs", "with equal scores", sum(m == 0 for m in margins))
    stage.funnel.count("given pairs", "in the other order", sum(m < 0 for m in margins))
    stage.funnel.count("given pairs", "without scores", len(row.pairs) - len(margins))

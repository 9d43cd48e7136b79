"""Pairs of scored responses: the rules that form them, and the limits that drop some of them.

Every rule and limit is a pure function. Training (`scores.py`) and the pipeline that makes data
(`pipelines/`) use the same rules.
"""

import hashlib
import itertools
import math
import statistics
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

__all__ = [
    "MIN_FOR_SIGMA",
    "RULES",
    "IndexPair",
    "Rated",
    "balanced",
    "draw",
    "form_pairs",
    "lengths_agree",
    "limited",
    "without_contained",
    "without_small_margins",
    "without_uneven_lengths",
]

IndexPair = tuple[int, int]
"""Indices of a chosen and a rejected response."""
MIN_FOR_SIGMA = 16
"""Number of responses from which `best_vs_sigma` differs from `best_vs_worst`: among fewer, the
lowest score is about 1.4 standard deviations below the mean."""
SIGMAS = 2.0
"""Standard deviations below the mean, near which `best_vs_sigma` chooses the rejected response."""

MAX_SETS = 20_000
"""Maximum number of sets of pairs that are tried to make lengths agree."""


@dataclass(frozen=True, kw_only=True)
class Rated:
    """A response with what the rules need.

    Attributes:
        text: The response.
        score: Its score; a response without one is in no pair.
        right: Whether its final answer is right; `None` if that is unknown.
        length: Its length, in tokens or characters, but in the same unit for all.
        choosable, rejectable: Whether it may be the chosen or the rejected response of a pair.
    """

    text: str
    score: float | None
    right: bool | None = None
    length: int = 0
    choosable: bool = True
    rejectable: bool = True


Rule = Callable[[Sequence[Rated], Sequence[int], str], list[IndexPair]]
"""(responses, indices of the scored ones by falling score, key of the prompt) -> pairs."""


def form_pairs(responses: Sequence[Rated], rule: str, *, key: str = "") -> list[IndexPair]:
    """Return the pairs of the responses to a prompt.

    The chosen response of a pair has a higher score than the rejected one and, apart from blanks
    around it, another text.

    Args:
        responses: The responses.
        rule: One of `RULES`.
        key: Identifies prompt and seed for rules that draw at random.
    """
    scored = [n for n, response in enumerate(responses) if response.score is not None]
    falling = sorted(scored, key=lambda n: -_score(responses[n]))  # stable for equal scores
    candidates = RULES[rule](responses, falling, key)
    return [pair for pair in candidates if _is_pair(responses, pair)]


def _score(response: Rated) -> float:
    return -math.inf if response.score is None else response.score


def _is_pair(responses: Sequence[Rated], pair: IndexPair) -> bool:
    chosen, rejected = responses[pair[0]], responses[pair[1]]
    return (
        _score(chosen) > _score(rejected)
        and chosen.choosable
        and rejected.rejectable
        and chosen.text.strip() != rejected.text.strip()
    )


def _choosable(responses: Sequence[Rated], numbers: Sequence[int]) -> list[int]:
    return [n for n in numbers if responses[n].choosable]


def _below(responses: Sequence[Rated], numbers: Sequence[int], best: int) -> list[int]:
    """Return those that may be rejected if `best` is chosen."""
    return [n for n in numbers if _is_pair(responses, (best, n))]


def _all(responses: Sequence[Rated], falling: Sequence[int], key: str) -> list[IndexPair]:
    """Every two responses with different scores."""
    return list(itertools.combinations(falling, 2))


def _adjacent(responses: Sequence[Rated], falling: Sequence[int], key: str) -> list[IndexPair]:
    """Neighbors in the order of scores."""
    return list(itertools.pairwise(falling))


def _best_vs_worst(responses: Sequence[Rated], falling: Sequence[int], key: str) -> list[IndexPair]:
    """The best and the worst response."""
    choosable = _choosable(responses, falling)[:1]
    rejectable = [n for n in falling if responses[n].rejectable][-1:]
    return list(itertools.product(choosable, rejectable))


def _best_vs_random(
    responses: Sequence[Rated], falling: Sequence[int], key: str
) -> list[IndexPair]:
    """The best response and one drawn from those with lower scores."""
    for best in _choosable(responses, falling)[:1]:
        if lower := _below(responses, falling, best):
            return [(best, min(lower, key=lambda n: draw(key, n)))]
    return []


def _best_vs_sigma(responses: Sequence[Rated], falling: Sequence[int], key: str) -> list[IndexPair]:
    """The best response and the one nearest to two standard deviations below the mean score.

    With many responses, the worst one is an outlier, from which less can be learned (Xiao et al.,
    2025, arXiv 2502.16825). Prompts with fewer than `MIN_FOR_SIGMA` responses have no pair.
    """
    if len(falling) < MIN_FOR_SIGMA:
        return []
    scores = [_score(responses[n]) for n in falling]
    target = statistics.fmean(scores) - SIGMAS * statistics.pstdev(scores)
    for best in _choosable(responses, falling)[:1]:
        if lower := _below(responses, falling, best):
            return [(best, min(lower, key=lambda n: abs(_score(responses[n]) - target)))]
    return []


def _right_vs_wrong(
    responses: Sequence[Rated], falling: Sequence[int], key: str
) -> list[IndexPair]:
    """Every response with the right answer and every one with a wrong answer."""
    right = [n for n in falling if responses[n].right]
    wrong = [n for n in falling if responses[n].right is False]
    return list(itertools.product(right, wrong))


def _right_vs_weaker(
    responses: Sequence[Rated], falling: Sequence[int], key: str
) -> list[IndexPair]:
    """Every two responses with the right answer and different scores."""
    return list(itertools.combinations([n for n in falling if responses[n].right], 2))


RULES: Mapping[str, Rule] = {
    "all": _all,
    "best_vs_worst": _best_vs_worst,
    "adjacent": _adjacent,
    "right_vs_wrong": _right_vs_wrong,
    "right_vs_weaker": _right_vs_weaker,
    "best_vs_random": _best_vs_random,
    "best_vs_sigma": _best_vs_sigma,
}
"""Name of a rule -> the rule."""


# ---- limits within a prompt ----


def without_small_margins(
    responses: Sequence[Rated], pairs: Sequence[IndexPair], min_margin: float
) -> list[IndexPair]:
    """Return the pairs whose scores differ by at least `min_margin`."""
    return [
        pair
        for pair in pairs
        # isclose: 0.3 - 0.1 is less than 0.2 in floating point
        if (margin := _margin(responses, pair)) >= min_margin or math.isclose(margin, min_margin)
    ]


def without_contained(responses: Sequence[Rated], pairs: Sequence[IndexPair]) -> list[IndexPair]:
    """Return the pairs whose rejected response does not contain the chosen one.

    A wrong answer with the right one inside is probably a right answer that a verifier rejected.
    """
    return [
        (chosen, rejected)
        for chosen, rejected in pairs
        if responses[chosen].text.strip() not in responses[rejected].text
    ]


def without_uneven_lengths(
    responses: Sequence[Rated], pairs: Sequence[IndexPair], low: float, high: float
) -> list[IndexPair]:
    """Return the pairs with a length of the chosen response within [low, high] of the rejected."""
    return [
        (chosen, rejected)
        for chosen, rejected in pairs
        if low * responses[rejected].length
        <= responses[chosen].length
        <= high * responses[rejected].length
    ]


def limited(
    responses: Sequence[Rated], pairs: Sequence[IndexPair], count: int, *, key: str = ""
) -> list[IndexPair]:
    """Return at most `count` pairs of a prompt: those with the largest margins, in their order.

    Of equal margins, as between right and wrong answers, `key` draws.
    """
    order = sorted(
        range(len(pairs)), key=lambda n: (-_margin(responses, pairs[n]), draw(key, *pairs[n]))
    )
    return [pairs[n] for n in sorted(order[:count])]


def _margin(responses: Sequence[Rated], pair: IndexPair) -> float:
    """Return the difference of two scores; that of a pair without them is the smallest."""
    chosen, rejected = responses[pair[0]].score, responses[pair[1]].score
    return -math.inf if chosen is None or rejected is None else chosen - rejected


# ---- limits over all prompts ----


def balanced(lengths: Sequence[tuple[int, int]], tolerance: float, *, key: str = "") -> list[int]:
    """Return the pairs to keep so that chosen and rejected responses are equally long on average.

    Pairs with the largest difference are dropped on the longer side, until the mean length of
    chosen responses is within a share of `tolerance` of that of rejected ones. The last pair that
    is dropped is the one with the smallest difference that suffices.

    Args:
        lengths: (length of chosen, length of rejected) of each pair.
        tolerance: Largest relative difference of the means, in [0, 1).
        key: Draws among pairs with equal lengths.

    Returns:
        Indices of the pairs, in their order; empty if no selection is within the tolerance.
    """
    kept = deque(
        sorted(range(len(lengths)), key=lambda n: (lengths[n][0] - lengths[n][1], draw(key, n)))
    )
    sums = _sums(lengths, kept)
    while kept and not lengths_agree(*sums, tolerance):
        longer = sums[0] > sums[1]
        last = kept[-1] if longer else kept[0]
        after = _without(sums, lengths, [last])
        drop = [last]
        crosses = (after[0] > after[1]) != longer or lengths_agree(*after, tolerance)
        if crosses or 2 ** len(kept) <= MAX_SETS:
            order = list(kept) if longer else list(reversed(kept))
            drop = _sufficient(sums, lengths, order, tolerance) or drop
        if drop == [last]:
            _ = kept.pop() if longer else kept.popleft()
        else:
            kept = deque(n for n in kept if n not in drop)
        sums = _without(sums, lengths, drop)
    return sorted(kept)


Lengths = Sequence[tuple[int, int]]


def _sufficient(
    sums: tuple[int, int], lengths: Lengths, kept: Sequence[int], tolerance: float
) -> list[int]:
    """Return the smallest set of pairs without which the sums agree; empty if there is none.

    The first pairs of `kept` are tried first. Sizes with too many sets are skipped.
    """
    for size in range(1, len(kept)):
        if math.comb(len(kept), size) > MAX_SETS and size > 1:
            break
        for dropped in itertools.combinations(kept, size):
            if lengths_agree(*_without(sums, lengths, dropped), tolerance):
                return list(dropped)
    return []


def _sums(lengths: Lengths, numbers: Iterable[int]) -> tuple[int, int]:
    return sum(lengths[n][0] for n in numbers), sum(lengths[n][1] for n in numbers)


def _without(sums: tuple[int, int], lengths: Lengths, dropped: Sequence[int]) -> tuple[int, int]:
    chosen, rejected = _sums(lengths, dropped)
    return sums[0] - chosen, sums[1] - rejected


def lengths_agree(chosen: float, rejected: float, tolerance: float) -> bool:
    """Return whether two sums of lengths differ by a share of at most `tolerance`."""
    return abs(chosen - rejected) <= tolerance * rejected


def draw(key: str, *values: int) -> bytes:
    """Return a value by which sorting is random, and the same in every run."""
    text = "/".join([key, *map(str, values)])
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()

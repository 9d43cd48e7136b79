"""Micro-batches that are limited by tokens."""

import functools
from collections import Counter
from collections.abc import Sequence

import numpy
import pytest

from unidpo_mm.cache.row_index import NUMBERS
from unidpo_mm.data.batches import (
    FILLER,
    GroupBatchSampler,
    GroupDataset,
    pack_tokens,
    rounded,
    token_sizes,
)
from unidpo_mm.data.columns import Ragged
from unidpo_mm.data.measure import Measurements
from unidpo_mm.records import Layout

LAYOUTS: tuple[Layout, ...] = ("plain", "packed", "joined")
GROUPS = 2000
LIMIT = 4096


def lengths() -> Measurements:
    """Return lengths of groups of two or three responses, most of them short."""
    draw = numpy.random.default_rng(0)
    prompt = draw.lognormal(4.5, 0.8, GROUPS).astype(int) + 5
    responses = [
        (draw.lognormal(4.5, 1.0, draw.integers(2, 4)).astype(int) + 1).tolist()
        for _ in range(GROUPS)
    ]
    responses[0] = [LIMIT, 2]  # longer than a micro-batch
    numbers = {name: numpy.zeros(GROUPS, dtype=int) for name in NUMBERS} | {"prompt": prompt}
    return Measurements(numbers, Ragged.of(responses, numpy.int64), {})


LENGTHS = lengths()
SIZES = {layout: token_sizes(LENGTHS, layout) for layout in LAYOUTS}


def sampler(layout: Layout, *, seed: int | None = 0, processes: int = 1) -> GroupBatchSampler:
    return GroupBatchSampler(
        GroupDataset([], None),  # type: ignore[arg-type] # only its epoch is used
        rounded(SIZES[layout], LIMIT),
        LIMIT,
        seed=seed,
        multiple_of=processes,
        pack=functools.partial(pack_tokens, padded=layout != "joined"),
    )


def positions(batch: Sequence[int], layout: Layout) -> int:
    """Return the number of positions in a micro-batch; joined rows follow one another unpadded."""
    sizes = [SIZES[layout][number] for number in batch]
    if layout == "joined":
        return sum(length for _, length in sizes)
    return sum(rows for rows, _ in sizes) * max(length for _, length in sizes)


def padding(batches: Sequence[Sequence[int]], layout: Layout) -> float:
    """Return the share of padding in all micro-batches of a padded layout."""
    total = sum(positions(batch, layout) for batch in batches)
    rows = [LENGTHS[number] for batch in batches for number in batch]
    tokens = sum(row.plain if layout == "plain" else row.packed for row in rows)
    return 1 - tokens / total


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_group_is_once_in_a_micro_batch_that_fits(layout: Layout) -> None:
    drawn = sampler(layout)
    batches = list(drawn)
    assert len(batches) == len(drawn)
    assert Counter(n for batch in batches for n in batch) == Counter(range(GROUPS))
    for batch in batches:
        assert positions(batch, layout) <= LIMIT or len(batch) == 1
    assert [0] in batches


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("processes", [1, 3])
def test_batches_depend_on_seed_and_epoch_only(layout: Layout, processes: int) -> None:
    drawn = sampler(layout, processes=processes)
    first = list(drawn)
    assert first == list(drawn) == list(sampler(layout, processes=processes))
    assert len(first) % processes == 0
    drawn.dataset.set_epoch(1)
    second = list(drawn)
    assert len(second) == len(first)
    assert sum(batch == [FILLER] for batch in first) < processes
    several = [{frozenset(batch) for batch in epoch if len(batch) > 2} for epoch in (first, second)]
    assert len(several[0] & several[1]) < len(several[0]) / 2  # long groups have few alternatives
    assert list(sampler(layout, seed=1, processes=processes)) != first


def test_padding_drops() -> None:
    by_pairs = GroupBatchSampler(
        GroupDataset([], None),  # type: ignore[arg-type] # only its epoch is used
        [1] * GROUPS,
        8,
        seed=0,
    )
    layouts: tuple[Layout, ...] = ("plain", "packed")
    before = {layout: padding(list(by_pairs), layout) for layout in layouts}
    after = {layout: padding(list(sampler(layout)), layout) for layout in layouts}
    assert before["plain"] > 0.6
    assert before["packed"] > 0.5
    assert after["plain"] < 0.32  # responses of one group have different lengths
    assert after["packed"] < 0.03


def test_joined_micro_batches_are_full() -> None:
    filled = [positions(batch, "joined") for batch in sampler("joined")]
    assert numpy.mean(filled[:-1]) > 0.9 * LIMIT
    tokens = sum(LENGTHS[number].packed for number in range(GROUPS))
    assert sum(filled) == tokens

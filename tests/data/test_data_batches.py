"""Micro-batches of whole groups, counted in units."""

import random
from collections import Counter, defaultdict, deque
from typing import Any

import hypothesis.strategies as st
import pytest
from builders import load_tiny, row
from hypothesis import given, settings

from unidpo_mm.data.batches import FILLER, GroupBatchSampler, GroupDataset, pack_units


def sampler_of(units: list[int], batch_size: int, **options: Any) -> GroupBatchSampler:
    nothing: Any = None
    return GroupBatchSampler(
        GroupDataset([nothing] * len(units), nothing), units, batch_size, **options
    )


def epoch_of(sampler: GroupBatchSampler, epoch: int) -> list[list[int]]:
    sampler.dataset.set_epoch(epoch)
    return list(sampler)


UNITS = st.lists(st.integers(1, 12), min_size=1, max_size=40)


@settings(max_examples=100, deadline=None)
@given(units=UNITS, batch_size=st.integers(1, 10), seed=st.one_of(st.none(), st.integers(0, 3)))
def test_each_group_comes_once_an_epoch_in_batches_that_are_never_too_large(
    units: list[int], batch_size: int, seed: int | None
) -> None:
    sampler = sampler_of(units, batch_size, seed=seed)
    for epoch in range(3):
        batches = epoch_of(sampler, epoch)
        assert len(batches) == len(sampler)
        assert sorted(index for batch in batches for index in batch) == list(range(len(units)))
        for batch in batches:
            size = sum(units[index] for index in batch)
            assert size <= batch_size or len(batch) == 1


@settings(max_examples=60, deadline=None)
@given(units=UNITS, batch_size=st.integers(1, 10), processes=st.integers(1, 5))
def test_fillers_make_the_number_of_batches_a_multiple_and_come_last(
    units: list[int], batch_size: int, processes: int
) -> None:
    sampler = sampler_of(units, batch_size, seed=0, multiple_of=processes)
    batches = epoch_of(sampler, 0)
    assert len(batches) == len(sampler)
    assert len(batches) % processes == 0
    fillers = [batch == [FILLER] for batch in batches]
    assert sum(fillers) < processes
    assert fillers == sorted(fillers)
    real = [index for batch in batches for index in batch if index != FILLER]
    assert sorted(real) == list(range(len(units)))


def test_batches_of_single_pairs_are_as_full_as_can_be() -> None:
    assert len(sampler_of([1] * 64, 8)) == 8
    assert len(sampler_of([6, 1, 1, 3, 3, 2], 8)) == 2
    assert len(sampler_of([20, 1, 1], 8)) == 2


def test_epochs_differ_in_order_and_in_the_composition_of_batches() -> None:
    sampler = sampler_of([1] * 40, 4, seed=0)
    first, second, again = epoch_of(sampler, 0), epoch_of(sampler, 1), epoch_of(sampler, 0)
    assert first == again
    assert first != second
    company = [{frozenset(batch) for batch in epoch} for epoch in (first, second)]
    assert company[0] != company[1]


def test_seeds_differ_in_order() -> None:
    assert epoch_of(sampler_of([1] * 40, 4, seed=0), 0) != epoch_of(
        sampler_of([1] * 40, 4, seed=1), 0
    )


def test_without_a_seed_rows_keep_their_order() -> None:
    assert epoch_of(sampler_of([1] * 7, 3), 5) == [[0, 1, 2], [3, 4, 5], [6]]


def test_large_and_small_groups_are_mixed_over_the_epoch() -> None:
    units = [4] * 20 + [1] * 80
    batches = epoch_of(sampler_of(units, 4, seed=0), 0)
    large = [number for number, batch in enumerate(batches) if len(batch) == 1]
    assert large != list(range(20))
    assert Counter(len(batch) for batch in batches) == {1: 20, 4: 20}


@pytest.mark.parametrize("model_type", ["llama", "llava"])
def test_the_index_of_the_filler_gives_a_group_of_weight_zero(
    checkpoint: Any, model_type: str
) -> None:
    adapter = load_tiny(checkpoint(model_type)).adapter
    dataset = GroupDataset([row("a")], adapter)
    assert len(dataset) == 1
    assert dataset[0].row.id == "a"
    assert dataset[0].weight == 1
    assert dataset[FILLER].weight == 0


def packed_one_by_one(sizes: Counter[int], batch_size: int) -> list[list[int]]:
    """Pack each item into the open bin with the least room that is enough."""
    bins: list[list[int]] = []
    open_bins: dict[int, deque[int]] = defaultdict(deque)
    for size in sorted(sizes.elements(), reverse=True):
        room = next((room for room in sorted(open_bins) if room >= size and open_bins[room]), None)
        if room is None:
            bins.append([size])
            number, room = len(bins) - 1, max(batch_size, size)
        else:
            number = open_bins[room].popleft()
            bins[number].append(size)
        open_bins[room - size].append(number)
    return bins


@pytest.mark.parametrize("batch_size", [1, 8, 64])
def test_equal_sizes_are_packed_together_as_one_by_one(batch_size: int) -> None:
    draw = random.Random(batch_size)
    for largest in (1, 3, 9, 80):
        sizes = Counter(draw.randint(1, largest) for _ in range(300))
        assert pack_units(sizes, batch_size) == packed_one_by_one(sizes, batch_size)

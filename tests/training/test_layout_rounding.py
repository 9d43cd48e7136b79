"""In half precision, the tolerance of packed rows grows with the logits, and leaks are detected."""

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from builders import logp_model_of, mixed_rows, tiny_checkpoint

from unidpo_mm.adapter import AdapterOptions
from unidpo_mm.conformance.log_probs import ROUNDING_FLOOR, check_log_probs, rounding_of_logits
from unidpo_mm.errors import ModelError
from unidpo_mm.kernels.packing import enable_packing
from unidpo_mm.modeling import logp_model
from unidpo_mm.modeling.load import LoadedModel, ModelSource, load_model
from unidpo_mm.training import layout_trial
from unidpo_mm.training.layout_trial import LayoutTrial


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], LoadedModel]:
    folder = tiny_checkpoint(tmp_path_factory.mktemp("model"), "llava")

    def loaded(dtype: str) -> LoadedModel:
        model = load_model(ModelSource(name_or_path=str(folder), dtype=dtype), AdapterOptions())
        assert enable_packing(model.model) is None
        return model

    return loaded


def trial(loaded: LoadedModel, *, together: bool = False) -> LayoutTrial:
    model = logp_model_of(loaded)
    dtype = next(model.parameters()).dtype
    rounding = rounding_of_logits(check_log_probs(model, loaded.adapter, "cpu"), dtype)
    rows = mixed_rows(images=True)
    return LayoutTrial(
        model, loaded.adapter, rows, "cpu", dtype=dtype, rounding=rounding, together=together
    )


def test_the_tolerance_grows_with_the_logits(
    load: Callable[[str], LoadedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout_trial, "NOISE_FACTOR", 0.0)  # the tolerance by rounding alone
    loaded = load("bfloat16")
    model: Any = loaded.model
    limits = []
    for factor in (1e-3, 1e6, 10):
        with torch.no_grad():
            model.get_output_embeddings().weight.mul_(factor)
        limits.append(trial(loaded).tolerance)
    assert limits[0] == ROUNDING_FLOOR  # small logits: the floor
    assert limits[1] > ROUNDING_FLOOR
    assert limits[2] == pytest.approx(10 * limits[1], rel=0.05)
    assert trial(load("float32")).tolerance == 1e-4


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_responses_that_see_each_other_are_detected(
    dtype: str, load: Callable[[str], LoadedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = trial(load(dtype))
    assert tried.disagreement("packed") is None
    monkeypatch.setattr(logp_model, "packed_rows", lambda packing: contextlib.nullcontext())
    disagreement = tried.disagreement("packed")
    assert disagreement is not None
    assert "differ from plain ones" in disagreement


def test_the_tolerance_follows_the_noise_between_batchings(
    load: Callable[[str], LoadedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load("bfloat16")
    quiet = trial(loaded).tolerance
    computed = LayoutTrial._computed

    def noisy(self: LayoutTrial, layout: Any, groups: Any) -> torch.Tensor:
        return computed(self, layout, groups) + 0.4 * (len(groups) == 1)

    monkeypatch.setattr(LayoutTrial, "_computed", noisy)
    assert trial(loaded).tolerance == pytest.approx(3 * 0.4, rel=0.3)
    assert quiet < 0.4


def test_a_rare_token_does_not_make_layouts_differ(load: Callable[[str], LoadedModel]) -> None:
    tried = trial(load("bfloat16"))
    assert tried.disagreement("packed") is None
    longest = max(range(len(tried.groups)), key=lambda n: len(tried.groups[n].response_ids[0]))
    start = sum(len(ids) for g in tried.groups[:longest] for ids in g.response_ids)
    tried.plain[start] += 5  # one token of a long response
    assert tried.disagreement("packed") is None
    tried.plain[start : start + len(tried.groups[longest].response_ids[0])] += 5
    assert "differ from plain ones" in str(tried.disagreement("packed"))


def test_rows_are_computed_one_by_one_if_memory_is_short(
    load: Callable[[str], LoadedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = trial(load("float32"))
    computed, fits = LayoutTrial._computed, 1

    def limited(self: LayoutTrial, layout: Any, groups: Any) -> torch.Tensor:
        if len(groups) > fits:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return computed(self, layout, groups)

    monkeypatch.setattr(LayoutTrial, "_computed", limited)
    assert tried.disagreement("packed") is None
    fits = 0
    with pytest.raises(ModelError, match="does not fit in memory"):
        tried.disagreement("packed")


def test_processes_that_compute_together_do_not_try_again(
    load: Callable[[str], LoadedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = trial(load("float32"), together=True)
    calls = []

    def limited(self: LayoutTrial, layout: Any, groups: Any) -> torch.Tensor:
        calls.append(len(groups))
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(LayoutTrial, "_computed", limited)
    with pytest.raises(ModelError, match="does not fit in memory"):
        tried.disagreement("packed")
    assert calls == [3]


def test_processes_that_compute_together_get_one_answer(
    load: Callable[[str], LoadedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout_trial, "gather_objects", lambda reason: [reason, "of another rank"])
    assert trial(load("float32")).disagreement("packed") is None
    assert trial(load("float32"), together=True).disagreement("packed") == "of another rank"

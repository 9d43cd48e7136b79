"""In half precision, the tolerance of packed rows grows with the logits, and leaks are detected."""

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from builders import logp_model_of, mixed_rows, tiny_checkpoint

from unidpo_mm.adapter import AdapterOptions
from unidpo_mm.kernels.packing import enable_packing
from unidpo_mm.modeling import logp_model
from unidpo_mm.modeling.load import LoadedModel, ModelSource, load_model
from unidpo_mm.training.startup_checks import LOW_PRECISION_TOLERANCE, _Trial


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], LoadedModel]:
    folder = tiny_checkpoint(tmp_path_factory.mktemp("model"), "llava")

    def loaded(dtype: str) -> LoadedModel:
        model = load_model(ModelSource(name_or_path=str(folder), dtype=dtype), AdapterOptions())
        assert enable_packing(model.model) is None
        return model

    return loaded


def trial(loaded: LoadedModel) -> _Trial:
    return _Trial(logp_model_of(loaded), loaded.adapter, mixed_rows(images=True), "cpu")


def test_the_tolerance_grows_with_the_logits(load: Callable[[str], LoadedModel]) -> None:
    loaded = load("bfloat16")
    model: Any = loaded.model
    limits = []
    for factor in (1e-3, 1e6, 10):
        with torch.no_grad():
            model.get_output_embeddings().weight.mul_(factor)
        limits.append(trial(loaded).tolerance)
    assert limits[0] == LOW_PRECISION_TOLERANCE  # small logits: the floor
    assert limits[1] > LOW_PRECISION_TOLERANCE
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

"""The demo computes in the number format that is fast on this processor."""

import pytest
import torch
from unidpo_mm_eval.demo import number_format


@pytest.mark.parametrize("fast", [torch.bfloat16, torch.float32])
def test_the_faster_format_is_taken(monkeypatch: pytest.MonkeyPatch, fast: torch.dtype) -> None:
    monkeypatch.setattr(number_format, "_seconds", lambda dtype: 1.0 if dtype is fast else 2.0)
    number_format.compute_dtype.cache_clear()
    found = number_format.compute_dtype()
    number_format.compute_dtype.cache_clear()
    assert found is fast
    assert number_format.recipe_keys(found) == [
        f"model.dtype={str(fast).removeprefix('torch.')}",
        f"train.bf16={'true' if fast is torch.bfloat16 else 'false'}",
    ]

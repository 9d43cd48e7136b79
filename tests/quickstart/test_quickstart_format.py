"""The demo computes in the number format that is fast on this processor."""

import pytest
import torch
from unidpo_mm_quickstart.number_format import recipe_keys

from unidpo_mm.training import number_format


@pytest.mark.parametrize("fast", [torch.bfloat16, torch.float32])
def test_the_faster_format_is_taken(monkeypatch: pytest.MonkeyPatch, fast: torch.dtype) -> None:
    for measured in (number_format.fastest_dtype, number_format.bfloat16_slowdown):
        measured.cache_clear()
    monkeypatch.setattr(number_format, "_seconds", lambda dtype: 1.0 if dtype is fast else 2.0)
    chosen = number_format.fastest_dtype()
    for measured in (number_format.fastest_dtype, number_format.bfloat16_slowdown):
        measured.cache_clear()
    assert chosen is fast
    assert recipe_keys(chosen) == [
        f"model.dtype={str(fast).removeprefix('torch.')}",
        f"train.bf16={'true' if fast is torch.bfloat16 else 'false'}",
    ]

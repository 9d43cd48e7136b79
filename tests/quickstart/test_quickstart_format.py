"""The quick-start computes in the number format that is fastest on the processor."""

import pytest
import torch
from unidpo_mm_quickstart.stages import dtype_overrides

from unidpo_mm import number_format


@pytest.mark.parametrize("fast", [torch.bfloat16, torch.float32])
def test_the_faster_number_format_is_used(
    monkeypatch: pytest.MonkeyPatch, fast: torch.dtype
) -> None:
    for cached in (number_format.fastest_dtype, number_format.bfloat16_slowdown):
        cached.cache_clear()
    monkeypatch.setattr(
        number_format, "_seconds", lambda matrix: 1.0 if matrix.dtype is fast else 2.0
    )
    fastest = number_format.fastest_dtype()
    for cached in (number_format.fastest_dtype, number_format.bfloat16_slowdown):
        cached.cache_clear()
    assert fastest is fast
    assert dtype_overrides(fastest) == [
        f"model.dtype={str(fast).removeprefix('torch.')}",
        f"train.bf16={'true' if fast is torch.bfloat16 else 'false'}",
    ]

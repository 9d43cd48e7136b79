"""The tables of the page on many GPUs are those of the script, whose formulas are plausible."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "many_devices.md"


@pytest.fixture(scope="module")
def arithmetic() -> Any:
    path = ROOT / "benchmarks" / "scale_arithmetic.py"
    spec = importlib.util.spec_from_file_location("scale_arithmetic", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_the_tables_are_up_to_date(arithmetic: Any) -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert arithmetic.with_tables(text) == text
    for name in arithmetic.TABLES:
        assert f"<!-- table: {name} -->\n| " in text
    changed = text.replace("| full, DDP |", "| full, DDP | 1 |")
    assert arithmetic.with_tables(changed) == text


def test_bytes_per_weight(arithmetic: Any) -> None:
    large = arithmetic.SIZES[-1]
    assert arithmetic.full_ddp(large, 64) == 16 * large.weights
    divided = arithmetic.full_sharded(large, 64) - arithmetic.root_bytes(large)
    assert divided - arithmetic.layer_bytes(large) == pytest.approx(18.35e9, rel=1e-3)
    assert arithmetic.full_zero2(large, 1) == arithmetic.full_ddp(large, 1)
    assert arithmetic.full_hybrid(large, 64) == arithmetic.full_sharded(large, 8)


def test_time_of_communication(arithmetic: Any) -> None:
    moving = arithmetic.moving_seconds
    assert moving(1, lora=False, divided=1) == 0
    assert moving(64, lora=False, divided=64) > moving(64, lora=False, divided=8)
    assert moving(64, lora=True, divided=1) < moving(64, lora=False, divided=1)
    # 4 bytes per weight are gathered and 4 are scattered, by 63 of 64 processes
    assert moving(64, lora=False, divided=64) == pytest.approx(8 * 63 / 64 / 40e9)
    low, high = arithmetic.efficiency(64, 8192, lora=False, divided=64)
    assert 0 < low < high <= 1

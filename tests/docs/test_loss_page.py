"""The loss of docs/losses.md computes what its docstring says."""

import importlib.util
import re
from pathlib import Path

import pytest
import torch

from unidpo_mm.records import PairLogps, SequenceLogps

PAGE = Path(__file__).resolve().parents[2] / "docs" / "losses.md"


def test_the_hinge_loss(tmp_path: Path):
    path = tmp_path / "hinge_example.py"
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    path.write_text(next(block for block in blocks if 'name="hinge_example"' in block))
    spec = importlib.util.spec_from_file_location("unidpo_mm.losses.hinge_example", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def side(value: float) -> SequenceLogps:
        return SequenceLogps(torch.tensor([value * 4]), torch.tensor([4.0]))

    pairs = PairLogps(
        policy_chosen=side(-1.0),
        policy_rejected=side(-1.2),
        reference_chosen=side(-1.1),
        reference_rejected=side(-1.1),
        score_chosen=torch.tensor([1.0]),
        score_rejected=torch.tensor([0.0]),
        weight=torch.ones(1),
    )
    output = module.LOSS.compute(pairs, module.LOSS.config())
    assert output.per_pair.item() == pytest.approx(1 - 2 * 0.2)

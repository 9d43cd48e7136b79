"""Keys by content: every byte of a weight counts."""

import torch
from torch.testing._internal.two_tensor import TwoTensor

from unidpo_mm.cache.keys import weights_fingerprint


def fingerprint(weight: torch.Tensor) -> str:
    return weights_fingerprint([("weight", weight)], {})


def test_a_weight_that_is_stored_in_several_tensors_has_a_key() -> None:
    """As quantized weights of torchao, which are not stored as one tensor."""

    def weight(scale: float) -> torch.Tensor:
        return TwoTensor(torch.arange(6.0), torch.full((6,), scale))

    assert fingerprint(weight(1.0)) == fingerprint(weight(1.0))
    assert fingerprint(weight(1.0)) != fingerprint(weight(2.0))


def test_name_format_and_shape_count() -> None:
    weight = torch.zeros(4)
    others = (torch.zeros(2, 2), torch.zeros(4, dtype=torch.int32), torch.ones(4))
    assert len({fingerprint(tensor) for tensor in (weight, *others)}) == 4
    assert fingerprint(weight) != weights_fingerprint([("other", weight)], {})

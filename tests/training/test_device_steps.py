"""Training steps on a simulated CUDA device: results, waits for the device, launches."""

import json
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from support.device_guard import why_unavailable
from support.device_steps import CASES, PARTS, DeviceCase, listed_counts, measure
from support.simulated_cuda import SimulatedCuda

pytestmark = pytest.mark.skipif(why_unavailable() is not None, reason=str(why_unavailable()))

ROOT = Path(__file__).parents[2]
Checkpoint = Callable[[str], Path]

FAST = {"llama, joined, LoRA, live", "llava, plain, LoRA, live"}
MAX_WAITS = {"llama": 8, "llava": 8, "idefics3": 8}
"""Maximum number of waits per micro-batch in step and metrics; 12 for other types."""

RERUN = "run python tests/support/device_steps.py, and commit tests/support/device_counts.json"


@pytest.fixture
def device() -> Iterator[SimulatedCuda]:
    with SimulatedCuda() as device:
        yield device


def marked(case: DeviceCase) -> Any:
    return pytest.param(case, id=str(case), marks=[] if str(case) in FAST else pytest.mark.slow)


@pytest.mark.parametrize("case", [marked(case) for case in CASES])
def test_a_step_on_the_device(case: DeviceCase, checkpoint: Checkpoint, tmp_path: Path) -> None:
    measured = measure(case, checkpoint(case.model_type), tmp_path)
    tolerance = 0.02 if case.bf16 else 1e-6
    torch.testing.assert_close(*reversed(measured.losses), rtol=tolerance, atol=tolerance)
    assert measured.gradient_difference < (0.1 if case.bf16 else 2e-5)
    assert measured.metrics[1] == pytest.approx(measured.metrics[0], rel=tolerance, abs=tolerance)
    waits = measured.counts["waits"]
    assert waits["step"] + waits["metrics"] <= MAX_WAITS.get(case.model_type, 12), measured.places()
    assert waits["log"] <= 1
    check_counts(case, measured.counts, listed_counts()[str(case)], measured.places())


def check_counts(case: DeviceCase, counts: Any, listed: Any, places: str) -> None:
    """Fail if a number of waits has risen, or has become smaller than its entry in the list."""
    risen = [part for part in PARTS if counts["waits"][part] > listed["waits"][part]]
    assert not risen, f"{case}: the host waits more often than listed:\n{places}"
    if not with_tested_versions():
        return
    launches = sum(counts["launches"].values()), sum(listed["launches"].values())
    assert launches[0] <= launches[1], f"{case}: {launches[0]} launches, {launches[1]} are listed"
    assert counts == listed, f"{case}: the list is not up to date; {RERUN}"


def with_tested_versions() -> bool:
    """Return whether torch and transformers are those that the list was made with."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if line.count("==") == 1)
    return version("transformers") == pinned["transformers"]


def test_every_case_is_listed_once() -> None:
    assert list(listed_counts()) == [str(case) for case in CASES]
    assert {str(case) for case in CASES} >= FAST


def test_a_raised_or_outdated_number_is_found() -> None:
    case = CASES[0]
    listed = listed_counts()[str(case)]
    check_counts(case, listed, listed, "")
    for change, message in ((1, "waits more often"), (-1, "not up to date")):
        counts = json.loads(json.dumps(listed))
        counts["waits"]["step"] += change
        if change > 0 or with_tested_versions():
            with pytest.raises(AssertionError, match=message):
                check_counts(case, counts, listed, "")


# ---- the device itself ----


def test_operations_on_two_devices_are_refused(device: SimulatedCuda) -> None:
    here, there = torch.ones(3), torch.ones(3, device="cuda")
    with pytest.raises(RuntimeError, match="on the same device: add"):
        here + there
    rows = torch.ones(1, 1, 2, 4)
    with pytest.raises(RuntimeError, match="on the same device: scaled_dot_product_attention"):
        torch.nn.functional.scaled_dot_product_attention(rows.to("cuda"), rows, rows)
    assert (torch.tensor(2.0) * there).tolist() == [2.0, 2.0, 2.0]  # numbers may be on the CPU
    with pytest.raises(TypeError, match="numpy"):
        there.numpy()


@pytest.mark.parametrize(
    ("reason", "use"),
    [
        ("item", lambda x: float(x.sum())),
        ("item", lambda x: bool((x > 0).all())),
        ("tolist", lambda x: x.tolist()),
        ("nonzero", lambda x: x.nonzero()),
        ("nonzero", lambda x: torch.where(x > 0)),
        ("bincount", lambda x: torch.bincount(x.long())),
        ("equal", lambda x: torch.equal(x, x)),
        ("masked_select", lambda x: x.masked_select(x > 0)),
        ("mask as an index", lambda x: x[x > 0]),
        ("mask as an index", lambda x: x.__setitem__(x > 0, x.clone())),
        ("index on the CPU", lambda x: x[torch.tensor([0, 2])]),
        ("index on the CPU", lambda x: x[[0, 2]]),
        ("repeat_interleave", lambda x: torch.repeat_interleave(x.long())),
        ("copy to the CPU", lambda x: x.cpu()),
        ("copy to the device", lambda x: torch.ones(3).to("cuda")),
        ("copy to the device", lambda x: torch.tensor([1.0], device="cuda")),
        ("copy to the device", lambda x: x.copy_(torch.ones(3))),
        ("tensor in a list", lambda x: torch.tensor([x[0], x[1]])),
        ("synchronize", lambda x: torch.cuda.synchronize()),
    ],
)
def test_waits_are_counted(device: SimulatedCuda, reason: str, use: Any) -> None:
    x = torch.ones(3).to("cuda")
    device.reset()
    use(x)
    assert {name.split(",")[0] for name in device.waits} == {reason}


def test_other_operations_do_not_wait(device: SimulatedCuda) -> None:
    pinned = torch.ones(3).pin_memory()
    x = pinned.to("cuda", non_blocking=True)
    assert device.pageable_copies == 0
    assert device.bytes_to_device == 12
    torch.ones(2).to("cuda", non_blocking=True)
    assert device.pageable_copies == 1
    y = torch.full((3,), 2.0, device="cuda")
    y[torch.arange(2, device="cuda")] += 1
    y[y > 2] = 0.0
    torch.where(x > 0, y, 0.0).sum(0, keepdim=True).repeat_interleave(2, output_size=2)
    torch.zeros(3, device="cuda").index_add(0, torch.arange(3, device="cuda"), x)
    assert not device.waits
    assert (x.device, x.is_cuda) == (torch.device("cuda", 0), True)


def test_launches_are_counted_without_views(device: SimulatedCuda) -> None:
    x = torch.ones(4, 6).to("cuda")
    device.reset()
    x.t().view(-1, 1) if x.t().is_contiguous() else x.view(2, 12)[:, :3].unsqueeze(0)
    assert not device.launches
    (x @ x.t()).sum()
    assert dict(device.launches) == {"mm": 1, "sum": 1}


def test_gradients_of_fused_attention_are_those_of_the_cpu(device: SimulatedCuda) -> None:
    results = []
    for place in ("cpu", "cuda"):
        torch.manual_seed(0)
        inputs = [torch.randn(1, heads, 5, 8) for heads in (4, 2, 2)]
        leaves = [x.to(place).requires_grad_() for x in inputs]
        mask = torch.ones(5, 5, dtype=torch.bool).tril().to(place)
        out = torch.nn.functional.scaled_dot_product_attention(
            *leaves, attn_mask=mask, enable_gqa=True
        )
        out.square().sum().backward()
        results.append([out.detach().cpu(), *(leaf.grad.cpu() for leaf in leaves)])
    for left, right in zip(*results, strict=True):
        torch.testing.assert_close(left, right)


def test_everything_is_restored_at_the_end() -> None:
    functions = (torch.tensor, torch.cuda.is_available, torch.Tensor.pin_memory)
    with SimulatedCuda():
        assert torch.cuda.is_available()
        assert torch.tensor is not functions[0]
    assert (torch.tensor, torch.cuda.is_available, torch.Tensor.pin_memory) == functions

"""How long processes wait for each other."""

from datetime import timedelta
from typing import Any

import pytest
import torch

from unidpo_mm import distributed
from unidpo_mm.config.python import UniDPOConfig
from unidpo_mm.data.load import DataFiles
from unidpo_mm.training.configured_loss import configured_loss
from unidpo_mm.training.prepare import prepare


def test_processes_wait_for_the_reading_one_as_long_as_ddp_timeout(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    groups: list[Any] = []
    waits: list[Any] = []

    def new_group(**options: Any) -> str:
        groups.append(options)
        return "host"

    functions: dict[str, Any] = {
        "is_initialized": lambda: True,
        "get_backend": lambda: "nccl",
        "get_rank": lambda: 0,
        "get_world_size": lambda: 1,
        "new_group": new_group,
        "barrier": lambda group: waits.append(group),
    }
    for name, function in functions.items():
        monkeypatch.setattr(torch.distributed, name, function)
    monkeypatch.setattr(distributed, "_limits", {})
    distributed._new_host_group.cache_clear()
    args = UniDPOConfig(output_dir="x", report_to="none", ddp_timeout=7200)
    prepare(DataFiles(sources=()), None, args, configured_loss(args), None)
    distributed._new_host_group.cache_clear()
    assert groups == [{"backend": "gloo", "timeout": timedelta(hours=2)}]
    assert waits == ["host"]

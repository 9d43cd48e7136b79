"""The environment with vLLM."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def vllm() -> Path:
    """Return the Python of the environment with vLLM, which `make test-serving` builds."""
    python = Path(os.environ["UNIDPO_MM_SERVING"]) / "bin" / "python"
    assert python.is_file(), "run make test-serving"
    return python

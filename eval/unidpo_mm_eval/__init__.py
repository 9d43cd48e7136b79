"""Evaluation for `unidpo-mm`: a package that uses the core and is never imported by it."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .run.callback import BenchmarkCallback

__all__ = ["BenchmarkCallback"]


def __getattr__(name: str) -> Any:
    """Import the callback on first use, because it needs torch and transformers."""
    if name == "BenchmarkCallback":
        from .run.callback import BenchmarkCallback

        return BenchmarkCallback
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

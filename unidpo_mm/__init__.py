"""unidpo-mm: preference tuning of vision-language and text models with Uni-DPO.

The names below are imported on first use, so that `import unidpo_mm` and every `--help` are fast:
importing torch takes seconds.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .config.python import UniDPOConfig
    from .training.trainer import UniDPOTrainer

__version__ = "0.1.0"

__all__ = ["UniDPOConfig", "UniDPOTrainer", "__version__"]


def __getattr__(name: str) -> Any:
    if name == "UniDPOConfig":
        from .config.python import UniDPOConfig

        return UniDPOConfig
    if name == "UniDPOTrainer":
        from .training.trainer import UniDPOTrainer

        return UniDPOTrainer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)

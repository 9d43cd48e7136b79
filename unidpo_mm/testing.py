"""Checks for the tests of a model family.

    from unidpo_mm.testing import check_family

    def test_my_family(tmp_path):
        check_family(ADAPTER, tmp_path)

The checks compare tiny random checkpoints with the library; docs/families.md describes them.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .adapter import AdapterFamily, AdapterOptions
from .conformance import Subject, conformance_problems
from .errors import ModelError
from .modeling.load import ModelSource, load_adapter, load_config, load_weights
from .modeling.logp_model import LogpModel
from .modeling.model_parts import with_model_parts
from .modeling.parts import freeze_parts

__all__ = ["check_checkpoint", "check_family"]


def check_family(
    family: AdapterFamily, folder: str | Path, model_types: Sequence[str] | None = None
) -> None:
    """Check the tiny checkpoints of a family.

    Args:
        family: The family, which builds them.
        folder: An empty directory for the checkpoints.
        model_types: The model types to check; `None` for those that the family lists or, if it
            lists none, the one that it builds by default.

    Raises:
        ModelError: With a problem for each check that fails.
    """
    names = family.model_types if model_types is None else model_types
    if not names:
        check_checkpoint(family, family.tiny(Path(folder) / family.name))
    for name in names:
        check_checkpoint(family, family.tiny(Path(folder) / name, model_type=name))


def check_checkpoint(family: AdapterFamily, folder: str | Path, *, dtype: str = "float32") -> None:
    """Check a checkpoint of a family.

    Args:
        family: The family that serves it.
        folder: The directory of the checkpoint.
        dtype: The number format, see `ModelSource`.

    Raises:
        ModelError: With a problem for each check that fails.
    """
    source = ModelSource(name_or_path=str(folder), dtype=dtype)
    adapter: Any = load_adapter(source, AdapterOptions(), config=load_config(source), family=family)
    model = load_weights(source, family)
    family = with_model_parts(family, model)
    freeze_parts(model, family, None)
    subject = Subject(LogpModel(model).eval(), family, adapter)
    if problems := list(conformance_problems(subject)):
        raise ModelError(problems)

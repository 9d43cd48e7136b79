"""The checks of a run whose family was not tested with the type of its model."""

from typing import Any

from ..adapter import Adapter, AdapterFamily, AdapterOptions
from ..errors import ModelError
from ..modeling.families import VISION
from ..modeling.logp_model import LogpModel
from .checks import CHECKS, conformance_problems
from .subject import Subject

__all__ = ["check_untested_type"]


def check_untested_type(
    logp_model: LogpModel, family: AdapterFamily, adapter: Adapter, device: Any
) -> None:
    """Check a model with images unless its family lists its type.

    Args:
        logp_model: The model inside the module that computes log-probs.
        family: The family that serves it, with the parts of this model.
        adapter: The adapter of the run, whose processor has its image sizes.
        device: The device of the model.

    Raises:
        ModelError: With a problem for each check that fails.
    """
    config = logp_model.config
    if VISION not in family.parts or config.model_type in family.model_types:
        return
    unlimited = family.create(adapter.processor, config, AdapterOptions())
    subject = Subject(logp_model, family, unlimited, device)
    checks = [check for check in CHECKS if check.at_start]
    if problems := list(conformance_problems(subject, checks)):
        raise ModelError(problems)

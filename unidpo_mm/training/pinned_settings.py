"""Save the loss parameters that a run computed from its data, to keep them when it resumes.

`tau_good: median` is computed from the training pairs. A run that resumes with other rows keeps its
original number.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from .configured_loss import ConfiguredLoss

__all__ = ["FILE", "loss_state", "pinned_settings", "restore_loss_state", "write_settings"]

logger = logging.getLogger(__name__)

FILE = "loss.json"


def write_settings(settings: ConfiguredLoss, folder: str | Path) -> None:
    """Write the loss and its resolved parameters into a checkpoint."""
    path = Path(folder) / FILE
    content = {**settings.describe(), "state": loss_state(settings)}
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")


def loss_state(settings: ConfiguredLoss) -> dict[str, Any] | None:
    """Return the state that a stateful loss keeps between batches; `None` for other losses."""
    return None if settings.state is None else asdict(settings.state)


def restore_loss_state(settings: ConfiguredLoss, state: Mapping[str, Any] | None) -> None:
    """Restore the state of a stateful loss, in place."""
    if settings.state is None or state is None:
        return
    for field in fields(settings.state):
        if field.name in state:
            setattr(settings.state, field.name, state[field.name])


def pinned_settings(settings: ConfiguredLoss, folder: str | Path) -> ConfiguredLoss:
    """Return the loss with each source's `tau_good` from a checkpoint.

    Args:
        settings: The loss configured by the current recipe and rows.
        folder: The checkpoint; if it has no such file, or another loss, the settings are returned
            unchanged.
    """
    try:
        before = json.loads((Path(folder) / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return settings
    if before.get("name") != settings.loss.name:
        return settings
    restore_loss_state(settings, before.get("state"))
    by_source = {name: dict(values) for name, values in settings.by_source.items()}
    for source, values in before.get("by_source", {}).items():
        number, now = values.get("tau_good"), by_source.get(source, {}).get("tau_good")
        if number is None or now is None or number == now:
            continue
        logger.warning(
            "source '%s': tau_good would be %s with the current rows; the run keeps the %s of its "
            "checkpoint",
            source,
            now,
            number,
        )
        by_source[source]["tau_good"] = number
    return replace(settings, by_source=by_source)

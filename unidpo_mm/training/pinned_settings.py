"""Keeps the numbers that a run took from its data with every checkpoint, so that they stay.

`tau_good: median` is a number of the training pairs. A run that goes on with other rows goes on
with the number that it began with.
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
    """Write the loss and its parameters, every one a number, into a checkpoint."""
    path = Path(folder) / FILE
    content = {**settings.describe(), "state": loss_state(settings)}
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")


def loss_state(settings: ConfiguredLoss) -> dict[str, Any] | None:
    """Return what a stateful loss remembers from batch to batch; `None` for most losses."""
    return None if settings.state is None else asdict(settings.state)


def restore_loss_state(settings: ConfiguredLoss, state: Mapping[str, Any] | None) -> None:
    """Restore what a stateful loss remembered, in place."""
    if settings.state is None or state is None:
        return
    for field in fields(settings.state):
        if field.name in state:
            setattr(settings.state, field.name, state[field.name])


def pinned_settings(settings: ConfiguredLoss, folder: str | Path) -> ConfiguredLoss:
    """Return the settings with the `tau_good` of each source that a checkpoint began with.

    Args:
        settings: As the recipe and the rows of today make them.
        folder: The checkpoint; one without the file, or of another loss, changes nothing.
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
            "source '%s': tau_good is %s by the rows of today; the run goes on with the %s of its "
            "checkpoint",
            source,
            now,
            number,
        )
        by_source[source]["tau_good"] = number
    return replace(settings, by_source=by_source)

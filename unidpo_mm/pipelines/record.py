"""The record of a data set: what was made how, from what, with all counts."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from ..atomic import write_text
from ..secrets import mask_secrets
from .advice import loss_advice, source_entry
from .files import json_values
from .load import Making
from .models import family_notes, model_facts
from .run import Made

__all__ = ["write_record"]

PACKAGES = ("unidpo-mm", "torch", "transformers")


def write_record(making: Making, made: Made, warnings: Sequence[str] = ()) -> dict[str, Any]:
    """Write `made.json` and return its content.

    Args:
        making: The recipe.
        made: The run.
        warnings: What the user should know about responses and scores.
    """
    recipe = making.recipe
    models = model_facts(making)
    record: dict[str, Any] = {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {name: version(name) for name in PACKAGES},
        "recipe": recipe.model_dump(mode="json", exclude_unset=True),
        "prompts": made.prompts.fingerprint,
        "model": None if recipe.model is None else recipe.model.name_or_path,
        "models": [asdict(facts) for facts in models],
        "scorers": {
            name: {
                "scorer": recipe.score[name].scorer,
                "scale": json_values(scorer.scale),
                "settings": json_values(dict(scorer.fingerprint())),
                "sees_images": scorer.sees_images,
            }
            for name, scorer in making.scorers.items()
        },
        "counts": made.funnel.counts,
        "warnings": [*warnings],
        "notes": family_notes(models),
        "timing": made.timing.record(),
        "advice": loss_advice(making, made),
        "source": source_entry(making, made),
    }
    text = json.dumps(mask_secrets(record), ensure_ascii=False, indent=2) + "\n"
    write_text(made.files.record, text)
    return record

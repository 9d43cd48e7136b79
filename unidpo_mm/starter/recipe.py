"""The recipe of `unidpo-mm init`: what the data, the model and this machine suggest.

Each value that was chosen has a comment with its reason. What the data cannot tell, such as the
scale on which a judge scored, is not guessed: the recipe leaves it out, and a note says so.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..config import SourceOptions
from ..config.python import UniDPOConfig
from ..data.load import Loaded, read_sources
from ..errors import DataError, ModelError, Problem, UniDPOError, counted
from ..modeling.families import VISION, family_for
from ..modeling.load import ModelSource, load_config, load_family_and_adapter
from ..records import PreferenceRow
from .choices import (
    Starter,
    batch_choice,
    device_choice,
    eval_choice,
    length_choice,
    loss_choice,
    score_facts,
)

__all__ = ["starter_recipe"]

NO_MODEL = "MODEL"
"""Placeholder for a model that the user has to choose; every check refuses it."""
MADE = "made.json"
"""Record of made data next to their rows, which states the scale of their scores."""


def starter_recipe(sources: Sequence[SourceOptions], model: str | None, name: str) -> Starter:
    """Return a recipe for data and a model.

    Args:
        sources: The data sets.
        model: A directory or hub name; `None` if the user has to choose one.
        name: Name of the run, the last part of its output directory.

    Raises:
        UniDPOError: If rows have problems, or the model cannot be tuned with these data.
    """
    loaded = read_sources(sources)
    if loaded.problems:
        raise DataError(loaded.problems)
    if not loaded.rows:
        raise DataError(
            Problem("DATA", "there are no rows to train on", "Use data with preference pairs")
        )
    starter = Starter()
    kinds = ("images", "videos")
    media = [kind for kind in kinds if any(getattr(row, kind) for row in loaded.rows)]
    _describe_data(starter, loaded)
    adapter = _choose_model(starter, model, media)
    _list_sources(starter, sources, loaded.rows)
    eval_choice(starter, loaded.rows)
    length_choice(starter, loaded.rows, adapter)
    loss_choice(starter, loaded.rows)
    starter.set("train.output_dir", f"runs/{name}")
    starter.set("train.num_train_epochs", 1)
    batch_choice(starter, loaded.rows)
    device_choice(starter)
    return starter


def _describe_data(starter: Starter, loaded: Loaded) -> None:
    for report in loaded.reports:
        formats = ", ".join(f"{name} ({rows:,})" for name, rows in report.formats.items())
        starter.notes.append(f"{report.source}: {counted(report.rows, 'row')}, format {formats}")
        starter.notes += [f"{report.source}: {sentence}" for sentence in report.sentences()]


def _choose_model(starter: Starter, model: str | None, media: Sequence[str]) -> Any:
    """Set the model and how it is trained; return its adapter if its files are at hand."""
    if model is None:
        starter.set("model.name_or_path", NO_MODEL, "to do: the directory or hub name of a model")
    else:
        starter.set("model.name_or_path", model)
    starter.set(
        "model.lora",
        {"r": 16, "alpha": 32, "targets": "language_model"},
        "remove it to train all weights, with a learning rate of about 1e-6",
    )
    starter.set(
        "train.learning_rate", 1e-5, "for a LoRA adapter; compare some with unidpo-mm sweep"
    )
    return None if model is None else _checked_adapter(starter, model, media)


def _checked_adapter(starter: Starter, model: str, media: Sequence[str]) -> Any:
    """Return the adapter of a model; `None` if its files cannot be read, which is noted.

    Raises:
        ModelError: If the model can be read and cannot be tuned with these data.
    """
    args = UniDPOConfig(output_dir="unused", report_to="none")
    try:
        config = load_config(ModelSource.of(model, args))
    except ModelError as error:
        if Path(model).exists():
            raise
        starter.notes.append(f"the model was not looked at: {error}")
        return None
    family = family_for(config)
    starter.comments["model.name_or_path"] = f"family {family.name} ({config.model_type})"
    if media and VISION not in family.parts:
        kinds = " and ".join(media)
        text = f"the data have {kinds}, and '{model}' is a text model ({config.model_type})"
        raise ModelError(Problem("--model", text, "Choose a vision-language model"))
    if not media and VISION in family.parts:
        starter.notes.append("no row has an image: a text model would do")
    try:
        return load_family_and_adapter(model, args)[1]
    except UniDPOError as error:
        starter.notes.append(f"the processor was not loaded: {error}")
        return None


def _scores_of_made_data(rows: Path) -> dict[str, Any]:
    """Return the scores of a file that `unidpo-mm data make` wrote; empty for other files."""
    try:
        source = json.loads((rows.parent / MADE).read_text(encoding="utf-8"))["source"]
        return dict(source["scores"]) if Path(source["path"]) == rows.absolute() else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _list_sources(
    starter: Starter, sources: Sequence[SourceOptions], rows: Sequence[PreferenceRow]
) -> None:
    """List the sources, with what their scores are and how missing ones are handled."""
    listed = []
    for number, source in enumerate(sources):
        entry: dict[str, Any] = {"path": str(Path(source.path).absolute())}
        if source.images is not None:
            entry["images"] = str(Path(source.images).absolute())
        if made := _scores_of_made_data(Path(source.path)):
            entry["scores"] = made
        facts = score_facts([row for row in rows if row.source == source.source_name])
        if facts is None:
            text = "no scores"
        else:
            text = f"scores {facts.low:g} to {facts.high:g}, median margin {facts.median_margin:g}"
            if facts.missing:
                entry.setdefault("scores", {})["missing"] = 0.5
                text += f"; {counted(facts.missing, 'pair')} without scores get the weight 0.5"
            if "scale" in entry.get("scores", {}):
                text += f"; scale {entry['scores']['scale']} by {MADE}"
                starter.comments[f"data.sources.{number}.path"] = text
                listed.append(entry)
                continue
            starter.notes.append(
                f"{source.source_name}: the scores lie between {facts.low:g} and {facts.high:g}; "
                "their scale cannot be known from that. If sources have different scales, set "
                "scores.scale of each, and data.score_scale"
            )
        starter.comments[f"data.sources.{number}.path"] = text
        listed.append(entry)
    starter.set("data.sources", listed)

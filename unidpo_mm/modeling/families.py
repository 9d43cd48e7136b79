"""Choose the model family that serves a checkpoint."""

import logging
from collections.abc import Sequence
from typing import Any

from ..adapter import AdapterFamily
from ..errors import ModelError, Problem
from ..plugins import FAMILIES, load_family, plugin_names

__all__ = ["VISION", "family_for", "has_vision"]

logger = logging.getLogger(__name__)

VISION = "vision_tower"
"""The part that only families with images have."""
VISION_SETTINGS = (
    "vision_config vision_cfg vision_tower mm_vision_tower vit_config visual vq_config "
    "img_processor thinker_config"
).split()
"""Settings that only models with a vision tower have, also those with custom code."""


def family_for(config: Any, name: str | None = None) -> AdapterFamily:
    """Return the family that serves a configuration.

    A family lists model types or recognizes configurations. A vision-language model is never served
    by a family without a vision tower unless the user chooses that family: it would train on text
    only, and some of these models would be saved without their vision tower.

    Args:
        config: The model's configuration.
        name: The family that the user chose; `None` to detect it.

    Raises:
        ModelError: If no family serves the model type, or the chosen one does not, or would lose a
            part of the model.
    """
    if name is not None:
        family: AdapterFamily = load_family(name)
        _check_choice(config, family)
        return family
    candidates: list[AdapterFamily] = [load_family(name) for name in plugin_names(FAMILIES)]
    by_type = [family for family in candidates if config.model_type in family.model_types]
    if by_type:
        return by_type[0]
    serving = [family for family in candidates if family.serves(config)]
    if has_vision(config):
        with_tower = [family for family in serving if VISION in family.parts]
        if not with_tower:
            raise ModelError(_unsupported_vision(config, candidates, serving))
        serving = with_tower
    if serving:
        return serving[0]
    reason = _reason(config, [family for family in candidates if VISION not in family.parts])
    raise ModelError(
        Problem(
            "model.name_or_path",
            f"no model family serves the model type '{config.model_type}'{reason}",
            "Choose another model, or add a family as described in docs/families.md",
        )
    )


def _reason(config: Any, candidates: Sequence[AdapterFamily]) -> str:
    """Return why no family serves a configuration, to be appended; empty if none knows."""
    reasons = (family.refuses(config) for family in candidates)
    return next((f": {reason}" for reason in reasons if reason is not None), "")


def has_vision(config: Any) -> bool:
    """Return whether a configuration is that of a model with a vision tower."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

    # the language model of a vision-language model may be listed as well, without a tower
    if config.model_type in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES and config.sub_configs:
        return True
    return any(getattr(config, name, None) is not None for name in VISION_SETTINGS)


def _check_choice(config: Any, family: AdapterFamily) -> None:
    """Refuse a family for other models, or one that would lose the vision tower.

    A family with images may be chosen for a model type that no family serves; then the model is
    compared with the library before training.
    """
    model_type = config.model_type
    if model_type not in family.model_types and not family.serves(config):
        suitable = _detected(config)
        if suitable is not None or VISION not in family.parts:
            reason = _reason(config, [family]) if suitable is None else ""
            problem = f"the family '{family.name}' does not serve the model type '{model_type}'"
            remedy = f"Remove model.adapter, or set it to '{suitable}'"
            if suitable is None:
                remedy = "Choose another model, or another family"
            raise ModelError(Problem("model.adapter", problem + reason, remedy))
    if VISION in family.parts:
        if model_type not in family.model_types:
            logger.warning(
                "model.adapter: the family '%s' was not tested with the model type '%s' (its types "
                "are %s), so the model is compared with the library before training",
                family.name,
                model_type,
                ", ".join(family.model_types),
            )
        return
    if has_vision(config) and _saved_without_vision(config, family):
        raise ModelError(
            Problem(
                "model.adapter",
                f"'{family.name}' loads only the language model of '{model_type}', so every "
                "checkpoint would lose the vision tower",
                _alone(config, family) or "Choose another model",
            )
        )


def _detected(config: Any) -> str | None:
    """Return the name of the family that serves a configuration, or `None`."""
    try:
        return family_for(config).name
    except ModelError:
        return None


def _saved_without_vision(config: Any, family: AdapterFamily) -> bool:
    """Return whether the class that loads the weights has only the text model."""
    import transformers

    if family.auto_class in (getattr(config, "auto_map", None) or {}):
        return False
    try:
        model_class: Any = getattr(transformers, family.auto_class)._model_mapping[type(config)]
    except (AttributeError, KeyError):  # custom code of the checkpoint
        return False
    if isinstance(model_class, tuple):
        model_class = model_class[0]
    return model_class.config_class is not type(config) or bool(_added_settings(config))


def _added_settings(config: Any) -> list[str]:
    """Return the settings of a vision tower that transformers' class of the model does not know."""
    present = [name for name in VISION_SETTINGS if getattr(config, name, None) is not None]
    return [] if type(config).sub_configs.keys() & set(present) else present


def _unsupported_vision(
    config: Any, candidates: Sequence[AdapterFamily], serving: Sequence[AdapterFamily]
) -> Problem:
    """Return the problem of a vision-language model that no family with a vision tower serves."""
    with_images = [family for family in candidates if VISION in family.parts]
    supported = "; ".join(f"{f.name}: {', '.join(f.model_types)}" for f in with_images)
    remedy = f"Choose a model of a supported type ({supported})"
    for family in serving[:1]:
        if not _saved_without_vision(config, family):
            remedy += f", or set model.adapter to {family.name} to train its language model on text"
        elif alone := _alone(config, family):
            remedy += f". {alone}"
    return Problem(
        "model.name_or_path",
        f"'{config.model_type}' is a vision-language model that no family with images serves"
        + _reason(config, with_images),
        remedy,
    )


def _alone(config: Any, family: AdapterFamily) -> str:
    """Return how to train only the language model of a vision-language model, or nothing."""
    if added := _added_settings(config):
        return (
            f"If its files contain no vision tower, remove {' and '.join(added)} from its "
            "config.json"
        )
    if not family.serves(config.get_text_config()):
        return ""
    return (
        "To train its language model on text, save only that "
        f"(transformers.{family.auto_class}.from_pretrained(...).save_pretrained(DIRECTORY), and "
        "the tokenizer in the same directory) and train the saved model"
    )

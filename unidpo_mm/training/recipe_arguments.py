"""Convert a recipe to the arguments of the trainer."""

from typing import Any

from ..data.load import SourceFile
from ..data.scores import ScoreOptions
from ..errors import Problem, RecipeError, UniDPOError
from ..plugins import load_loss
from ..recipe import Recipe
from ..recipe.sections import DataSection, ScoresSection, SourceSection
from .config import UniDPOConfig
from .configured_loss import weights_missing_scores

__all__ = ["arguments_of", "loss_by_source", "loss_of", "source_file"]


def source_file(source: SourceSection, data: DataSection) -> SourceFile:
    """Return the description of a source for the data layer."""
    options = source.model_dump(exclude={"scores", "loss"})
    scores = source.scores or ScoresSection()
    return SourceFile(
        **options,
        scores=ScoreOptions(**scores.model_dump()),
        max_pixels=data.images.max_pixels,
        fetch_private_addresses=data.images.fetch_private_addresses,
    )


def loss_of(source: SourceSection, loss: str) -> dict[str, Any]:
    """Return the loss parameters of a source, with the weight of pairs without scores.

    Raises:
        RecipeError: If the loss needs the scores of all pairs.
    """
    parameters = dict(source.loss)
    if source.scores is None or source.scores.missing == "error":
        return parameters
    loaded = load_loss(loss)
    if weights_missing_scores(loss):
        parameters["missing_quality"] = source.scores.missing
    elif loaded.needs_scores(loaded.config()):
        where = f"data source '{source.name or source.path}', scores.missing"
        remedy = "Set it to error, or choose a loss that works without scores (uni_dpo, dpo)"
        text = f"the loss '{loss}' needs the scores of every pair"
        raise RecipeError(Problem(where, text, remedy))
    return parameters


def loss_by_source(recipe: Recipe) -> dict[str, dict[str, Any]]:
    """Return the loss parameters of each source that sets some.

    Raises:
        RecipeError: If two sources with the same name have different parameters: rows refer to
            their source by name.
    """
    by_source: dict[str, dict[str, Any]] = {}
    problems = []
    for source in (*recipe.data.sources, *recipe.data.eval_sources):
        name = source_file(source, recipe.data).source_name
        parameters = loss_of(source, recipe.loss.name)
        if by_source.setdefault(name, parameters) != parameters:
            text = (
                f"two sources have this name and different loss settings ({by_source[name]}, "
                f"{parameters})"
            )
            remedy = "Set a different 'name' for one of them"
            problems.append(Problem(f"data source '{name}'", text, remedy))
    if problems:
        raise RecipeError(problems)
    return {name: parameters for name, parameters in by_source.items() if parameters}


def arguments_of(recipe: Recipe) -> UniDPOConfig:
    """Return the trainer's settings for a recipe; docs/recipe.md has the same table.

    Raises:
        RecipeError: If transformers refuses an argument.
    """
    model, data, train = recipe.model, recipe.data, recipe.train
    init = {"dtype": model.dtype, "trust_remote_code": model.trust_remote_code, **model.init_kwargs}
    if model.attn_implementation is not None:
        init["attn_implementation"] = model.attn_implementation
    settings: dict[str, Any] = {
        **train.arguments,
        "output_dir": train.output_dir,
        "reference": train.reference,
        "reference_build": train.reference_build,
        "memory": None if train.memory is None else str(train.memory),
        "learning_rates": train.learning_rates or None,
        "eval_generations": train.eval_generations,
        "eval_max_new_tokens": train.eval_max_new_tokens,
        "loss_type": recipe.loss.name,
        "loss_kwargs": recipe.loss.parameters,
        "loss_by_source": loss_by_source(recipe) or None,
        "freeze": None if model.freeze is None else list(model.freeze),
        "base_name_or_path": model.base_name_or_path,
        "adapter": model.adapter,
        "layout": model.layout,
        "prompt_style": model.prompt_style,
        "chat_template_kwargs": model.chat_template_kwargs or None,
        "image_min_pixels": model.image_min_pixels,
        "image_max_pixels": model.image_max_pixels,
        "model_init_kwargs": init,
        "max_length": data.max_length,
        "length_policy": data.length_policy,
        "max_skipped_fraction": data.images.max_skipped_fraction,
        "eval_fraction": data.eval_fraction,
        "data_seed": data.seed,
        "feature_cache_gb": data.feature_cache_gb,
        "group_by_prompt": data.group_by_prompt,
        "pair_weighting": data.pair_weighting,
        "preflight": data.preflight,
        "worker_timeout": data.worker_timeout,
        "allow_changes": list(recipe.run.allow_changes) or None,
        "on_nonfinite": recipe.run.on_nonfinite,
    }
    try:
        return UniDPOConfig(**settings)
    except (TypeError, ValueError) as error:
        raise UniDPOError(f"section 'train': {error}") from error

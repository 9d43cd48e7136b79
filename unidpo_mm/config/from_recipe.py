"""Convert a recipe to a `UniDPOConfig`."""

from typing import Any

from ..errors import Problem, RecipeError, UniDPOError
from ..plugins import load_loss
from .loss_aliases import weights_missing_scores
from .python import UniDPOConfig
from .recipe import Recipe
from .sections import QuantizationOptions, SourceOptions

__all__ = ["config_of", "loss_by_source", "quantization_config"]


def config_of(recipe: Recipe, *, data_only: bool = False) -> UniDPOConfig:
    """Return the trainer's options for a recipe; docs/recipe.md has the same table.

    Args:
        recipe: The recipe.
        data_only: Whether to omit the arguments of `TrainingArguments`, which may need a GPU, for
            commands that only look at data.

    Raises:
        RecipeError: If two sources with the same name have different loss parameters.
        UniDPOError: If transformers refuses an argument.
    """
    model = recipe.model
    init = {"dtype": model.dtype, "trust_remote_code": model.trust_remote_code, **model.init_kwargs}
    if model.attn_implementation is not None:
        init["attn_implementation"] = model.attn_implementation
    if model.quantization is not None:
        init["quantization_config"] = quantization_config(model.quantization, model.dtype)
    arguments: dict[str, Any] = {
        **({"report_to": "none"} if data_only else recipe.train.arguments),
        **recipe.options(),
        "output_dir": recipe.train.output_dir,
        "data_seed": recipe.data.seed,
        "model_init_kwargs": init,
        "loss": {"name": recipe.loss.name, **recipe.loss.parameters},
        "loss_by_source": loss_by_source(recipe) or None,
    }
    try:
        return UniDPOConfig(**arguments)
    except (TypeError, ValueError) as error:
        raise UniDPOError(f"section 'train': {error}") from error


def quantization_config(options: QuantizationOptions, dtype: str) -> dict[str, Any]:
    """Return the arguments of `transformers.BitsAndBytesConfig` or `TorchAoConfig`."""
    if options.library == "torchao":
        quant_type = {"_type": "Int8WeightOnlyConfig", "_version": 2, "_data": {}}
        return {"quant_method": "torchao", "quant_type": {"default": quant_type}}
    config: dict[str, Any] = {"quant_method": "bitsandbytes", f"load_in_{options.bits}bit": True}
    if options.bits == 4:
        config |= {
            "bnb_4bit_quant_type": options.type,
            "bnb_4bit_use_double_quant": options.double,
            "bnb_4bit_compute_dtype": "bfloat16" if dtype == "auto" else dtype,
        }
    return config


def loss_by_source(recipe: Recipe) -> dict[str, dict[str, Any]]:
    """Return the loss parameters of each source that sets some.

    Raises:
        RecipeError: If two sources with the same name have different parameters: rows refer to
            their source by name.
    """
    by_source: dict[str, dict[str, Any]] = {}
    problems = []
    for source in (*recipe.data.sources, *recipe.data.eval_sources):
        name = source.source_name
        parameters = _loss_of(source, recipe.loss.name)
        if by_source.setdefault(name, parameters) != parameters:
            text = (
                f"two sources have this name and different loss parameters ({by_source[name]}, "
                f"{parameters})"
            )
            remedy = "Set a different 'name' for one of them"
            problems.append(Problem(f"data source '{name}'", text, remedy))
    if problems:
        raise RecipeError(problems)
    return {name: parameters for name, parameters in by_source.items() if parameters}


def _loss_of(source: SourceOptions, loss: str) -> dict[str, Any]:
    """Return the loss parameters of a source, with the weight of pairs without scores."""
    parameters = dict(source.loss)
    if source.scores.missing == "error":
        return parameters
    loaded = load_loss(loss)
    if weights_missing_scores(loss):
        parameters["missing_quality"] = source.scores.missing
    elif loaded.needs_scores(loaded.config()):
        where = f"data source '{source.source_name}', scores.missing"
        remedy = "Set it to error, or choose a loss that works without scores (uni_dpo, dpo)"
        text = f"the loss '{loss}' needs the scores of every pair"
        raise RecipeError(Problem(where, text, remedy))
    return parameters

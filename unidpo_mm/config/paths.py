"""Resolve the relative paths of a recipe, which start at its directory or the current one."""

from pathlib import Path
from typing import Any

from ..plugins import is_path
from .recipe import ModelSection, Recipe
from .sections import SourceOptions

__all__ = ["resolve_paths"]


def resolve_paths(recipe: Recipe, folder: Path) -> Recipe:
    """Return the recipe with absolute paths of its model, data, images and plugins.

    A path that exists neither in the directory of the recipe nor in the current directory stays as
    it is: it may be the name of a model or data set on a hub. `train.output_dir` is not changed: it
    is relative to the directory in which a run is started.

    Args:
        recipe: A validated recipe.
        folder: The directory of its file.
    """
    data = recipe.data.model_copy(
        update={
            "sources": tuple(_source(source, folder) for source in recipe.data.sources),
            "eval_sources": tuple(_source(source, folder) for source in recipe.data.eval_sources),
        }
    )
    update: dict[str, Any] = {"model": _model(recipe.model, folder), "data": data}
    loss = {"name": _resolved_plugin(recipe.loss.name, folder)}
    update["loss"] = recipe.loss.model_copy(update=loss)
    plugins = {
        key: {_resolved_plugin(name, folder): v for name, v in getattr(recipe.run, key).items()}
        for key in ("callbacks", "observers")
    }
    update["run"] = recipe.run.model_copy(update=plugins)
    return recipe.model_copy(update=update)


def _model(model: ModelSection, folder: Path) -> ModelSection:
    base = model.base_name_or_path
    return model.model_copy(
        update={
            "name_or_path": _resolved(model.name_or_path, folder),
            "base_name_or_path": None if base is None else _resolved(base, folder),
            "adapter": None if model.adapter is None else _resolved_plugin(model.adapter, folder),
        }
    )


def _source(source: SourceOptions, folder: Path) -> SourceOptions:
    images = None if source.images is None else _resolved(source.images, folder)
    name = None if source.format is None else _resolved_plugin(source.format, folder)
    path = _resolved(source.path, folder)
    return source.model_copy(update={"path": path, "images": images, "format": name})


def _resolved_plugin(name: str, folder: Path) -> str:
    return _resolved(name, folder) if is_path(name) else name


def _resolved(written: str, folder: Path) -> str:
    path = Path(written).expanduser()
    for candidate in (folder / path, path):  # an absolute path replaces the folder
        if candidate.exists():
            return str(candidate.absolute())
    return written

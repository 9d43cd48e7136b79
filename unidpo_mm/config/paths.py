"""Resolve the relative paths of a recipe, which start at its directory or the current one."""

from pathlib import Path
from typing import Any

from ..plugins import is_path
from .recipe import Recipe
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
    model, data, loss, run = recipe.model, recipe.data, recipe.loss, recipe.run
    update: dict[str, Any] = {
        "model": model.model_copy(
            update={
                "name_or_path": _resolved(model.name_or_path, folder),
                "base_name_or_path": _resolved(model.base_name_or_path, folder),
                "adapter": _resolved_plugin(model.adapter, folder),
            }
        ),
        "data": data.model_copy(
            update={
                "sources": tuple(_source(source, folder) for source in data.sources),
                "eval_sources": tuple(_source(source, folder) for source in data.eval_sources),
            }
        ),
        "loss": loss.model_copy(update={"name": _resolved_plugin(loss.name, folder)}),
        "run": run.model_copy(
            update={
                key: {_resolved_plugin(name, folder): value for name, value in settings.items()}
                for key, settings in (("callbacks", run.callbacks), ("observers", run.observers))
            }
        ),
    }
    return recipe.model_copy(update=update)


def _source(source: SourceOptions, folder: Path) -> SourceOptions:
    return source.model_copy(
        update={
            "path": _resolved(source.path, folder),
            "images": _resolved(source.images, folder),
            "format": _resolved_plugin(source.format, folder),
        }
    )


def _resolved_plugin(name: str | None, folder: Path) -> str | None:
    return _resolved(name, folder) if name is not None and is_path(name) else name


def _resolved(written: str | None, folder: Path) -> str | None:
    if written is not None:
        path = Path(written).expanduser()
        for candidate in (folder / path, path):  # an absolute path replaces the folder
            if candidate.exists():
                return str(candidate.absolute())
    return written

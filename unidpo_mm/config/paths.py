"""Resolve the relative paths of a recipe, which start at its directory or the current one."""

from pathlib import Path
from typing import Any, TypeVar

from ..plugins import is_path
from .recipe import Recipe
from .sections import SourceOptions

__all__ = ["resolve_paths", "resolve_plugin", "resolve_source", "resolved"]

Source = TypeVar("Source", bound=SourceOptions)


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
    sources, eval_sources = (
        tuple(resolve_source(source, folder) for source in group)
        for group in (data.sources, data.eval_sources)
    )
    update: dict[str, Any] = {
        "model": model.model_copy(
            update={
                "name_or_path": resolved(model.name_or_path, folder),
                "base_name_or_path": resolved(model.base_name_or_path, folder),
                "adapter": resolve_plugin(model.adapter, folder),
            }
        ),
        "data": data.model_copy(update={"sources": sources, "eval_sources": eval_sources}),
        "loss": loss.model_copy(update={"name": resolve_plugin(loss.name, folder)}),
        "run": run.model_copy(
            update={
                key: {resolve_plugin(name, folder): value for name, value in settings.items()}
                for key, settings in (("callbacks", run.callbacks), ("observers", run.observers))
            }
        ),
    }
    return recipe.model_copy(update=update)


def resolve_source(source: Source, folder: Path) -> Source:
    """Return a source with absolute paths of its file, images and format."""
    return source.model_copy(
        update={
            "path": resolved(source.path, folder),
            "images": resolved(source.images, folder),
            "format": resolve_plugin(source.format, folder),
        }
    )


def resolve_plugin(name: str | None, folder: Path) -> str | None:
    """Return the absolute path of a plugin that is named by its file; other names unchanged."""
    return resolved(name, folder) if name is not None and is_path(name) else name


def resolved(written: str | None, folder: Path) -> str | None:
    """Return the absolute path of something that exists; otherwise the text unchanged."""
    if written is not None:
        path = Path(written).expanduser()
        for candidate in (folder / path, path):  # an absolute path replaces the folder
            if candidate.exists():
                return str(candidate.absolute())
    return written

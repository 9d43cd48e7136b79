"""The frameworks whose files can be migrated, and by which keys a file is recognised."""

from ..errors import Problem, RecipeError
from ..recipe.yaml_loader import Document
from . import llama_factory, official_text, trl
from .arguments import ARGUMENTS
from .draft import Origin

__all__ = ["ORIGINS", "recognise"]

ORIGINS: tuple[Origin, ...] = (llama_factory.ORIGIN, official_text.ORIGIN, trl.ORIGIN)


def recognise(document: Document) -> Origin:
    """Return the origin with the most keys that no other one has.

    Raises:
        RecipeError: If there is none, or not one.
    """
    data = document.data
    if {"model", "data"} <= data.keys():
        remedy = f"Run it: unidpo-mm train {document.name}"
        raise RecipeError(Problem(document.name, "it is a recipe already", remedy))
    signs = {origin.title: [key for key in data if _is_sign(key, origin)] for origin in ORIGINS}
    first, second, *_ = sorted(ORIGINS, key=lambda origin: -len(signs[origin.title]))
    if len(signs[first.title]) > len(signs[second.title]):
        return first
    known = "; ".join(f"{origin.title}: {origin.sign}" for origin in ORIGINS)
    remedy = f"Give a file of one of these frameworks ({known})"
    if not signs[first.title]:
        problem = f"its keys are those of no known framework: {', '.join(data) or '(none)'}"
    else:
        keys = "; ".join(f"{o.title}: {', '.join(signs[o.title])}" for o in (first, second))
        problem = f"it has as many keys of one framework as of another ({keys})"
    raise RecipeError(Problem(document.name, problem, remedy))


def _is_sign(key: str, origin: Origin) -> bool:
    """Whether a key is of one origin alone; arguments of the Trainer are everybody's."""
    if key in ARGUMENTS or key not in origin.keys or origin.keys[key].ours == f"train.{key}":
        return False
    return not any(key in other.keys for other in ORIGINS if other is not origin)

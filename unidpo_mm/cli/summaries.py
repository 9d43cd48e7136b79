"""Read the summary of a command or plugin from its source, without importing it."""

import ast
import sys
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import EntryPoint
from pathlib import Path

__all__ = ["first_line", "first_line_of_file"]


def first_line(point: EntryPoint) -> str:
    """Return the first line of the docstring of a function or else its module; empty if none."""
    spec = _spec(point.module)
    if spec is None or not (spec.origin or "").endswith(".py"):
        return ""
    return first_line_of_file(Path(str(spec.origin)), point.attr)


def first_line_of_file(path: Path, name: str = "") -> str:
    """Return the first line of the docstring of a function, class or else its file."""
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return ""
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    named = [node for node in tree.body if isinstance(node, kinds) and node.name == name]
    texts = [ast.get_docstring(node) for node in (*named, tree)]
    lines = [text.strip().splitlines()[0] for text in texts if text and text.strip()]
    return lines[0] if lines else ""


def _spec(module: str) -> ModuleSpec | None:
    """Find a module without importing its packages, as `importlib.util.find_spec` would."""
    paths, spec, name = list(sys.path), None, ""
    for part in module.split("."):
        name = f"{name}.{part}" if name else part
        spec = PathFinder.find_spec(name, paths)
        if spec is None:
            return None
        paths = list(spec.submodule_search_locations or [])
    return spec

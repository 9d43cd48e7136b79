"""No module imports itself through others, not even for type checking or inside a function."""

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = (ROOT / "unidpo_mm", ROOT / "model_adapters", ROOT / "eval" / "unidpo_mm_eval")


def modules() -> dict[str, Path]:
    """Return the file of each module by its dotted name; of a package, its ``__init__.py``."""
    paths = {}
    for package in PACKAGES:
        for path in sorted(package.rglob("*.py")):
            parts = path.relative_to(package.parent).with_suffix("").parts
            paths[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return paths


def imports_of(name: str, path: Path, names: Mapping[str, Path]) -> Iterator[str]:
    """Yield the modules of this project that a module imports anywhere in its file.

    That importing a module also runs its parent packages is left aside: a package may re-export
    what its modules define.
    """
    package = name if path.stem == "__init__" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            module = ".".join([*(above if node.level else ()), *filter(None, [node.module])])
            for alias in node.names:
                inner = f"{module}.{alias.name}"
                if inner in names or module in names:
                    yield inner if inner in names else module


def cycles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Return the strongly connected components with a cycle, by Tarjan's algorithm."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    components = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for target in graph[node]:
            if target not in index:
                visit(target)
                low[node] = min(low[node], low[target])
            elif target in stack:
                low[node] = min(low[node], index[target])
        if low[node] == index[node]:
            component = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(component) > 1 or node in graph[node]:
                components.append(sorted(component))

    for node in graph:
        if node not in index:
            visit(node)
    return sorted(components)


def test_no_module_imports_itself_through_others():
    paths = modules()
    graph = {name: set(imports_of(name, path, paths)) for name, path in paths.items()}
    assert len(graph) > 200
    components = cycles(graph)
    assert not components, "\n".join(
        f"{name} -> {', '.join(sorted(graph[name] & set(component)))}"
        for component in components
        for name in component
    )


def test_every_kind_of_import_is_an_edge_and_a_cycle_is_listed_once():
    """Imports of every kind make an edge, and a component is listed once."""
    assert cycles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"d", "a"}}) == [["b", "c"], ["d"]]
    path = ROOT / "unidpo_mm" / "__init__.py"
    edges = set(imports_of("unidpo_mm", path, modules()))
    assert edges == {"unidpo_mm.config.python", "unidpo_mm.training.trainer"}

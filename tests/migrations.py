"""Migrate configurations in tests."""

from pathlib import Path

from unidpo_mm.config import Recipe, load_recipe
from unidpo_mm.config.checks.recipe import check_loss, check_train
from unidpo_mm.migrate import migrate


def migrate_text(
    directory: Path, text: str, framework: str, name: str = "config.yaml"
) -> tuple[Recipe, dict[str, str]]:
    """Return the recipe, read as `unidpo-mm train` reads it, and the notes by key."""
    (directory / name).write_text(text)
    result = migrate(directory / name)
    assert result.framework == framework
    (directory / "recipe.yaml").write_text(result.recipe)
    notes: dict[str, list[str]] = {}
    for note in result.notes:
        notes.setdefault(note.key, []).append(note.text)
    recipe = load_recipe(directory / "recipe.yaml", checks=(check_loss, check_train))
    return recipe, {key: "; ".join(texts) for key, texts in notes.items()}

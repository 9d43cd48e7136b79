"""Migrates files in tests, and reads what comes out."""

from pathlib import Path

from unidpo_mm.migrate import migrate
from unidpo_mm.recipe import Recipe, load_recipe
from unidpo_mm.training.recipe_checks import check_loss, check_train


def migrated(folder: Path, text: str, origin: str) -> tuple[Recipe, dict[str, str]]:
    """Return the recipe, read as `unidpo-mm train` reads it, and the notes by key."""
    (folder / "theirs.yaml").write_text(text)
    result = migrate(folder / "theirs.yaml")
    assert result.origin == origin
    (folder / "recipe.yaml").write_text(result.recipe)
    notes: dict[str, list[str]] = {}
    for note in result.notes:
        notes.setdefault(note.key, []).append(note.text)
    recipe = load_recipe(folder / "recipe.yaml", checks=(check_loss, check_train))
    return recipe, {key: "; ".join(texts) for key, texts in notes.items()}

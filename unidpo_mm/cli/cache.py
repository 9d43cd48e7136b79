"""`unidpo-mm cache`: what is kept on disk, whether it is whole, and how to get rid of it."""

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ..cache.feature_store import FeaturesInfo
    from ..cache.reference_store import StoreInfo, Verified

__all__ = ["cache"]


def _existing(folder: Path | None) -> Path | None:
    """Return the directory that an option states.

    Raises:
        typer.BadParameter: If it is not a directory.
    """
    if folder is not None and not folder.is_dir():
        state = "is not a directory" if folder.exists() else "does not exist"
        raise typer.BadParameter(f"'{folder}' {state}", param_hint="--folder")
    return folder


Folder = Annotated[
    Path | None,
    typer.Option(
        help="Folder of the stores in place of the cache folder's.",
        show_default=False,
        callback=_existing,
    ),
]

cache = typer.Typer(
    help="Show, check or remove what is kept on disk: references and features of images.",
    no_args_is_help=True,
)


@cache.command("info", epilog="Example: unidpo-mm cache info")
def info(folder: Folder = None) -> None:
    """List the stores: whose log-probabilities, how many answers, how large, when last used."""
    from ..cache.reference_store import open_stores, references_folder

    place = folder or references_folder()
    stores = list(open_stores(place))
    typer.echo(f"{place}: {_counted(len(stores), 'store')}, {_size(_bytes(stores))}")
    for path, found in stores:
        typer.echo(f"  {path.name[:12]}  {_line(found)}")
    for features in _features(folder):
        typer.echo(
            f"  {features.path.name[:12]}  features of images: "
            f"{_counted(features.entries, 'prompt')}, {_size(features.size)}, "
            f"last used {_day(features.used)}"
        )


@cache.command("verify", epilog="Example: unidpo-mm cache verify")
def verify(folder: Folder = None) -> None:
    """Read every entry; repair the stores that are damaged, or remove them."""
    from ..cache.feature_store import verify_features
    from ..cache.reference_store import open_stores, verify_store

    for path, _ in open_stores(folder):
        typer.echo(f"  {path.name[:12]}  {_verified(path, verify_store(path))}")
    for features in verify_features() if folder is None else []:
        line = f"features of images: {features.kept} intact, {features.removed} removed"
        if features.reason:
            line = f"features of images: {features.reason}: removed"
        typer.echo(f"  {features.path.name[:12]}  {line}")


def _verified(path: Path, result: "Verified") -> str:
    """Return what was done with a store, and what is left to do."""
    kept = _counted(result.kept or 0, "entry", "entries")
    if result.action == "intact":
        return f"{kept} intact"
    if result.action == "repaired":
        return f"{kept} kept, {'the rest' if result.removed is None else result.removed} removed"
    if result.action == "removed":
        return f"cannot be read ({result.reason}): removed"
    if result.action == "moved":
        return f"cannot be read ({result.reason}): moved to {path.name}.damaged"
    return f"not checked ({result.reason}): close what uses it, or check the permissions of {path}"


@cache.command("prune", epilog="Example: unidpo-mm cache prune --days 30")
def prune(
    folder: Folder = None,
    days: Annotated[
        int,
        typer.Option(help="Remove stores that were not used for so many days; 0 for all.", min=0),
    ] = 30,
) -> None:
    """Remove the stores that were not used of late."""
    from ..cache.reference_store import open_stores, remove_store

    oldest = datetime.now(UTC) - timedelta(days=days)
    stores = list(open_stores(folder))
    removed = [
        (path, found)
        for path, found in stores
        if found is None or days == 0 or datetime.fromtimestamp(found.used, UTC) < oldest
    ]
    features = _features(folder)
    old = [f for f in features if days == 0 or datetime.fromtimestamp(f.used, UTC) < oldest]
    freed = _bytes(removed) + sum(found.size for found in old)
    for path, _ in removed:
        remove_store(path)
    for found_features in old:
        shutil.rmtree(found_features.path, ignore_errors=True)
    gone, known = len(removed) + len(old), len(stores) + len(features)
    typer.echo(f"{_counted(gone, 'store')} removed, {_size(freed)} freed, {known - gone} kept")


def _line(found: "StoreInfo | None") -> str:
    if found is None:
        return "cannot be read; unidpo-mm cache verify repairs or removes it"
    return (
        f"{found.model or '(unnamed)'}, {found.settings.get('compute', '?')}: {found.entries} "
        f"answers, {_size(found.size)}, last used {_day(found.used)}"
    )


def _features(folder: Path | None) -> "list[FeaturesInfo]":
    """Return the stores of features, which lie in the cache folder alone."""
    from ..cache.feature_store import stored_features

    return stored_features() if folder is None else []


def _day(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"


def _bytes(stores: "list[tuple[Path, StoreInfo | None]]") -> int:
    return sum(path.lstat().st_size for path, _ in stores)


def _size(number: int) -> str:
    return f"{number / 2**20:.1f} MiB"


def _counted(number: int, noun: str, several: str = "") -> str:
    return f"{number} {noun if number == 1 else several or f'{noun}s'}"

"""`unidpo-mm cache`: what is kept on disk, whether it is whole, and how to get rid of it."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ..cache.reference_store import StoreInfo

__all__ = ["cache"]

Folder = Annotated[
    Path | None,
    typer.Option(help="Folder of the stores in place of the cache folder's.", show_default=False),
]

cache = typer.Typer(
    help="Show, check or remove what is kept on disk: reference log-probabilities.",
    no_args_is_help=True,
)


@cache.command("info")
def info(folder: Folder = None) -> None:
    """List the stores: whose log-probabilities, how many answers, how large, when last used."""
    from ..cache.reference_store import open_stores, references_folder

    place = folder or references_folder()
    stores = list(open_stores(place))
    typer.echo(f"{place}: {_counted(len(stores), 'store')}, {_size(_bytes(stores))}")
    for path, found in stores:
        typer.echo(f"  {path.name[:12]}  {_line(found)}")


@cache.command("verify")
def verify(folder: Folder = None) -> None:
    """Read every entry and remove those that are damaged; unreadable files are removed whole."""
    from ..cache.reference_store import drop_damaged, open_stores

    for path, found in open_stores(folder):
        if found is None:
            path.unlink()
            typer.echo(f"  {path.name[:12]}  cannot be read: removed")
        else:
            dropped = drop_damaged(path)
            whole = found.entries - dropped
            typer.echo(f"  {path.name[:12]}  {whole} entries are whole, {dropped} removed")


@cache.command("prune")
def prune(
    folder: Folder = None,
    days: Annotated[
        int, typer.Option(help="Remove stores that were not used for so many days; 0 for all.")
    ] = 30,
) -> None:
    """Remove the stores that were not used of late."""
    from ..cache.reference_store import open_stores

    oldest = datetime.now(UTC) - timedelta(days=days)
    stores = list(open_stores(folder))
    removed = [
        (path, found)
        for path, found in stores
        if found is None or days == 0 or datetime.fromtimestamp(found.used, UTC) < oldest
    ]
    freed = _bytes(removed)
    for path, _ in removed:
        path.unlink()
    typer.echo(
        f"{_counted(len(removed), 'store')} removed, {_size(freed)} freed, "
        f"{len(stores) - len(removed)} kept"
    )


def _line(found: "StoreInfo | None") -> str:
    if found is None:
        return "cannot be read; unidpo-mm cache verify removes it"
    used = datetime.fromtimestamp(found.used, UTC)
    return (
        f"{found.model or '(unnamed)'}, {found.settings.get('compute', '?')}: {found.entries} "
        f"answers, {_size(found.size)}, last used {used:%Y-%m-%d %H:%M} UTC"
    )


def _bytes(stores: "list[tuple[Path, StoreInfo | None]]") -> int:
    return sum(path.stat().st_size for path, _ in stores)


def _size(number: int) -> str:
    return f"{number / 2**20:.1f} MiB"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"

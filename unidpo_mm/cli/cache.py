"""`unidpo-mm cache`: list, verify and remove what is kept on disk."""

import shutil
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import counted

if TYPE_CHECKING:
    from ..cache.stores import StoreCheck, StoreInfo

__all__ = ["cache"]


def _existing(directory: Path | None) -> Path | None:
    """Return the cache directory that the option states.

    Raises:
        typer.BadParameter: If it is not a directory.
    """
    if directory is not None and not directory.is_dir():
        state = "is not a directory" if directory.exists() else "does not exist"
        raise typer.BadParameter(f"'{directory}' {state}", param_hint="--directory")
    return directory


Directory = Annotated[
    Path | None,
    typer.Option(
        help="Cache directory. [default: $UNIDPO_MM_CACHE or ~/.cache/unidpo-mm]",
        callback=_existing,
    ),
]

cache = typer.Typer(
    help="List, verify or remove cached reference log-probs, image features, rows and row lengths.",
    no_args_is_help=True,
)


@cache.command("info", epilog="Example: unidpo-mm cache info")
def info(directory: Directory = None) -> None:
    """List the stores with model, entries, size and last use."""
    from ..cache.directory import cache_directory

    stores = _stores(directory)
    typer.echo(f"{cache_directory(directory)}: {counted(len(stores), 'store')}, {_size(stores)}")
    for store in stores:
        typer.echo(_line(store))


@cache.command("verify", epilog="Example: unidpo-mm cache verify --dry-run")
def verify(
    directory: Directory = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Report damage only, without repairing it.")
    ] = False,
) -> None:
    """Check every entry; repair or remove damaged stores."""
    from ..cache.feature_store import verify_features
    from ..cache.question_store import verify_questions
    from ..cache.reference_store import verify_references
    from ..cache.row_files import verify_row_files
    from ..cache.row_index import verify_row_indexes

    kinds = (
        *(verify_references, verify_features, verify_row_indexes, verify_row_files),
        verify_questions,
    )
    for verify_kind in kinds:
        for result in verify_kind(directory, dry_run=dry_run):
            typer.echo(f"  {result.path.name[:12]}  {_outcome(result)}")


@cache.command("prune", epilog="Example: unidpo-mm cache prune --days 30 --dry-run")
def prune(
    directory: Directory = None,
    days: Annotated[
        int, typer.Option(help="Remove stores not used for this number of days; 0 for all.", min=0)
    ] = 30,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the stores only, without removing them.")
    ] = False,
) -> None:
    """Remove stores that have not been used recently or cannot be read."""
    from ..cache.reference_store import remove_store

    oldest = datetime.now(UTC) - timedelta(days=days)
    stores = _stores(directory)
    removed = [
        store
        for store in stores
        if store.entries is None or not days or datetime.fromtimestamp(store.used, UTC) < oldest
    ]
    for store in removed:
        typer.echo(_line(store))
        if not dry_run and store.kind in ("features", "data"):
            shutil.rmtree(store.path, ignore_errors=True)
        elif not dry_run:
            remove_store(store.path)
    verb = "to remove" if dry_run else "removed"
    remaining = len(stores) - len(removed)
    typer.echo(f"{counted(len(removed), 'store')} {verb} ({_size(removed)}), {remaining} kept")


def _stores(directory: Path | None) -> "list[StoreInfo]":
    from ..cache.feature_store import list_features
    from ..cache.question_store import list_questions
    from ..cache.reference_store import list_references
    from ..cache.row_files import list_row_files
    from ..cache.row_index import list_row_indexes

    kinds = (
        *(list_references, list_features, list_row_indexes, list_row_files),
        list_questions,
    )
    return [store for list_kind in kinds for store in list_kind(directory)]


def _line(store: "StoreInfo") -> str:
    name = store.path.name[:12]
    if store.entries is None:
        return f"  {name}  cannot be read; unidpo-mm cache verify repairs or removes it"
    content = f"image features of {counted(store.entries, 'prompt')}"
    if store.kind == "rows":
        content = f"lengths of {counted(store.entries, 'row')}"
    if store.kind == "data":
        content = counted(store.entries, "row")
    if store.kind == "questions":
        content = f"hashes of {counted(store.entries, 'question')}"
    if store.kind == "references":
        compute = store.settings.get("compute", "?")
        content = f"{store.model or '(unnamed)'}, {compute}: {counted(store.entries, 'response')}"
    used = datetime.fromtimestamp(store.used, UTC)
    return f"  {name}  {content}, {_size([store])}, last used {used:%Y-%m-%d %H:%M} UTC"


def _outcome(result: "StoreCheck") -> str:
    """Return what was done with a store, and what remains to be done."""
    entries = counted(result.intact or 0, "entry", "entries")
    unreadable = f"cannot be read ({result.reason})"
    match result.action:
        case "intact":
            return f"{entries} intact"
        case "repaired":
            rest = "the rest" if result.damaged is None else result.damaged
            return f"{entries} kept, {rest} removed"
        case "damaged" if not result.reason:
            return f"{entries} intact, {result.damaged} damaged"
        case "removed" | "damaged":
            return f"{unreadable}: {result.action}"
        case "moved":
            return f"{unreadable}: moved to {result.path.name}.damaged"
    return (
        f"not checked ({result.reason}): close the processes that use it, or check the permissions "
        f"of {result.path}"
    )


def _size(stores: "Sequence[StoreInfo]") -> str:
    return f"{sum(store.size for store in stores) / 2**20:.1f} MiB"

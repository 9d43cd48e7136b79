"""Write rows in the native format or in TRL's, with their images and videos next to them."""

import io
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from ..errors import DataError, Problem
from ..records import ImageRef, MediaSlot, Message, Pair, PreferenceRow, VideoRef
from .formats._messages import PLACEHOLDERS
from .images import FileImage, UrlImage
from .scores import form_pairs
from .videos import FileVideo, FramesVideo, MemoryVideo, UrlVideo

__all__ = ["MediaWriter", "labeled", "native", "trl", "write_rows"]

NO_PAIR = (
    "Use the native format, or skip such rows: convert a recipe whose source sets "
    "scores: {ties: drop}"
)

EncodeMedia = Callable[[ImageRef | VideoRef], Any]
"""Writes an image or a video if necessary, and returns its path, or those of its frames."""


def write_rows(rows: Sequence[PreferenceRow], path: Path, layout: Literal["native", "trl"]) -> int:
    """Write rows as JSON lines; return the number of lines.

    Records refer to files of images and videos by path. Those from memory or URLs are written to a
    directory next to the file, each once.

    Args:
        rows: The rows.
        path: A `.jsonl` file; relative image paths start from its directory.
        layout: ``native`` keeps all responses and scores; ``trl`` has one line per pair. Labeled
            responses have a line each in both.

    Raises:
        DataError: If the path does not end in `.jsonl`, or a row has no pair for TRL.
    """
    if path.suffix != ".jsonl":
        problem = f"'{path.name}' does not end in .jsonl"
        raise DataError(Problem(str(path), problem, "Use a path that ends in .jsonl"))
    unpaired = [row for row in rows if not (row.pairs or row.labels)] if layout == "trl" else []
    if unpaired:
        raise DataError(Problem(row.where, "the row has no pair", NO_PAIR) for row in unpaired)
    path.parent.mkdir(parents=True, exist_ok=True)
    media = MediaWriter(path)
    lines = 0
    ids = {row.id for row in rows}
    with path.open("w", encoding="utf-8", errors="backslashreplace") as file:
        for row in rows:
            records: list[dict[str, Any]] = []
            if row.pairs or not row.labels:
                records += [native(row, media)] if layout == "native" else trl(row, media)
            for record in [*records, *labeled(row, media)]:
                while record["id"] != row.id and record["id"] in ids:
                    record["id"] += "'"  # the id of a pair equals that of a row
                ids.add(record["id"])
                file.write(json.dumps(record, ensure_ascii=False) + "\n")
                lines += 1
    return lines


def native(row: PreferenceRow, encode: EncodeMedia) -> dict[str, Any]:
    """Return a row as a record of the format `ranked`; reading it returns the same row."""
    responses = [{"text": response.text, "score": response.score} for response in row.responses]
    default_pairs = {Pair(*pair) for pair in form_pairs(row.responses, "all")}
    unscored = len(responses) > 1 and any(r.score is None for r in row.responses)
    needs_pairs = unscored or default_pairs != set(row.pairs)
    record = {
        "id": row.id,
        "domain": row.domain,
        "prompt": _prompt(row),
        "images": [encode(image) for image in row.images],
        "videos": [encode(video) for video in row.videos],
        "rejected_images": [encode(image) for image in row.other_images],
        "responses": responses,
        "pairs": [[p.chosen, p.rejected, p.weight] for p in row.pairs] if needs_pairs else None,
        "tools": _parsed(row.tools),
        "chat_template_kwargs": _parsed(row.template_kwargs),
    }
    return {
        name: value
        for name, value in record.items()
        if value is not None and (value != [] or name == "pairs")
    }


def trl(row: PreferenceRow, encode: EncodeMedia) -> Iterator[dict[str, Any]]:
    """Yield a record of TRL's preference format for each pair of a row."""
    for number, pair in enumerate(row.pairs):
        chosen, rejected = row.responses[pair.chosen], row.responses[pair.rejected]
        record = {
            "id": row.id if len(row.pairs) == 1 else f"{row.id}-{number}",
            "chosen": _response(row, chosen.text),
            "rejected": _response(row, rejected.text),
            "score_chosen": chosen.score,
            "score_rejected": rejected.score,
        }
        yield _trl_record(row, record, pair.weight, encode)


def labeled(row: PreferenceRow, encode: EncodeMedia) -> Iterator[dict[str, Any]]:
    """Yield a record of TRL's format of labeled responses for each label of a row."""
    for number, label in enumerate(row.labels):
        response = row.responses[label.response]
        single = len(row.labels) == 1 and not row.pairs
        record = {
            "id": row.id if single else f"{row.id}-label-{number}",
            "completion": _response(row, response.text),
            "label": label.good,
            "score": response.score,
        }
        yield _trl_record(row, record, label.weight, encode)


def _trl_record(
    row: PreferenceRow, fields: dict[str, Any], weight: float, encode: EncodeMedia
) -> dict[str, Any]:
    """Return a record of TRL with the fields that all its formats have."""
    record = {
        "id": fields.pop("id"),
        "domain": row.domain,
        "prompt": _prompt(row) if _is_plain(row) else [turn.turn() for turn in row.messages],
        **fields,
        "images": [encode(image) for image in row.images],
        "videos": [encode(video) for video in row.videos],
        "rejected_images": [encode(image) for image in row.other_images],
        "weight": None if weight == 1.0 else weight,
        "tools": _parsed(row.tools),
        "chat_template_kwargs": _parsed(row.template_kwargs),
    }
    return {name: value for name, value in record.items() if value not in (None, [])}


def _is_plain(row: PreferenceRow) -> bool:
    """Return whether a plain prompt stays plain; with media, TRL requires conversations."""
    return row.raw and not row.media


def _parsed(text: str) -> Any:
    return json.loads(text) if text else None


def _prompt(row: PreferenceRow) -> Any:
    """Return a prompt as messages, or as a string if it was one."""
    if not row.raw:
        return [message.turn() for message in row.messages]
    (message,) = row.messages
    leading = len(
        list(itertools.takewhile(lambda part: isinstance(part, MediaSlot), message.parts))
    )
    texts = [
        PLACEHOLDERS[part.kind] if isinstance(part, MediaSlot) else part for part in message.parts
    ]
    # the line break after leading placeholders is dropped when the string is read
    return "".join(f"{mark}\n" for mark in texts[:leading]) + "".join(texts[leading:])


def _response(row: PreferenceRow, text: str) -> Any:
    return text if _is_plain(row) else [Message("assistant", (text,)).turn()]


class MediaWriter:
    """Returns paths of media relative to a file of records; writes those that have no file."""

    def __init__(self, records: Path) -> None:
        self.folder = records.parent.absolute()
        self.inside = self.folder / f"{records.stem}_images"

    def __call__(self, media: ImageRef | VideoRef) -> Any:
        """Return the path of an image or a video, or those of its frames; see `EncodeMedia`."""
        if isinstance(media, FileImage | FileVideo):
            path = media.path.absolute()
            inside = path.is_relative_to(self.folder)
            return (path.relative_to(self.folder) if inside else path).as_posix()
        if isinstance(media, FramesVideo):
            return [self(frame) for frame in media.frames]
        if isinstance(media, MemoryVideo | UrlVideo):
            video = media.content() if isinstance(media, UrlVideo) else media.content
            return self._written(f"{media.key()[:32]}.mp4", lambda path: path.write_bytes(video))
        image: Any = media
        content = (
            image.content() if isinstance(image, UrlImage) else getattr(image, "content", None)
        )
        if isinstance(content, bytes):
            name = f"{image.key()[:32]}{_suffix(content)}"
            return self._written(name, lambda path: path.write_bytes(content))
        return self._written(f"{image.key()[:32]}.png", lambda path: image.open().save(path))

    def _written(self, name: str, write: Callable[[Path], Any]) -> str:
        """Write a file unless it exists; return its path."""
        path = self.inside / name
        if not path.exists():
            self.inside.mkdir(exist_ok=True)
            write(path)
        return path.relative_to(self.folder).as_posix()


def _suffix(content: bytes) -> str:
    """Return the file suffix of an encoded image."""
    from PIL import Image

    try:
        kind = Image.open(io.BytesIO(content)).format or ""
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return ".bin"  # broken images are written unchanged
    return {"JPEG": ".jpg"}.get(kind, f".{kind.lower()}")

"""Writes rows in our native format, or in TRL's, with their images beside them."""

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from ..errors import DataError, Problem
from ..records import ImageRef, ImageSlot, Message, Pair, PreferenceRow
from .images import FileImage, MemoryImage, UrlImage
from .scores import ScoreOptions

__all__ = ["native", "trl", "write_rows"]

NO_PAIR = (
    "Write it as native, or leave such rows out: convert a recipe whose source says "
    "scores: {ties: drop}"
)

EncodeImage = Callable[[ImageRef], str]
"""Writes an image where it has to be written, and returns what names it in a record."""


def write_rows(rows: Sequence[PreferenceRow], path: Path, layout: Literal["native", "trl"]) -> int:
    """Write rows as JSON lines and returns how many lines there are.

    Images in files stay where they are; those in the data and those of URLs are written into a
    folder beside the lines, each once.

    Args:
        rows: What to write.
        path: A `.jsonl` file; its folder is where relative image paths start.
        layout: ``native`` keeps every answer and score; ``trl`` has a line for each pair.

    Raises:
        DataError: If the path is no `.jsonl` file, or a row has no pair for TRL.
    """
    if path.suffix != ".jsonl":
        problem = f"'{path.name}' is to be written"
        raise DataError(Problem(str(path), problem, "Give a path that ends in .jsonl"))
    problems = [
        Problem(row.where, "the row holds no pair", NO_PAIR)
        for row in rows
        if layout == "trl" and not row.pairs
    ]
    if problems:
        raise DataError(problems)
    path.parent.mkdir(parents=True, exist_ok=True)
    image = _Images(path)
    lines = 0
    ids = {row.id for row in rows}
    with path.open("w", encoding="utf-8", errors="backslashreplace") as file:
        for row in rows:
            for record in [native(row, image)] if layout == "native" else trl(row, image):
                while record["id"] != row.id and record["id"] in ids:
                    record["id"] += "'"  # of a pair: a row of that name is there
                ids.add(record["id"])
                file.write(json.dumps(record, ensure_ascii=False) + "\n")
                lines += 1
    return lines


def native(row: PreferenceRow, encode_image: EncodeImage) -> dict[str, Any]:
    """Return a row as a record of the format `ranked`; reading it gives the same row."""
    responses = [{"text": one.text, "score": one.score} for one in row.responses]
    made = {Pair(*pair) for pair in ScoreOptions().pairing(row.responses)}
    unscored = len(responses) > 1 and any(one["score"] is None for one in responses)
    given = unscored or made != set(row.pairs)  # else reading makes the same
    record = {
        "id": row.id,
        "domain": row.domain,
        "prompt": _prompt(row),
        "images": [encode_image(image) for image in row.images],
        "responses": responses,
        "pairs": [[p.chosen, p.rejected, p.weight] for p in row.pairs] if given else None,
        "tools": json.loads(row.tools) if row.tools else None,
        "chat_template_kwargs": _variables(row),
    }
    return {
        name: value
        for name, value in record.items()
        if value is not None and (value != [] or name == "pairs")
    }


def trl(row: PreferenceRow, encode_image: EncodeImage) -> Iterator[dict[str, Any]]:
    """Yield a record of TRL's preference format for each pair of a row.

    Plain text stays plain; with images the prompt is a conversation, as TRL asks for it.
    """
    plain = row.raw and not row.images
    for number, pair in enumerate(row.pairs):
        chosen, rejected = row.responses[pair.chosen], row.responses[pair.rejected]
        record = {
            "id": row.id if len(row.pairs) == 1 else f"{row.id}-{number}",
            "domain": row.domain,
            "prompt": _prompt(row) if plain else [_turn(one) for one in row.messages],
            "chosen": chosen.text if plain else [_answer(chosen.text)],
            "rejected": rejected.text if plain else [_answer(rejected.text)],
            "images": [encode_image(image) for image in row.images],
            "score_chosen": chosen.score,
            "score_rejected": rejected.score,
            "weight": None if pair.weight == 1.0 else pair.weight,
            "tools": json.loads(row.tools) if row.tools else None,
            "chat_template_kwargs": json.loads(row.template_kwargs)
            if row.template_kwargs
            else None,
        }
        yield {name: value for name, value in record.items() if value not in (None, [])}


def _variables(row: PreferenceRow) -> Any:
    return json.loads(row.template_kwargs) if row.template_kwargs else None


def _prompt(row: PreferenceRow) -> Any:
    """Return a prompt as the string that it was, or as messages."""
    if not row.raw:
        return [_turn(message) for message in row.messages]
    (message,) = row.messages
    in_front = list(itertools.takewhile(lambda part: isinstance(part, ImageSlot), message.parts))
    rest = message.parts[len(in_front) :]
    # the line break after a placeholder in front belongs to it and is not read
    return "<image>\n" * len(in_front) + "".join(
        "<image>" if isinstance(part, ImageSlot) else part for part in rest
    )


def _turn(message: Message) -> dict[str, Any]:
    parts: Any = [
        {"type": "image"} if isinstance(part, ImageSlot) else {"type": "text", "text": part}
        for part in message.parts
    ]
    extras = json.loads(message.extras) if message.extras else {}
    return {"role": message.role, "content": parts, **extras}


def _answer(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": [{"type": "text", "text": text}]}


class _Images:
    """Names images relative to a file of records, and writes those that are in no file."""

    def __init__(self, records: Path) -> None:
        self.folder = records.parent.absolute()
        self.inside = self.folder / f"{records.stem}_images"

    def __call__(self, image: ImageRef) -> str:
        if isinstance(image, FileImage):
            path = image.path.absolute()
            inside = path.is_relative_to(self.folder)
            return (path.relative_to(self.folder) if inside else path).as_posix()
        if isinstance(image, UrlImage):
            return self._downloaded(image).relative_to(self.folder).as_posix()
        return self._written(image).relative_to(self.folder).as_posix()

    def _downloaded(self, image: UrlImage) -> Path:
        """Write an image of the web beside the records, which then need no network."""
        content = image.content()
        return self._written(MemoryImage(content, image.where, image.max_pixels))

    def _written(self, image: ImageRef) -> Path:
        self.inside.mkdir(exist_ok=True)
        content = image.content if isinstance(image, MemoryImage) else None
        suffix = _suffix(content) if isinstance(content, bytes) else ".png"
        path = self.inside / f"{image.key()[:32]}{suffix}"
        if path.exists():
            return path
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            image.open().save(path)
        return path


def _suffix(content: bytes) -> str:
    """Return the usual ending of an encoded image's file."""
    import io

    from PIL import Image

    try:
        kind = Image.open(io.BytesIO(content)).format or ""
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return ".bin"  # it is broken, and stays what it is
    return {"JPEG": ".jpg"}.get(kind, f".{kind.lower()}")

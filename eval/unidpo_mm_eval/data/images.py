"""References to images and videos of samples: base64 in a table, or files next to the data."""

from pathlib import Path
from typing import TYPE_CHECKING

from unidpo_mm.errors import DataError, Problem

from .samples import Image, Video

if TYPE_CHECKING:
    from unidpo_mm.records import ImageRef, VideoRef


def image_folder(data: Path, images: Path | None = None) -> Path:
    """Return the directory that image file names are relative to; by default that of the data."""
    return images or (data if data.is_dir() else data.parent)


def image_reference(image: Image, folder: Path, where: str) -> "ImageRef":
    """Return a reference whose `open()` yields the image upright and in RGB.

    File names are relative to `folder`; `where` is for error messages.
    """
    from unidpo_mm.data.images import ImageRules, image_refs
    from unidpo_mm.data.invalid_value import InvalidValue

    if hasattr(image.content, "describe"):  # already a reference, from a row of the core
        reference: ImageRef = image.content
        return reference
    content = str(image.content) if isinstance(image.content, Path) else image.content
    rules = ImageRules(folder=folder, allow_outside=isinstance(image.content, Path))
    try:
        references = image_refs(content, rules, where)
    except InvalidValue as error:
        raise DataError(Problem(where, error.message, error.remedy)) from error
    if len(references) != 1:
        text = f"expected one image, got {len(references)}"
        raise DataError(Problem(where, text, "Use one path, bytes or PIL image"))
    return references[0]


def video_reference(video: Video, folder: Path, where: str) -> "VideoRef":
    """Return a reference to a video, whose frames are sampled when it is used.

    File names are relative to `folder`; `where` is for error messages.
    """
    from unidpo_mm.data.images import ImageRules
    from unidpo_mm.data.invalid_value import InvalidValue
    from unidpo_mm.data.videos import video_refs

    if hasattr(video.content, "describe"):  # already a reference, from a row of the core
        reference: VideoRef = video.content
        return reference
    rules = ImageRules(folder=folder, allow_outside=isinstance(video.content, Path))
    try:
        references = video_refs([video.content], rules, where)
    except InvalidValue as error:
        raise DataError(Problem(where, error.message, error.remedy)) from error
    if len(references) != 1:
        text = f"expected one video, got {len(references)}"
        raise DataError(Problem(where, text, "Use one path, bytes or list of frames"))
    return references[0]

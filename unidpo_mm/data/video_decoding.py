"""Decode sampled frames of video files with PyAV.

The packets of a file are read twice: first without decoding, for the times of all frames, and then
from the key frame before each sampled frame. So the frames of a long clip that are not used are
mostly not decoded.
"""

import bisect
import contextlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import DataError, Problem, VideoError
from ..records import FrameSampling, SampledVideo

__all__ = ["decode_video", "video_problem"]

FALLBACK_FPS = 24.0
"""Frames per second of a file that does not say, as in transformers."""

Source = Path | bytes


def decode_video(
    source: Source, where: str, name: str, sampling: FrameSampling, max_pixels: int
) -> SampledVideo:
    """Return sampled frames of an encoded video, upright and in RGB.

    Args:
        source: A file or its content.
        where: File, row and field, for messages.
        name: The name of the video, for messages.
        sampling: Which frames are used.
        max_pixels: Maximum number of pixels of a frame.

    Raises:
        VideoError: If the video cannot be decoded, or its frames have more pixels.
        DataError: If PyAV is not installed.
    """
    av = _av()
    try:
        index = _FrameIndex.of(av, source)
        if index.width * index.height <= max_pixels:
            indices = sampling.indices(index.total, index.fps)
            frames = _frames(av, source, index, indices)
            return SampledVideo(tuple(map(_upright, frames)), indices, index.total, index.fps)
    except Exception as error:  # decoders raise errors of many kinds
        problem = f"the video '{name}' cannot be read ({_reason(error)})"
        raise VideoError(Problem(where, problem, "Replace the video")) from error
    size = f"{index.width} x {index.height} pixels"
    problem = f"the frames of the video '{name}' have {size} and the limit is {max_pixels:,}"
    remedy = "Scale it down, or increase data.images.max_pixels"
    raise VideoError(Problem(where, problem, remedy))


def video_problem(content: bytes) -> str | None:
    """Return why some content is not a video; `None` if it is one."""
    av = _av()
    try:
        _FrameIndex.of(av, content)
    except Exception as error:  # decoders raise errors of many kinds
        return _reason(error)
    return None


def _av() -> Any:
    """Return the module of PyAV."""
    try:
        import av
    except ImportError as error:
        problem = "there are videos, and the package 'av', which decodes them, is not installed"
        remedy = "Run pip install 'unidpo-mm[video]'"
        raise DataError(Problem("videos", problem, remedy)) from error
    return av


def _reason(error: Exception) -> str:
    """Return the text of an error without the name of the file, which the message has already."""
    text = getattr(error, "strerror", None) or str(error).strip()
    return text or type(error).__name__


@contextlib.contextmanager
def _opened(av: Any, source: Source) -> Iterator[tuple[Any, Any]]:
    """Yield the container of a source, and its video stream."""
    file: Any = io.BytesIO(source) if isinstance(source, bytes) else str(source)
    with av.open(file, mode="r", metadata_errors="ignore") as container:
        if not container.streams.video:
            raise ValueError("it has no video stream")
        yield container, container.streams.video[0]


@dataclass(frozen=True)
class _FrameIndex:
    """The frames of a file.

    Attributes:
        total: Their number.
        fps: Frames per second.
        width, height: Their size before rotation.
        times: The time of each frame, in units of the stream; empty if the file does not say, or as
            in some AVI files has the times of its packets instead.
        keys: The times of the key frames.
    """

    total: int
    fps: float
    width: int
    height: int
    times: tuple[int, ...]
    keys: tuple[int, ...]

    @classmethod
    def of(cls, av: Any, source: Source) -> "_FrameIndex":
        """Return the index of a file, without decoding frames."""
        with _opened(av, source) as (container, stream):
            packets = [
                (packet.pts, packet.is_keyframe)
                for packet in container.demux(stream)
                if packet.size and not packet.is_discard
            ]
            if not packets:
                raise ValueError("it has no frames")
            context = stream.codec_context
            times = [pts for pts, _ in packets]
            # frames that depend on later ones are never stored in the order of their times
            timed = None not in times and not (context.has_b_frames and times == sorted(times))
            return cls(
                total=len(packets),
                fps=float(stream.average_rate or stream.guessed_rate or FALLBACK_FPS),
                width=context.width,
                height=context.height,
                times=tuple(sorted(times)) if timed else (),
                keys=tuple(sorted(pts for pts, key in packets if key)) if timed else (),
            )


def _frames(av: Any, source: Source, index: _FrameIndex, indices: Sequence[int]) -> list[Any]:
    """Return the frames with some indices, in ascending order."""
    if index.times:
        with contextlib.suppress(av.FFmpegError), _opened(av, source) as (container, stream):
            times = [index.times[number] for number in indices]
            return list(_at_times(container, stream, times, index.keys))
    with _opened(av, source) as (container, stream):  # the file has no times, or cannot be searched
        return list(_in_order(container.decode(stream), indices))


def _at_times(
    container: Any, stream: Any, times: Sequence[int], keys: Sequence[int]
) -> Iterator[Any]:
    """Yield the frames at some times, by decoding from the key frame before each of them."""
    frames: Iterator[Any] = iter(())
    frame = None
    for time in times:
        key = keys[max(bisect.bisect_right(keys, time) - 1, 0)] if keys else time
        if frame is None or key > frame.pts:
            container.seek(key, stream=stream)
            frames = container.decode(stream)
            frame = next(frames)
        while frame.pts < time and (following := next(frames, None)) is not None:
            frame = following
        yield frame


def _in_order(frames: Iterator[Any], indices: Sequence[int]) -> Iterator[Any]:
    """Yield the frames with some indices; the last frame stands for those that are missing."""
    number, frame = 0, next(frames)
    for index in indices:
        while number < index and (following := next(frames, None)) is not None:
            number, frame = number + 1, following
        yield frame


def _upright(frame: Any) -> Any:
    """Return a frame as a `PIL.Image.Image`, rotated as its file says."""
    image = frame.to_image()
    return image.rotate(frame.rotation, expand=True) if frame.rotation else image

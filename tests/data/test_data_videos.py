"""Videos of rows: decoding, sampling, the forms in which data have them, and their errors."""

import json
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import gray_frames, make_clip, make_image, row, write_video
from PIL import Image

from unidpo_mm.config import SourceOptions
from unidpo_mm.data import download as download_module
from unidpo_mm.data import video_decoding as decoding
from unidpo_mm.data.convert import write_rows
from unidpo_mm.data.digest import data_digest, difference
from unidpo_mm.data.groups import group_by_prompt
from unidpo_mm.data.images import MemoryImage
from unidpo_mm.data.load import ReadOptions, load_rows, read_records, rows_from_records
from unidpo_mm.data.preflight import survey
from unidpo_mm.data.split import split_rows
from unidpo_mm.data.video_decoding import decode_video
from unidpo_mm.data.videos import FileVideo, FramesVideo, MemoryVideo, UrlVideo
from unidpo_mm.errors import DataError, VideoError
from unidpo_mm.records import FrameSampling, MediaSlot, PreferenceRow

PAIR: dict[str, Any] = {"prompt": "What?", "chosen": "yes", "rejected": "no"}
LIMIT = 10**8
DEFAULT = FrameSampling()


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a video of 60 frames at 10 per second, with a key frame every six frames."""
    return write_video(tmp_path_factory.mktemp("clip") / "clip.mp4", gray_frames(60))


def brightness(frames: Any) -> list[int]:
    """Return the index of each frame of `gray_frames`."""
    return [round(np.asarray(frame).mean() / 4) for frame in frames]


def videos_of(value: Any, name: str = "videos", **changed: Any) -> tuple[Any, ...]:
    (loaded,) = rows_from_records([{**PAIR, name: value, **changed}])
    return loaded.videos


# ---- sampling and decoding ----


@pytest.mark.parametrize(
    ("sampling", "total", "fps", "expected"),
    [
        (FrameSampling(2.0, 32), 60, 10.0, [0, 5, 11, 16, 21, 27, 32, 38, 43, 48, 54, 59]),
        (FrameSampling(2.0, 4), 60, 10.0, [0, 20, 39, 59]),
        (FrameSampling(2.0, 32), 10, 10.0, [0, 3, 6, 9]),  # at least four frames
        (FrameSampling(2.0, 32), 3, 10.0, [0, 1, 2]),
        (FrameSampling(2.0, 32), 1, 10.0, [0, 0]),
        (FrameSampling(2.0, 4, exact=True), 2, 10.0, [0, 0, 1, 1]),
        (FrameSampling(2.0, 3, exact=True), 60, 10.0, [0, 30, 59]),
    ],
)
def test_frames_are_spread_evenly_over_the_whole_clip(
    sampling: FrameSampling, total: int, fps: float, expected: list[int]
) -> None:
    assert list(sampling.indices(total, fps)) == expected


def test_indices_are_those_of_the_processor_of_qwen3_vl() -> None:
    from transformers import Qwen3VLVideoProcessor
    from transformers.video_utils import VideoMetadata

    processor, draw = Qwen3VLVideoProcessor(), random.Random(0)
    for _ in range(200):
        total, fps = draw.randint(4, 3000), draw.choice([10.0, 23.976, 25.0, 29.97, 60.0])
        expected = processor.sample_frames(VideoMetadata(total, fps=fps), fps=2.0)
        assert FrameSampling(2.0, 768).indices(total, fps) == tuple(expected.tolist())


@pytest.mark.parametrize("in_memory", [False, True])
def test_sampled_frames_are_those_at_their_indices(clip: Path, in_memory: bool) -> None:
    source = clip.read_bytes() if in_memory else clip
    video = decode_video(source, "here", "clip", FrameSampling(2.0, 8), LIMIT)
    assert (video.total, video.fps) == (60, 10.0)
    assert brightness(video.frames) == list(video.indices) == [0, 8, 17, 25, 34, 42, 51, 59]
    assert video.metadata["frames_indices"] == list(video.indices)
    assert video.metadata["duration"] == 6.0


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mkv", "libx264"), ("a.webm", "libvpx-vp9"), ("a.avi", "libx264"), ("a.h264", "libx264")],
)
def test_frames_are_found_in_every_container(tmp_path: Path, name: str, codec: str) -> None:
    """Not every container has times, or can be searched."""
    path = write_video(tmp_path / name, gray_frames(40), codec=codec)
    video = decode_video(path, "here", name, FrameSampling(3.0, 7), LIMIT)
    assert video.total == 40
    assert brightness(video.frames) == list(video.indices)


def test_frames_of_long_clips_are_decoded_from_the_nearest_key_frame(
    clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = []
    at_times = decoding._at_times

    def counted(container: Any, *args: Any) -> Any:
        decode = container.decode

        class Counting:
            def seek(self, *arguments: Any, **options: Any) -> None:
                container.seek(*arguments, **options)

            def decode(self, stream: Any) -> Any:
                for frame in decode(stream):
                    decoded.append(frame.pts)
                    yield frame

        return at_times(Counting(), *args)

    monkeypatch.setattr(decoding, "_at_times", counted)
    video = decode_video(clip, "here", "clip", FrameSampling(2.0, 2), LIMIT)
    assert brightness(video.frames) == [0, 59]
    assert len(decoded) <= 8, "frames between the sampled ones were decoded"


def test_frames_are_rotated_as_their_file_says(tmp_path: Path) -> None:
    class Rotated:
        rotation = 90

        def to_image(self) -> Image.Image:
            return make_image(1, (40, 20))

    assert decoding._upright(Rotated()).size == (20, 40)


def test_larger_frames_than_allowed_are_refused(clip: Path) -> None:
    with pytest.raises(VideoError, match=r"have 64 x 48 pixels and the limit is 1,000"):
        decode_video(clip, "here", "clip", DEFAULT, 1000)


def test_a_missing_package_is_reported_once_with_its_extra(
    clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    rows = rows_from_records([{**PAIR, "videos": [str(clip)]}] * 5)

    class Adapter:
        processor = object()

        def encode(self, example: PreferenceRow) -> Any:
            return example.videos[0].sample(DEFAULT)

    adapter: Any = Adapter()
    _, problems = survey(rows, adapter, max_skipped_fraction=0.9)
    (problem,) = problems
    assert problem.remedy == "Run pip install 'unidpo-mm[video]'"


# ---- forms in the data ----


def test_videos_come_in_every_form(clip: Path, tmp_path: Path) -> None:
    content = clip.read_bytes()
    frames = []
    for number, frame in enumerate(gray_frames(5)):
        frame.save(tmp_path / f"{number}.png")
        frames.append(str(tmp_path / f"{number}.png"))
    array = np.stack([np.asarray(frame) for frame in gray_frames(5)])
    forms: dict[str, tuple[Any, type]] = {
        "path": (str(clip), FileVideo),
        "Path": (clip, FileVideo),
        "file URL": (f"file://{clip}", FileVideo),
        "bytes": (content, MemoryVideo),
        "dict of bytes": ({"bytes": content, "path": None}, MemoryVideo),
        "dict of path": ({"bytes": None, "path": str(clip)}, FileVideo),
        "frames": (frames, FramesVideo),
        "images": (gray_frames(5), FramesVideo),
        "array": (array, FramesVideo),
    }
    for name, (value, kind) in forms.items():
        (video,) = videos_of([value])
        assert isinstance(video, kind), name
        sampled = video.sample(FrameSampling(2.0, 4))
        total = 60 if kind is not FramesVideo else 5
        assert sampled.total == total, name
        assert brightness(sampled.frames) == list(sampled.indices), name
    assert [type(v) for v in videos_of([frames, str(clip)])] == [FramesVideo, FileVideo]
    assert len(videos_of(frames, "video")) == 1  # a list in `video` has the frames of one video
    assert len(videos_of([str(clip), str(clip)], "video")) == 2
    for empty in (None, [], "", [None], [[]], {"bytes": None, "path": None}):
        assert videos_of(empty) == ()


def test_frames_have_the_frame_rate_of_the_run() -> None:
    (video,) = videos_of([gray_frames(9)])
    sampled = video.sample(FrameSampling(4.0, 5))
    assert (sampled.fps, sampled.total, sampled.indices) == (4.0, 9, (0, 2, 4, 6, 8))
    mixed = FramesVideo(
        tuple(MemoryImage(f, "here") for f in (make_image(1), make_image(2, (8, 6))))
    )
    assert {frame.size for frame in mixed.sample(DEFAULT).frames} == {(40, 30)}


@pytest.mark.parametrize(
    "record",
    [
        {"prompt": "<video>\nWhat?", "videos": ["{clip}"]},
        {"prompt": "What?", "videos": ["{clip}"]},
        {"prompt": "What?", "video": "{clip}"},
        {"prompt": [{"role": "user", "content": [
            {"type": "video", "video": "{clip}"}, {"type": "text", "text": "What?"}]}]},
        {"prompt": [{"role": "user", "content": [
            {"type": "video_url", "video_url": {"url": "{clip}"}},
            {"type": "text", "text": "What?"}]}]},
        {"prompt": [{"role": "user", "content": [
            {"type": "video"}, {"type": "text", "text": "What?"}]}], "videos": ["{clip}"]},
        {"prompt": [{"role": "user", "content": "<video>What?"}], "videos": ["{clip}"]},
    ],
)  # fmt: skip
def test_a_video_precedes_the_question(clip: Path, record: dict[str, Any]) -> None:
    written = json.loads(json.dumps({**PAIR, **record}).replace("{clip}", str(clip)))
    (loaded,) = rows_from_records([written])
    assert loaded.messages[-1].parts == (MediaSlot("video"), "What?")
    assert loaded.domain == "multimodal"
    assert loaded.videos[0].describe() == str(clip)


def test_images_and_videos_keep_their_places() -> None:
    record = {
        **PAIR,
        "prompt": "<image>Before <video> after <video><image>",
        "images": [make_image(1), make_image(2)],
        "videos": [gray_frames(2), gray_frames(3)],
    }
    (loaded,) = rows_from_records([record])
    image, video = MediaSlot("image"), MediaSlot("video")
    assert loaded.messages[0].parts == (image, "Before ", video, " after ", video, image)


def test_in_a_row_without_videos_the_placeholder_is_text() -> None:
    """The text may be about HTML, whose element has this name."""
    prompt = "How do I use <video> in a page?"
    (loaded,) = rows_from_records([{**PAIR, "prompt": prompt}])
    assert loaded.messages[0].parts == (prompt,)


@pytest.mark.parametrize(
    "record",
    [
        # LLaMA-Factory, sharegpt
        {"conversations": [{"from": "human", "value": "<video>What?"}],
         "chosen": {"from": "gpt", "value": "yes"}, "rejected": {"from": "gpt", "value": "no"}},
        # LLaMA-Factory, alpaca
        {"instruction": "<video>What?", "input": "", "chosen": "yes", "rejected": "no"},
        # ms-swift
        {"messages": [{"role": "user", "content": "<video>What?"},
                      {"role": "assistant", "content": "yes"}], "rejected_response": "no"},
        # TRL, with a prompt and with an implicit one
        {"prompt": [{"role": "user", "content": [
            {"type": "video"}, {"type": "text", "text": "What?"}]}],
         "chosen": [{"role": "assistant", "content": "yes"}],
         "rejected": [{"role": "assistant", "content": "no"}]},
        {"chosen": [{"role": "user", "content": "<video>What?"},
                    {"role": "assistant", "content": "yes"}],
         "rejected": [{"role": "user", "content": "<video>What?"},
                      {"role": "assistant", "content": "no"}]},
    ],
)  # fmt: skip
def test_formats_of_other_frameworks_have_videos(clip: Path, record: dict[str, Any]) -> None:
    loaded = read_records([{**record, "videos": [str(clip)]}])
    assert not loaded.problems
    (loaded_row,) = loaded.rows
    assert loaded_row.messages[-1].parts == (MediaSlot("video"), "What?")
    assert [response.text for response in loaded_row.responses] == ["yes", "no"]
    assert len(loaded_row.videos) == 1
    assert not loaded.reports[0].unread


def test_a_registry_of_llama_factory_maps_the_column_of_videos(clip: Path, tmp_path: Path) -> None:
    entry = {
        "file_name": "rows.json",
        "formatting": "sharegpt",
        "ranking": True,
        "columns": {"chosen": "good", "rejected": "bad", "videos": "clips"},
    }
    record = {
        "conversations": [{"from": "human", "value": "<video>What?"}],
        "good": {"from": "gpt", "value": "yes"},
        "bad": {"from": "gpt", "value": "no"},
        "clips": [str(clip)],
    }
    (tmp_path / "dataset_info.json").write_text(json.dumps({"mine": entry}))
    (tmp_path / "rows.json").write_text(json.dumps([record]))
    source = SourceOptions(path=str(tmp_path / "dataset_info.json"), subset="mine")
    (loaded,) = load_rows([source])
    assert loaded.videos[0].describe() == str(clip)


# ---- keys, copies and downloads ----


def test_another_video_is_another_row(clip: Path, tmp_path: Path) -> None:
    other = write_video(tmp_path / "other.mp4", make_clip(1, 12))
    first, second = (
        rows_from_records([{**PAIR, "id": "a", "videos": [str(path)]}]) for path in (clip, other)
    )
    assert "1 row changed" in difference(data_digest(first), data_digest(second), second)[0]
    rows = [row(f"r{n}", "What?", ("a", f"b{n}"), videos=[make_clip(n % 2, 2)]) for n in range(4)]
    joined = group_by_prompt(rows, max_units=4)
    assert [len(group.pairs) for group in joined] == [2, 2]
    training, held_out = split_rows(rows, 0.5, seed=0)
    keys = [{example.videos[0].key() for example in part} for part in (training, held_out)]
    assert len(keys[0]) == len(keys[1]) == 1
    assert keys[0] != keys[1]


def test_the_digest_of_rows_without_videos_is_that_of_earlier_versions() -> None:
    rows = rows_from_records([{**PAIR, "id": "a"}])
    expected = "5e81805661581fdb91c73773644d64e5d419044e8ef9b6f0d744daa05d009971"
    assert data_digest(rows).ordered == expected


@pytest.mark.parametrize("layout", ["native", "trl"])
def test_written_rows_have_the_same_videos(clip: Path, tmp_path: Path, layout: Any) -> None:
    rows = rows_from_records(
        [
            {**PAIR, "id": "file", "videos": [str(clip)]},
            {**PAIR, "id": "memory", "prompt": "<video>\n<image>Q", "videos": [clip.read_bytes()],
             "images": [make_image(1)]},
            {**PAIR, "id": "frames", "videos": [gray_frames(3)]},
        ]
    )  # fmt: skip
    path = tmp_path / "rows.jsonl"
    assert write_rows(rows, path, layout) == 3
    again = load_rows([SourceOptions(path=str(path))])
    for before, after in zip(rows, again, strict=True):
        assert after.messages[0].parts == before.messages[0].parts
        sampled = [part.videos[0].sample(FrameSampling(2.0, 3)) for part in (before, after)]
        assert brightness(sampled[0].frames) == brightness(sampled[1].frames)


def test_videos_are_downloaded_only_if_allowed(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = "https://example.org/clip.mp4"
    with pytest.raises(DataError, match="the video is a URL"):
        rows_from_records([{**PAIR, "videos": [url]}])
    loaded = read_records(
        [{**PAIR, "videos": [url]}], SourceOptions(path="data", fetch_images=True), ReadOptions()
    )
    (video,) = loaded.rows[0].videos
    assert isinstance(video, UrlVideo)
    answers = iter([b"<html>", clip.read_bytes()])
    monkeypatch.setattr(
        download_module, "_response", lambda *args, **options: (next(answers), "video/mp4")
    )
    with pytest.raises(VideoError, match=r"cannot be downloaded \(the content is not a video"):
        video.sample(DEFAULT)
    for _ in range(2):  # the second time from the cache
        assert video.sample(DEFAULT).total == 60


def test_unreadable_videos_are_reported_with_their_place(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").write_bytes(b"")
    sound = tmp_path / "sound.wav"
    sound.write_bytes(b"RIFF" + b"\0" * 60)
    for name in ("gone.mp4", "empty.mp4", "sound.wav"):
        (loaded,) = rows_from_records([{**PAIR, "videos": [str(tmp_path / name)]}])
        with pytest.raises(VideoError) as error:
            loaded.videos[0].sample(DEFAULT)
        (problem,) = error.value.problems
        assert problem.where == "data set 'data' row 1, field 'videos'"
        assert name in problem.message
    broken = FramesVideo(
        tuple(MemoryImage(item, "here") for item in (b"no image", make_image(1), b"neither"))
    )
    with pytest.raises(VideoError) as error:
        broken.sample(DEFAULT)
    assert len(error.value.problems) == 2

"""Prompts equal those of the toolkits, word by word."""

import base64
from pathlib import Path

import pytest
from builders import gray_frames, make_image, write_video
from support.adversarial_responses import red_image
from unidpo_mm_eval.benchmarks import benchmark_names, load_benchmark
from unidpo_mm_eval.data.dataset import Dataset
from unidpo_mm_eval.data.images import image_reference
from unidpo_mm_eval.data.samples import Image, Sample, Video
from unidpo_mm_eval.protocols import (
    load_prompts,
    load_protocol,
    prompt_names,
    protocol_names,
    render_question,
)
from unidpo_mm_eval.run.prompts import build_prompts, shuffle_images

from unidpo_mm.errors import DataError
from unidpo_mm.inference.served_model import messages_of
from unidpo_mm.records import FrameSampling, MediaSlot

PAIR = {"A": "cat", "B": "dog"}
CHOICE = Sample(id="1", where="row 1", question="Which?", options=PAIR, hint="Look.")
YES_NO = Sample(id="1", where="row 1", question="Is it?", answers=("Yes",))
MME = Sample(id="1", where="row 1", question="Is it red? Please answer yes or no.")
OPTIONS = "Question: Which?\nOptions:\nA. cat\nB. dog\n"

CASES = [
    ("vlmevalkit-qwen2vl", "ai2d", "options", CHOICE,
     f"Hint: Look.\n{OPTIONS}Please select the correct answer from the options above."),
    ("vlmevalkit-qwen2vl", "ai2d", "options",
     Sample(id="1", where="", question="哪个?", options=PAIR),
     "Question: 哪个?\nOptions:\nA. cat\nB. dog\n请直接回答选项字母。"),
    ("vlmevalkit-qwen2vl", "mmmu", "options", Sample(id="1", where="", question="Open?"),
     "Question: Open?"),
    ("vlmevalkit-qwen2vl", "pope", "yes_no", YES_NO, "Is it? Please answer yes or no."),
    ("vlmevalkit-qwen2vl", "mme", "yes_no", MME, MME.question),
    ("vlmevalkit-qwen2vl", "amber", "yes_no", YES_NO, "Is it?\nPlease answer yes or no."),
    ("vlmevalkit-qwen2vl", "chartqa", "short", YES_NO,
     "Is it?\nPlease try to answer the question with short words or phrases if possible."),
    ("vlmevalkit-qwen2vl", "mm_vet", "caption", YES_NO, "Is it?"),
    ("vlmevalkit-default", "ai2d", "options", CHOICE,
     f"Hint: Look.\n{OPTIONS}Please select the correct answer from the options above. \n"),
    ("vlmevalkit-default", "docvqa", "short", YES_NO,
     "Is it?\nAnswer the question using a single word or phrase."),
    ("vlmevalkit-default", "ocrbench", "short", YES_NO, "Is it?"),
    ("vlmevalkit-default", "pope", "yes_no", YES_NO, "Is it?"),
    ("lmms", "mmbench", "options", CHOICE,
     "Look.\nWhich?\nA. cat\nB. dog\nAnswer with the option's letter from the given choices "
     "directly."),
    ("lmms", "mme", "yes_no", MME,
     "Is it red?\nAnswer the question using a single word or phrase."),
    ("lmms", "chartqa", "short", YES_NO, "Is it?\nAnswer the question with a single word."),
    ("lmms", "textvqa", "short", Sample(id="1", where="", question="what is This?"),
     "What is this?\nAnswer the question using a single word or phrase."),
    ("lmms", "ocrbench", "short", YES_NO, "Is it?"),
    ("qwen25-math-cot", "gsm8k", "math", Sample(id="1", where="", question="2+2?", answers=("4",)),
     "2+2? Let's think step by step and output the final answer within \\boxed{}"),
    ("qwen25-math-cot", "math500", "math",
     Sample(id="1", where="", question="Prime?", answers=("Yes",)),
     "Prime? (Yes or No) Let's think step by step and output the final answer within \\boxed{}"),
    ("plain", "ai2d", "options", CHOICE, "Look.\nWhich?\nA. cat\nB. dog\n"),
]  # fmt: skip


@pytest.mark.parametrize(("profile", "benchmark", "kind", "sample", "text"), CASES)
def test_prompts_equal_those_of_the_toolkits(
    profile: str, benchmark: str, kind: str, sample: Sample, text: str
) -> None:
    assert render_question(sample, load_prompts(profile).template(benchmark, kind)) == text


def parts(question: str, images: int, profile: str, benchmark: str = "mmmu") -> list[str]:
    output = tuple(Image(str(n), b"image") for n in range(images))
    sample = Sample(id="1", where="row 1", question=question, images=output, options=PAIR)
    data = Dataset(path=Path("x.tsv"), sha256="", samples=(sample,))
    (made,) = build_prompts(load_benchmark(benchmark), data, load_prompts(profile))
    assert made.row is not None
    actual = made.row.messages[-1].parts
    return ["[image]" if isinstance(part, MediaSlot) else part for part in actual]


def test_images_are_placed_by_the_profile() -> None:
    marked = "See <image 1> and <image 2>?"
    first = parts(marked, 2, "vlmevalkit-qwen2vl")
    assert first[:2] == ["[image]"] * 2
    assert "<image 1>" in first[2]
    woven = parts(marked, 2, "vlmevalkit-default")
    assert woven[:4] == ["Question: See ", "[image]", " and ", "[image]"]
    assert parts(marked, 3, "vlmevalkit-default")[0] == "[image]"  # one without a mark
    again = parts("<image 1> or <image 1>?", 1, "vlmevalkit-default")
    assert again[1:4] == ["[image]", " or ", "[image]"]
    beyond = parts("<image 1> or <image 7>?", 1, "vlmevalkit-default")
    assert beyond[0] == "[image]"
    assert "<image 7>" in beyond[1]
    assert parts("Which?", 1, "vlmevalkit-default", "wildvision")[-1] == "[image]"


def test_a_mark_refers_to_its_image(tmp_path: Path) -> None:
    output = tuple(Image(str(n), drawn_bytes(n)) for n in range(3))
    sample = Sample(id="1", where="row 1", question="<image 3> or <image 1>?", images=output)
    data = Dataset(path=tmp_path / "x.tsv", sha256="", samples=(sample,))
    (made,) = build_prompts(load_benchmark("mmmu"), data, load_prompts("vlmevalkit-default"))
    assert made.row is not None
    keys = [image.key() for image in made.row.images]
    expected = [image_reference(output[n], tmp_path, "row 1").key() for n in (1, 2, 0)]
    assert keys == expected  # the one without a mark comes first


def drawn_bytes(colour: int) -> bytes:
    return base64.b64decode(red_image(colour))


def test_the_control_replaces_every_image() -> None:
    samples = tuple(
        Sample(id=str(n), where="", cluster=f"c{n}", images=(Image(f"p{n // 2}", b""),))
        for n in range(8)
    )
    data = Dataset(path=Path("x"), sha256="", samples=samples)
    for seed in range(5):
        moved = shuffle_images(data, seed).samples
        assert all(a.images != b.images for a, b in zip(samples, moved, strict=True))
        assert moved[0].images == moved[1].images
    alone = Dataset(path=Path("x"), sha256="", samples=samples[:2])
    with pytest.raises(DataError, match="at least two can be shuffled"):
        shuffle_images(alone, 0)


def test_every_protocol_names_profiles_that_exist() -> None:
    for name in protocol_names():
        protocol = load_protocol(name)
        assert set(protocol.prompt.values()) <= set(prompt_names())
        existing = set(benchmark_names()) | {"*"}
        assert set(protocol.decoding) <= existing
        assert all(set(sample_id) <= existing for sample_id in protocol.pixels.values())
    for name in prompt_names():
        assert set(load_prompts(name).benchmarks) <= set(benchmark_names())


def test_videos_follow_the_images_of_a_sample(tmp_path: Path) -> None:
    clip = write_video(tmp_path / "clip.mp4", gray_frames(10))
    frames = gray_frames(3)
    samples = (
        Sample(id="1", where="row 1", question="What?", videos=(Video("clip", "clip.mp4"),)),
        Sample(id="2", where="row 2", question="Same?", images=(Image("i", make_image(1)),),
               videos=(Video("clip", Path("clip.mp4")), Video("frames", frames))),
        Sample(id="3", where="row 3", question="What?", videos=(Video("gone", "../gone.mp4"),)),
    )  # fmt: skip
    data = Dataset(path=tmp_path, sha256="", samples=samples)
    benchmark = load_benchmark("mm_vet")
    first, second, bad = build_prompts(benchmark, data, load_prompts("lmms"))
    assert first.row is not None
    assert second.row is not None
    image, video = MediaSlot("image"), MediaSlot("video")
    assert first.row.messages[-1].parts[0] == video
    assert second.row.messages[-1].parts[:3] == (image, video, video)
    assert len(first.row.videos[0].sample(FrameSampling()).frames) == 4
    assert set(first.record()) == {"prompt", "videos"}
    assert set(second.record()) == {"prompt", "images", "videos"}
    assert first.area < second.area
    assert "outside of the directory" in str(bad.error)
    (message,) = messages_of(first.row)
    url = message["content"][0]["video_url"]["url"]
    assert base64.b64decode(url.removeprefix("data:video/mp4;base64,")) == clip.read_bytes()
    with pytest.raises(DataError, match="the video is a list of frames"):
        messages_of(second.row)

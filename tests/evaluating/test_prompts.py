"""Questions are put word by word as the kits put them."""

import base64
from pathlib import Path

import pytest
from nasty import drawn
from unidpo_mm_eval.benchmarks import benchmark_names, load_benchmark
from unidpo_mm_eval.data.dataset import DataSet
from unidpo_mm_eval.data.images import picture_reference
from unidpo_mm_eval.data.samples import Picture, Sample
from unidpo_mm_eval.prompts import load_prompts, prompt_names, worded
from unidpo_mm_eval.protocols import load_protocol, protocol_names
from unidpo_mm_eval.run.prompts import questions_of, shuffled_pictures

from unidpo_mm.errors import DataError
from unidpo_mm.records import ImageSlot

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
def test_questions_are_put_word_by_word(
    profile: str, benchmark: str, kind: str, sample: Sample, text: str
) -> None:
    assert worded(sample, load_prompts(profile).framing(benchmark, kind)) == text


def parts(question: str, pictures: int, profile: str, benchmark: str = "mmmu") -> list[str]:
    shown = tuple(Picture(str(n), b"picture") for n in range(pictures))
    sample = Sample(id="1", where="row 1", question=question, pictures=shown, options=PAIR)
    data = DataSet(path=Path("x.tsv"), sha256="", samples=(sample,))
    (made,) = questions_of(load_benchmark(benchmark), data, load_prompts(profile))
    assert made.row is not None
    found = made.row.messages[-1].parts
    return ["[picture]" if isinstance(part, ImageSlot) else part for part in found]


def test_pictures_stand_where_the_profile_puts_them() -> None:
    marked = "See <image 1> and <image 2>?"
    first = parts(marked, 2, "vlmevalkit-qwen2vl")
    assert first[:2] == ["[picture]"] * 2
    assert "<image 1>" in first[2]
    woven = parts(marked, 2, "vlmevalkit-default")
    assert woven[:4] == ["Question: See ", "[picture]", " and ", "[picture]"]
    assert parts(marked, 3, "vlmevalkit-default")[0] == "[picture]"  # one without a mark
    again = parts("<image 1> or <image 1>?", 1, "vlmevalkit-default")
    assert again[1:4] == ["[picture]", " or ", "[picture]"]
    beyond = parts("<image 1> or <image 7>?", 1, "vlmevalkit-default")
    assert beyond[0] == "[picture]"
    assert "<image 7>" in beyond[1]
    assert parts("Which?", 1, "vlmevalkit-default", "wildvision")[-1] == "[picture]"


def test_a_mark_means_its_picture(tmp_path: Path) -> None:
    shown = tuple(Picture(str(n), drawn_bytes(n)) for n in range(3))
    sample = Sample(id="1", where="row 1", question="<image 3> or <image 1>?", pictures=shown)
    data = DataSet(path=tmp_path / "x.tsv", sha256="", samples=(sample,))
    (made,) = questions_of(load_benchmark("mmmu"), data, load_prompts("vlmevalkit-default"))
    assert made.row is not None
    keys = [image.key() for image in made.row.images]
    wanted = [picture_reference(shown[n], tmp_path, "row 1").key() for n in (1, 2, 0)]
    assert keys == wanted  # the one without a mark comes first


def drawn_bytes(colour: int) -> bytes:
    return base64.b64decode(drawn(colour))


def test_the_control_gives_every_picture_another() -> None:
    samples = tuple(
        Sample(id=str(n), where="", cluster=f"c{n}", pictures=(Picture(f"p{n // 2}", b""),))
        for n in range(8)
    )
    data = DataSet(path=Path("x"), sha256="", samples=samples)
    for seed in range(5):
        moved = shuffled_pictures(data, seed).samples
        assert all(a.pictures != b.pictures for a, b in zip(samples, moved, strict=True))
        assert moved[0].pictures == moved[1].pictures
    alone = DataSet(path=Path("x"), sha256="", samples=samples[:2])
    with pytest.raises(DataError, match="two at least can be shuffled"):
        shuffled_pictures(alone, 0)


def test_every_protocol_names_profiles_that_exist() -> None:
    for name in protocol_names():
        protocol = load_protocol(name)
        assert set(protocol.prompt.values()) <= set(prompt_names())
        known = set(benchmark_names()) | {"*"}
        assert set(protocol.decoding) <= known
        assert all(set(own) <= known for own in protocol.pixels.values())
    for name in prompt_names():
        assert set(load_prompts(name).benchmarks) <= set(benchmark_names())

"""Ninety kinds of bad input: the problem, its message, and whether the row is refused or skipped.

`docs/data.md` contains the same table; `python tests/bad_input.py` prints it.
"""

import base64
import io
import json
import math
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

PAIR: dict[str, Any] = {"prompt": "What?", "chosen": "yes", "rejected": "no"}
SCORED = {**PAIR, "score_chosen": 4, "score_rejected": 1}
RANKED = {"prompt": "What?", "responses": [{"text": "a", "score": 2}, {"text": "b", "score": 1}]}
QUESTION = [{"role": "user", "content": "What?"}]


def assistant(text: Any) -> dict[str, Any]:
    """Return an assistant's turn."""
    return {"role": "assistant", "content": text}


@dataclass(frozen=True)
class Bad:
    """One kind of bad input.

    Attributes:
        kind: The problem in words.
        message: A part of the message.
        records: Rows, of which the last one is bad.
        place: The field in the message; empty if the message only names the row or the file.
        source: Options of the source.
        file: Name and content of a file that is used instead of records.
        outcome: ``refused``, or ``skipped`` if the user has requested it; then it is counted.
    """

    kind: str
    message: str
    records: tuple[Any, ...] = ()
    place: str = ""
    source: dict[str, Any] = field(default_factory=dict)
    file: tuple[str, bytes] | None = None
    outcome: str = "refused"


def row(kind: str, message: str, place: str, _base: Any = None, **changed: Any) -> Bad:
    """Return a pair with changed fields."""
    record = {**(PAIR if _base is None else _base), **changed}
    return Bad(kind, message, ({k: v for k, v in record.items() if v is not ...},), place)


ROWS = [
    Bad("a row that is not an object", "the row is of type str, not an object", ("text",)),
    Bad("a row that is a list", "the row is of type list, not an object", (["a", "b"],)),
    row("columns that fit no format", "fit no format", "", {}, question="What?", answer="yes"),
    row("a pair without a rejected response", "rejected is missing for 'pairs'", "rejected",
        rejected=None),
    row("a label that is neither true nor false", "found str ('good')", "label", {}, prompt="What?",
        completion="yes", label="good"),
    row("a label without a response", "fit no format", "", {}, prompt="What?", label=True),
    row("a prompt that is a number", "found int ('5')", "prompt", prompt=5),
    row("an empty prompt", "the prompt is empty", "prompt", prompt="  "),
    row("a conversation without turns", "found list", "prompt", prompt=[]),
    row("a turn that is not an object", "a message is str", "prompt", prompt=["What?"]),
    row("an unknown role", "the role 'bot'", "prompt",
        prompt=[{"role": "bot", "content": "x"}]),
    row("a turn without content", "a message's content is nothing", "prompt",
        prompt=[{"role": "user", "content": None}]),
    row("a part of an unknown type", "a part of a message is", "prompt",
        prompt=[{"role": "user", "content": [{"type": "file"}]}]),
    row("audio inside the prompt", "is audio, which is not supported yet", "prompt",
        prompt=[{"role": "user", "content": [{"type": "audio"}]}]),
    row("a video with options of its own", "a video has the option 'fps'", "prompt",
        prompt=[{"role": "user", "content": [{"type": "video", "video": "v.mp4", "fps": 1}]}]),
    row("a response that is a number", "found int ('6')", "chosen", chosen=6),
    row("an empty response", "the response is empty", "chosen", chosen=""),
    row("a response of spaces", "the response is empty", "rejected", rejected=" \n"),
    row("two equal responses", "are the same response", "chosen", rejected="yes"),
    row("a response to another prompt", "found messages of user, assistant", "chosen",
        chosen=[{"role": "user", "content": "Who?"}, assistant("me")]),
    row("a response that ends with a question", "found messages of user", "rejected",
        rejected=QUESTION),
    row("an image in a response", "the response contains an image placeholder", "chosen",
        chosen=[assistant([{"type": "image"}, {"type": "text", "text": "a"}])]),
    row("a response that calls a tool", "calls a tool, which is not supported yet", "chosen",
        chosen=[{**assistant(None), "tool_calls": [{"function": {"name": "f"}}]}]),
    row("tools that are not valid JSON", "the tools are not valid JSON", "tools", tools="{"),
    row("tools that are not a list", "found dict", "tools", tools={"name": "f"}),
    row("parameters of a tool that are not valid JSON",
        "the parameters of a tool are not valid", "tools",
        tools=[{"function": {"name": "f", "parameters": "{"}}]),
    row("a call with arguments that are not valid JSON",
        "the arguments of a tool call are not valid",
        "prompt", prompt=[*QUESTION, {**assistant(None), "tool_calls": [
            {"function": {"name": "f", "arguments": "{"}}]}, {"role": "tool", "content": "1"}]),
    row("a prompt that ends with a response", "ends with an assistant message", "prompt",
        prompt=[*QUESTION, assistant("perhaps")]),
    row("dialogues that differ before their end", "3 messages follow the prompt", "chosen",
        chosen=[*QUESTION, assistant("a"), *QUESTION, assistant("b")],
        rejected=[*QUESTION, assistant("c"), *QUESTION, assistant("d")]),
    row("a system message that is a number", "found int ('5')", "system", system=5),
    row("two system messages", "starts with another system message", "system", system="x",
        prompt=[{"role": "system", "content": "y"}, *QUESTION]),
    row("an unknown domain", "the domain is 'maths'", "domain", domain="maths"),
    Bad("a duplicate id", "duplicate id 'a', also used by", ({**PAIR, "id": "a"},) * 2, "id"),
    row("a negative weight", "the weight of a pair is -1.0", "weight", weight=-1.0),
    row("a weight that is a string", "found 'high'", "weight", weight="high"),
    row("an infinite weight", "found inf", "weight", weight=math.inf),
    row("other images for a row without images", "1 other image(s) for 0", "rejected_images",
        rejected_images=["p.png"]),
    row("a column of audio", "audio is not supported yet", "audios", audios=["a.wav"]),
    row("a file of audio", "audio is not supported yet", "audio", audio="a.wav"),
    row("a ranked row without responses", "expected a list of responses", "responses", RANKED,
        responses=[]),
    row("responses that are not a list", "expected a list of responses", "responses", RANKED,
        responses="a"),
    row("a response without text", "found dict", "responses[1].text", RANKED,
        responses=[{"text": "a", "score": 2}, {"answer": "b", "score": 1}]),
    row("a pair of responses that do not exist",
        "a pair refers to responses 0 and 5", "pairs", RANKED,
        pairs=[[0, 5]]),
    row("pairs that are not numbers", "found list", "pairs[0]", RANKED, pairs=[["a", "b"]]),
    row("responses without a common prompt", "have no common prompt", "chosen",
        {"chosen": [assistant("a")], "rejected": [assistant("b")]}),
    row("an instruction that is a number", "found int ('5')", "instruction",
        {"instruction": 5, "chosen": "a", "rejected": "b"}),
    row("three responses in 'output'", "found 3 responses", "output",
        {"instruction": "What?", "output": ["a", "b", "c"]}),
    row("an earlier turn without a response", "found list", "history[0]",
        {"instruction": "What?", "chosen": "a", "rejected": "b", "history": [["Who?"]]}),
    row("RLHF-V's text that is not valid JSON",
        "not valid JSON", "text", {"text": "{", "image": "p.png"}),
    row("RLHF-V's text that is not an object",
        "found list", "text", {"text": "[]", "image": "p.png"}),
    row("ms-swift's messages without a response", "found list", "messages",
        {"messages": QUESTION, "rejected_response": "b"}),
    row("completions that are not a list", "expected a list of responses", "completions",
        {"instruction": "What?", "completions": "a"}),
    row("a strength that is a string", "found 'much'", "preference_strength",
        {"prompt": "What?", "response_1": "a", "response_2": "b", "preference_strength": "much"}),
]  # fmt: skip

SCORES = [
    row("a score that is a string", "found '4'", "score_chosen", SCORED, score_chosen="4"),
    row("a score that is not a number", "found nan", "score_chosen", SCORED, score_chosen=math.nan),
    row("an infinite score", "found inf", "score_rejected", SCORED, score_rejected=math.inf),
    row("a score that is a boolean", "found True", "score_chosen", SCORED, score_chosen=True),
    Bad("a score outside the declared scale", "is outside of the declared scale [0.0, 3.0]",
        (SCORED,), "score_chosen", {"scale": (0.0, 3.0)}),
    row("one of several responses without a score", "1 of 2 responses have no score", "responses",
        RANKED, responses=[{"text": "a", "score": 2}, {"text": "b"}]),
    Bad("a pair without scores, for a loss that needs them", "the score is missing",
        (PAIR,), "score_chosen", {"needs_scores": True}),
    row("a rating that is not a number", "found 'good'", "completions[1].annotations",
        {"prompt": "What?", "completions": [
            {"response": "a", "annotations": {"Helpfulness": {"Rating": "4"}}},
            {"response": "b", "annotations": {"Helpfulness": {"Rating": "good"}}}]}),
    row("a completion without its overall score", "there is no score",
        "completions[0].overall_score",
        {"instruction": "What?", "completions": [
            {"response": "a"}, {"response": "b", "overall_score": 1}]}),
    Bad("a pair in the wrong order, misordered: drop", "1 pair has a higher score on the "
        "rejected response: dropped", ({**SCORED, "score_chosen": 0},), "", {"misordered": "drop"},
        outcome="skipped"),
    Bad("a pair of equal scores, ties: drop", "1 pair has equal scores: dropped",
        ({**SCORED, "score_chosen": 1},), "", {"ties": "drop"}, outcome="skipped"),
    Bad("responses with equal scores, ties: drop", "1 row skipped: no pair remains",
        ({"prompt": "?", "responses": [{"text": t, "score": 3} for t in "abc"]},), "",
        {"ties": "drop"}, outcome="skipped"),
    Bad("scores that are too close, min_margin: 5", "1 pair dropped: the scores differ by less "
        "than 5", (SCORED,), "", {"min_margin": 5.0}, outcome="skipped"),
]  # fmt: skip


def encoded(kind: str = "PNG", size: tuple[int, int] = (64, 64)) -> bytes:
    """Return an image as a file's bytes."""
    stream = io.BytesIO()
    Image.effect_noise(size, 80).convert("RGB").save(stream, kind)
    return stream.getvalue()


HALF = base64.b64encode(encoded()[:400]).decode()


def with_image(kind: str, message: str, image: Any, **source: Any) -> Bad:
    """Return a pair with one image."""
    return Bad(kind, message, ({**PAIR, "images": [image]},), "images", source)


IMAGES = [
    row("fewer images than placeholders", "1 image(s) for 2", "images",
        prompt="<image> <image>", images=[encoded()]),
    row("more images than placeholders", "2 image(s) for 1", "images", prompt="<image>",
        images=[encoded()] * 2),
    row("a placeholder without an image", "0 image(s) for 1", "images", prompt="a <image>"),
    with_image("a URL without fetch_images", "the image is a URL",
                 "https://example.org/p.png"),
    with_image("a URL that cannot be reached", "cannot be downloaded",
                 "http://127.0.0.1:9/p.png", fetch_images=True, fetch_private_addresses=True),
    with_image("a URL of this machine", "has the private address 127.0.0.1",
                 "http://127.0.0.1:9/p.png", fetch_images=True),
    with_image("a URL with another scheme", "only http and https URLs can be downloaded",
                 "ftp://example.org/p.png", fetch_images=True),
    with_image("a relative path that leaves the directory",
               "is outside of the directory", "../p.png"),
    with_image("a path outside of the directory in 'images'", "is outside of the directory",
                 "/etc/p.png", images="{folder}"),
    with_image("an image that does not exist", "does not exist", "gone.png"),
    with_image("a directory instead of an image", "is not a file", "folder"),
    with_image("an empty file", "cannot be read", "empty.png"),
    with_image("a file that is not an image", "cannot be read", "text.png"),
    with_image("a truncated image", "cannot be read", "half.jpg"),
    with_image("more pixels than are allowed", "has 64 x 64 pixels and the limit is 1,000",
                 "good.png", max_pixels=1000),
    with_image("bytes that are not an image", "cannot be read", b"no image"),
    with_image("a truncated image in base64", "cannot be read", HALF),
    with_image("invalid base64", "in base64 cannot be decoded", "data:image/png;base64,?"),
    with_image("an image that is a number", "an image is int ('3')", 3),
    with_image("nested lists", "an image is list", [["good.png"]]),
    with_image("an array that is not an image", "is not an image", np.zeros((5, 6, 7))),
    with_image("pixels in floats up to 255", "go from 200 to 200", np.full((5, 6, 3), 200.0)),
    with_image("a file on another machine", "names the host 'h'", "file://h/p.png"),
    row("a placeholder with an empty entry", "0 image(s) for 1", "images", prompt="a <image>",
        images=[{"bytes": None, "path": None}]),
    with_image("a path with a null byte", "contains a null byte", "a\0b.png"),
]  # fmt: skip

VIDEOS = [
    row("fewer videos than placeholders", "1 video(s) for 2", "videos",
        prompt="<video> <video>", videos=[b"video"]),
    row("a placeholder without a video", "0 video(s) for 1", "videos",
        prompt=[{"role": "user", "content": [{"type": "video"}]}]),
    row("a video that does not exist", "does not exist", "videos", videos=["v.mp4"]),
    row("a file that is not a video", "cannot be read", "videos", videos=["empty.mp4"]),
    row("bytes that are not a video", "cannot be read", "videos", videos=[b"no video"]),
    row("a URL of a video without fetch_images", "the video is a URL", "videos",
        videos=["https://example.org/v.mp4"]),
    row("an image as a video", "the video 'good.png' is an image", "videos", videos=["good.png"]),
    row("a frame that does not exist", "does not exist", "videos", videos=[["gone.png"]]),
    row("a video that is a number", "a video is int ('3')", "videos", videos=[3]),
]  # fmt: skip


def file(kind: str, message: str, name: str, content: bytes = b"", **source: Any) -> Bad:
    """Return a file that cannot be read completely."""
    return Bad(kind, message, file=(name, content), source=source)


LINE = json.dumps(PAIR).encode()
FILES = [
    file("a file that does not exist", "neither a local file nor a data set", "-"),
    file("a file of an unsupported kind", "'.csv' files are not supported", "rows.csv", b"a,b"),
    file("a line that is not valid JSON",
         "the line is not valid JSON", "rows.jsonl", LINE + b'\n{"prompt": '),
    file("a line that is not valid UTF-8",
         "the line is not valid UTF-8", "rows.jsonl", LINE + b'\n{"\xff"}'),
    file("JSON nested a thousand times",
         "the line is not valid JSON", "rows.jsonl", b"[" * 100_000),
    file("a JSON file with an object", "the file contains dict, not a list", "rows.json", b"{}"),
    file("a truncated JSON file", "the file is not valid JSON", "rows.json", b'[{"prompt": '),
    file("a JSON file that is not valid UTF-8",
         "the file is not valid UTF-8", "rows.json", b'["\xff"]'),
    file("a file without rows", "the file contains no rows", "rows.jsonl", b"\n"),
    file("a broken Parquet file", "not a valid Parquet file", "rows.parquet", b"PAR1"),
    file("a broken Arrow file", "not a valid Arrow file", "rows.arrow", b"ARROW1"),
    file("a directory without data", "the directory contains no Parquet, JSONL", "folder/"),
    file("a split of a file", "split 'test' was requested", "rows.jsonl", LINE, split="test"),
    file("a subset of a file", "subset 'en' was requested", "rows.jsonl", LINE, subset="en"),
    file("an unknown format", "unknown format 'pear'", "rows.jsonl", LINE,
         format="pear"),
    file("a format that does not fit the columns", "instruction is missing for the format 'alpaca'",
         "rows.jsonl", LINE, format="alpaca"),
    file("a registry without the entry", "there is no entry 'b'", "dataset_info.json",
         b'{"a": {}}', subset="b"),
    file("an entry without pairs",
         "the entry has neither chosen and rejected responses nor labels", "dataset_info.json",
         b'{"a": {"file_name": "x.json"}}', subset="a"),
    file("an entry whose file does not exist", "does not exist", "dataset_info.json",
         b'{"a": {"file_name": "x.json", "ranking": true}}', subset="a"),
    file("a broken registry", "the registry cannot be read", "dataset_info.json", b"{",
         subset="a"),
]  # fmt: skip

BAD: dict[str, list[Bad]] = {
    "Rows": ROWS,
    "Scores": SCORES,
    "Images": IMAGES,
    "Videos": VIDEOS,
    "Files": FILES,
}


def write_surroundings(folder: Path) -> None:
    """Write the files to which the records refer."""
    (folder / "folder").mkdir()
    (folder / "good.png").write_bytes(encoded())
    for name in ("empty.png", "empty.mp4"):
        (folder / name).write_bytes(b"")
    (folder / "text.png").write_text("no image")
    (folder / "half.jpg").write_bytes(encoded("JPEG")[:500])


def table() -> str:
    """Return the table of the documentation."""
    lines = []
    for title, cases in BAD.items():
        lines += [f"**{title}**", "", "| input | message | the row is |"]
        lines += ["| --- | --- | --- |"]
        lines += [f"| {case.kind} | {case.message} | {case.outcome} |" for case in cases]
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(table())

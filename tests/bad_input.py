"""Ninety kinds of bad input: what stands there, what is said of it, and what becomes of the row.

`docs/data.md` shows the same table; `python tests/bad_input.py` prints it.
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
ASKED = [{"role": "user", "content": "What?"}]


def said(text: Any) -> dict[str, Any]:
    """Return an assistant's turn."""
    return {"role": "assistant", "content": text}


@dataclass(frozen=True)
class Bad:
    """One kind of bad input.

    Attributes:
        kind: What is wrong, in words.
        found: What the message says of it.
        records: Rows, of which the last is the bad one.
        place: The field that is named; empty where the message names the row or the file.
        source: Settings of the source.
        file: Name of a file that is written instead, and its bytes; records do not count then.
        outcome: ``refused``, or ``left out`` where the user asked for it: then it is counted.
    """

    kind: str
    found: str
    records: tuple[Any, ...] = ()
    place: str = ""
    source: dict[str, Any] = field(default_factory=dict)
    file: tuple[str, bytes] | None = None
    outcome: str = "refused"


def row(kind: str, found: str, place: str, _base: Any = None, **changed: Any) -> Bad:
    """Return a pair with something changed."""
    record = {**(PAIR if _base is None else _base), **changed}
    return Bad(kind, found, ({k: v for k, v in record.items() if v is not ...},), place)


ROWS = [
    Bad("a row that is no object", "the row is str", ("text",)),
    Bad("a row that is a list", "the row is list", (["a", "b"],)),
    row("columns that fit no format", "fit no format", "", {}, question="What?", answer="yes"),
    row("a pair without its rejected answer", "rejected is missing for 'pairs'", "rejected",
        rejected=None),
    row("single answers with labels", "the layout of KTO", "label", {}, prompt="What?",
        completion="yes", label=True),
    row("a prompt that is a number", "found int ('5')", "prompt", prompt=5),
    row("an empty prompt", "the prompt is empty", "prompt", prompt="  "),
    row("a conversation without a turn", "found list", "prompt", prompt=[]),
    row("a turn that is no object", "a message is str", "prompt", prompt=["What?"]),
    row("a role that no template knows", "the role 'bot'", "prompt",
        prompt=[{"role": "bot", "content": "x"}]),
    row("a turn without content", "a message's content is nothing", "prompt",
        prompt=[{"role": "user", "content": None}]),
    row("a part of an unknown kind", "a part of a message is", "prompt",
        prompt=[{"role": "user", "content": [{"type": "file"}]}]),
    row("a video inside the prompt", "is video, which is not understood yet", "prompt",
        prompt=[{"role": "user", "content": [{"type": "video"}]}]),
    row("an answer that is a number", "found int ('6')", "chosen", chosen=6),
    row("an empty answer", "the answer is empty", "chosen", chosen=""),
    row("an answer of blanks", "the answer is empty", "rejected", rejected=" \n"),
    row("two equal answers", "are the same answer", "chosen", rejected="yes"),
    row("an answer to another prompt", "found messages of user, assistant", "chosen",
        chosen=[{"role": "user", "content": "Who?"}, said("me")]),
    row("an answer that ends with a question", "found messages of user", "rejected",
        rejected=ASKED),
    row("an image inside an answer", "the answer holds an image placeholder", "chosen",
        chosen=[said([{"type": "image"}, {"type": "text", "text": "a"}])]),
    row("an answer that calls a tool", "calls a tool, which is not understood yet", "chosen",
        chosen=[{**said(None), "tool_calls": [{"function": {"name": "f"}}]}]),
    row("tools that are no JSON", "the tools are not valid JSON", "tools", tools="{"),
    row("tools that are no list", "found dict", "tools", tools={"name": "f"}),
    row("a tool's parameters that are no JSON", "the parameters of a tool are not valid", "tools",
        tools=[{"function": {"name": "f", "parameters": "{"}}]),
    row("a call whose arguments are no JSON", "the arguments of a tool call are not valid",
        "prompt", prompt=[*ASKED, {**said(None), "tool_calls": [
            {"function": {"name": "f", "arguments": "{"}}]}, {"role": "tool", "content": "1"}]),
    row("a prompt that ends with an answer", "ends with an assistant message", "prompt",
        prompt=[*ASKED, said("perhaps")]),
    row("dialogues that differ before their end", "3 messages follow the prompt", "chosen",
        chosen=[*ASKED, said("a"), *ASKED, said("b")],
        rejected=[*ASKED, said("c"), *ASKED, said("d")]),
    row("a system message that is a number", "found int ('5')", "system", system=5),
    row("two system messages", "begins with another system message", "system", system="x",
        prompt=[{"role": "system", "content": "y"}, *ASKED]),
    row("a domain that is not known", "the domain is 'maths'", "domain", domain="maths"),
    Bad("an id for the second time", "the id 'a' is taken by", ({**PAIR, "id": "a"},) * 2, "id"),
    row("a negative weight", "the weight of a pair is -1.0", "weight", weight=-1.0),
    row("a weight in words", "found 'high'", "weight", weight="high"),
    row("an infinite weight", "found inf", "weight", weight=math.inf),
    row("other images for the rejected answer", "are not understood yet", "rejected_images",
        rejected_images=["p.png"]),
    row("a column of videos", "videos are not understood yet", "videos", videos=["v.mp4"]),
    row("a column of sound", "sound is not understood yet", "audios", audios=["a.wav"]),
    row("no answers in a ranked row", "found no list of answers", "responses", RANKED,
        responses=[]),
    row("answers that are no list", "found no list of answers", "responses", RANKED,
        responses="a"),
    row("an answer without text", "found dict", "responses[1].text", RANKED,
        responses=[{"text": "a", "score": 2}, {"answer": "b", "score": 1}]),
    row("a pair of answers that are not there", "a pair names responses 0 and 5", "pairs", RANKED,
        pairs=[[0, 5]]),
    row("pairs that are no numbers", "found list", "pairs[0]", RANKED, pairs=[["a", "b"]]),
    row("answers without a prompt in common", "have no prompt in common", "chosen",
        {"chosen": [said("a")], "rejected": [said("b")]}),
    row("an instruction that is a number", "found int ('5')", "instruction",
        {"instruction": 5, "chosen": "a", "rejected": "b"}),
    row("three answers in 'output'", "found 3 answers", "output",
        {"instruction": "What?", "output": ["a", "b", "c"]}),
    row("an earlier turn without its answer", "found list", "history[0]",
        {"instruction": "What?", "chosen": "a", "rejected": "b", "history": [["Who?"]]}),
    row("RLHF-V's text that is no JSON", "it is no JSON", "text", {"text": "{", "image": "p.png"}),
    row("RLHF-V's text that is no object", "found list", "text", {"text": "[]", "image": "p.png"}),
    row("ms-swift's messages without an answer", "found list", "messages",
        {"messages": ASKED, "rejected_response": "b"}),
    row("completions that are no list", "found no list of answers", "completions",
        {"instruction": "What?", "completions": "a"}),
    row("a strength of a preference in words", "found 'much'", "preference_strength",
        {"prompt": "What?", "response_1": "a", "response_2": "b", "preference_strength": "much"}),
]  # fmt: skip

SCORES = [
    row("a score in words", "found '4'", "score_chosen", SCORED, score_chosen="4"),
    row("a score that is no number", "found nan", "score_chosen", SCORED, score_chosen=math.nan),
    row("an infinite score", "found inf", "score_rejected", SCORED, score_rejected=math.inf),
    row("a score that is true or false", "found True", "score_chosen", SCORED, score_chosen=True),
    Bad("a score outside the declared scale", "lies outside the declared scale [0.0, 3.0]",
        (SCORED,), "score_chosen", {"scale": (0.0, 3.0)}),
    row("one of several answers without a score", "1 of 2 answers have no score", "responses",
        RANKED, responses=[{"text": "a", "score": 2}, {"text": "b"}]),
    Bad("a pair without scores, for a loss that needs them", "the score is missing",
        (PAIR,), "score_chosen", {"needs_scores": True}),
    row("a rating that is a word", "found 'good'", "completions[1].annotations",
        {"prompt": "What?", "completions": [
            {"response": "a", "annotations": {"Helpfulness": {"Rating": "4"}}},
            {"response": "b", "annotations": {"Helpfulness": {"Rating": "good"}}}]}),
    row("a completion without its overall score", "there is no score",
        "completions[0].overall_score",
        {"instruction": "What?", "completions": [
            {"response": "a"}, {"response": "b", "overall_score": 1}]}),
    Bad("a pair in the wrong order, misordered: drop", "1 pair has the higher score on the "
        "rejected answer: dropped", ({**SCORED, "score_chosen": 0},), "", {"misordered": "drop"},
        outcome="left out"),
    Bad("a pair of equal scores, ties: drop", "1 pair has equal scores: dropped",
        ({**SCORED, "score_chosen": 1},), "", {"ties": "drop"}, outcome="left out"),
    Bad("answers that all have one score, ties: drop", "1 row left out: without a pair",
        ({"prompt": "?", "responses": [{"text": t, "score": 3} for t in "abc"]},), "",
        {"ties": "drop"}, outcome="left out"),
    Bad("scores that lie too close, min_margin: 5", "1 pair dropped: the scores differ by less "
        "than 5", (SCORED,), "", {"min_margin": 5.0}, outcome="left out"),
]  # fmt: skip


def encoded(kind: str = "PNG", size: tuple[int, int] = (64, 64)) -> bytes:
    """Return an image as a file's bytes."""
    stream = io.BytesIO()
    Image.effect_noise(size, 80).convert("RGB").save(stream, kind)
    return stream.getvalue()


HALF = base64.b64encode(encoded()[:400]).decode()


def with_image(kind: str, found: str, image: Any, **source: Any) -> Bad:
    """Return a pair with one image."""
    return Bad(kind, found, ({**PAIR, "images": [image]},), "images", source)


IMAGES = [
    row("fewer images than placeholders", "1 image(s) for 2", "images",
        prompt="<image> <image>", images=[encoded()]),
    row("more images than placeholders", "2 image(s) for 1", "images", prompt="<image>",
        images=[encoded()] * 2),
    row("a placeholder without an image", "0 image(s) for 1", "images", prompt="a <image>"),
    with_image("an address where none is fetched", "the image is an address",
                 "https://example.org/p.png"),
    with_image("an address that cannot be reached", "cannot be fetched",
                 "http://127.0.0.1:9/p.png", fetch_images=True, fetch_private_addresses=True),
    with_image("an address of this machine", "has the private address 127.0.0.1",
                 "http://127.0.0.1:9/p.png", fetch_images=True),
    with_image("an address of another kind", "only http and https URLs are downloaded",
                 "ftp://example.org/p.png", fetch_images=True),
    with_image("a path that climbs out of the folder", "lies outside the folder", "../p.png"),
    with_image("a path outside of the stated folder", "lies outside the folder",
                 "/etc/p.png", images="{folder}"),
    with_image("an image that is not there", "does not exist", "gone.png"),
    with_image("a folder in place of an image", "is no file", "folder"),
    with_image("an empty file", "cannot be read", "empty.png"),
    with_image("a file that is no image", "cannot be read", "text.png"),
    with_image("half an image", "cannot be read", "half.jpg"),
    with_image("more pixels than are allowed", "has 64 x 64 pixels and the limit is 1,000",
                 "good.png", max_pixels=1000),
    with_image("bytes that are no image", "cannot be read", b"no image"),
    with_image("half an image in base64", "cannot be read", HALF),
    with_image("base64 that is none", "in base64 cannot be decoded", "data:image/png;base64,?"),
    with_image("an image that is a number", "an image is int ('3')", 3),
    with_image("lists inside a list of lists", "an image is list", [["good.png"]]),
    with_image("an array that is no image", "is not an image", np.zeros((5, 6, 7))),
    with_image("pixels in floats up to 255", "go from 200 to 200", np.full((5, 6, 3), 200.0)),
    with_image("a file on another machine", "names the host 'h'", "file://h/p.png"),
    row("a placeholder with an empty image", "0 image(s) for 1", "images", prompt="a <image>",
        images=[{"bytes": None, "path": None}]),
    with_image("a path with a zero byte", "holds a zero byte", "a\0b.png"),
]  # fmt: skip


def file(kind: str, found: str, name: str, content: bytes = b"", **source: Any) -> Bad:
    """Return a file that cannot be read, or not whole."""
    return Bad(kind, found, file=(name, content), source=source)


LINE = json.dumps(PAIR).encode()
FILES = [
    file("a file that is not there", "neither a file nor a data set", "-"),
    file("a file of another kind", "'.csv' is no format of data files", "rows.csv", b"a,b"),
    file("a line that is no JSON", "the line is no JSON", "rows.jsonl", LINE + b'\n{"prompt": '),
    file("a line that is no UTF-8", "the line is no UTF-8", "rows.jsonl", LINE + b'\n{"\xff"}'),
    file("JSON nested a thousand times", "the line is no JSON", "rows.jsonl", b"[" * 100_000),
    file("a JSON file that holds an object", "the file holds dict", "rows.json", b"{}"),
    file("a JSON file that breaks off", "the file is no JSON", "rows.json", b'[{"prompt": '),
    file("a JSON file that is no UTF-8", "the file is no UTF-8", "rows.json", b'["\xff"]'),
    file("a file without a row", "the file holds no row", "rows.jsonl", b"\n"),
    file("a broken Parquet file", "no Parquet file", "rows.parquet", b"PAR1"),
    file("a broken Arrow file", "no Arrow file", "rows.arrow", b"ARROW1"),
    file("a folder without data", "the folder holds no Parquet, JSONL", "folder/"),
    file("a split of a file", "split 'test' is asked for", "rows.jsonl", LINE, split="test"),
    file("a subset of a file", "subset 'en' is asked for", "rows.jsonl", LINE, subset="en"),
    file("a format that is not there", "unknown format 'pear'", "rows.jsonl", LINE,
         format="pear"),
    file("a format that the columns do not fit", "instruction is missing for the format 'alpaca'",
         "rows.jsonl", LINE, format="alpaca"),
    file("a registry without the entry", "there is no entry 'b'", "dataset_info.json",
         b'{"a": {}}', subset="b"),
    file("an entry that holds no pairs", "the entry is no ranking", "dataset_info.json",
         b'{"a": {"file_name": "x.json"}}', subset="a"),
    file("an entry whose file is not there", "does not exist", "dataset_info.json",
         b'{"a": {"file_name": "x.json", "ranking": true}}', subset="a"),
    file("a broken registry", "the registry cannot be read", "dataset_info.json", b"{",
         subset="a"),
]  # fmt: skip

BAD: dict[str, list[Bad]] = {
    "Rows": ROWS,
    "Scores": SCORES,
    "Images": IMAGES,
    "Files": FILES,
}


def write_surroundings(folder: Path) -> None:
    """Write the files that the records speak of."""
    (folder / "folder").mkdir()
    (folder / "good.png").write_bytes(encoded())
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.png").write_text("no image")
    (folder / "half.jpg").write_bytes(encoded("JPEG")[:500])


def table() -> str:
    """Return the table of the documentation."""
    lines = []
    for title, cases in BAD.items():
        lines += [f"**{title}**", "", "| what stands there | what is said of it | the row is |"]
        lines += ["| --- | --- | --- |"]
        lines += [f"| {one.kind} | {one.found} | {one.outcome} |" for one in cases]
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(table())

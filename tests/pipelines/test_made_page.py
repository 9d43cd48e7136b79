"""The page and the record of a run."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy
import pytest
from PIL import Image
from support.browser import browse
from support.made_data import write_made_recipe, write_rows

from unidpo_mm.pipelines.command import write_files
from unidpo_mm.pipelines.load import load_make_recipe
from unidpo_mm.pipelines.models import LOCAL, family_notes, model_facts
from unidpo_mm.pipelines.run import make

HOSTILE = "<script>console.log('x')</script><img src=x onerror=alert(1)> {{ 7*7 }} &amp;"
SCORES: dict[str, Any] = {
    "right": {"scorer": "verifier", "answer": "number"},
    "words": {"scorer": "./judge.py", "faulty": "bad", "max_faults": 0.5},
    "brief": {"scorer": "rules", "max_words": 4},
    "total": {
        "scorer": "combine",
        "use": {"right": 1.0, "words": 0.1},
        "max_faults": 0.5,
    },
}
RESPONSES = [
    [f"the sum is {n}", f"{HOSTILE} {n + 1}", "so " * (n % 7) + str(n), "bad"] for n in range(24)
]
WIDTH = """<script>document.body.append("width ", document.documentElement.scrollWidth, " of ",
document.documentElement.clientWidth)</script>"""


class Tags(HTMLParser):
    """The tags of a page, with every address that it refers to."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.addresses: list[str] = []
        self.handlers: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]


def made_in(folder: Path, responses: Any = RESPONSES, **sections: Any) -> Path:
    """Make data and return the directory."""
    write_rows(folder, responses, images=True)
    score = json.loads(json.dumps(SCORES))
    score["words"]["log"] = str(folder / "calls.txt")
    making = load_make_recipe(write_made_recipe(folder, score=score, **sections))
    write_files(making, make(making))
    return folder / "made"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_in(tmp_path_factory.mktemp("made"))


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    return (folder / "made.html").read_text(encoding="utf-8")


def test_texts_of_responses_are_shown_and_not_run(page: str):
    tags = Tags(page)
    assert "script" not in tags.names
    assert tags.handlers == []
    assert "&lt;script&gt;console.log" in page
    assert "{{ 7*7 }}" in page
    assert "&amp;amp;" in page


def test_nothing_is_loaded_from_elsewhere(page: str):
    tags = Tags(page)
    assert "img" in tags.names
    assert all(address.startswith("data:") for address in tags.addresses)
    assert "url(" not in page
    assert "@import" not in page


def test_every_part_is_on_the_page(page: str):
    for heading in (
        "Before you train",
        "Advice",
        "From prompts to pairs",
        "Scores",
        "Do the scores agree?",
        "Scores and length",
        "Right responses and margins",
        "Responses without a score",
        "20 random pairs",
        "20 responses on which the scores disagree most",
        "How it was made",
    ):
        assert f"<h2>{heading}</h2>" in page, heading
    assert "Leaks" not in page
    assert "malformed" in page
    assert "&#39;bad&#39; has no verdict" in page
    assert "brief (rules) judges 96 responses about images" in page
    assert page.count('<div class="response chosen">') == 20
    assert "w_qual, usual slope (eta 0.7)" in page


def test_the_funnel_of_the_page_is_that_of_the_record(folder: Path, page: str):
    counts = json.loads((folder / "made.json").read_text(encoding="utf-8"))["counts"]
    bars = dict(re.findall(r'<div class="bar"><span>([^<]*)</span><b>([0-9,]+)</b>', page))
    assert bars == {
        name: f"{number:,}" for subject in counts.values() for name, number in subject.items()
    }
    assert counts["responses"] == {"expected": 96, "without a score": 24, "usable": 72}


def test_leaks_are_listed(tmp_path: Path):
    from unidpo_mm.pipelines.page import made_page
    from unidpo_mm.pipelines.record import write_record
    from unidpo_mm.pipelines.response_table import table_of

    write_rows(tmp_path, [["a b", "c"]])
    making = load_make_recipe(write_made_recipe(tmp_path))
    made = make(making)
    made.prompts.leaks = [{"prompt": f"p{n}", "question": "<b>which</b>"} for n in range(60)]
    page = made_page(making, made, table_of(making, made), write_record(making, made))
    assert "all 60 are in" in page
    assert page.count("&lt;b&gt;which&lt;/b&gt;") == 50


def test_a_run_without_scores_of_its_own_has_a_page(tmp_path: Path):
    lines = [{"id": f"p{n}", "prompt": "Why?", "chosen": "a b", "rejected": "c"} for n in range(3)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    making = load_make_recipe(write_made_recipe(tmp_path, score={}, pair={"rule": "given"}))
    record = write_files(making, make(making))
    page = (tmp_path / "made" / "made.html").read_text(encoding="utf-8")
    assert "The pairs have no scores" in page
    assert "3 random pairs" in page
    assert record["models"] == []


def test_the_record_names_warnings_times_and_scorers(folder: Path):
    record = json.loads((folder / "made.json").read_text(encoding="utf-8"))
    assert any("judges 96 responses about images" in line for line in record["warnings"])
    assert set(record["timing"]["stages"]) >= {"prompts", *SCORES, "pair"}
    assert record["timing"]["stages"]["words"]["items"] == 96


# ---- models ----


def model_in(folder: Path, card: str = "", model_type: str = "llava") -> str:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}), encoding="utf-8")
    (folder / "model.safetensors").write_bytes(b"x" * 1500)
    if card:
        (folder / "README.md").write_text(card, encoding="utf-8")
    return str(folder)


@pytest.mark.parametrize(
    ("card", "license_name"),
    [
        ("---\nlicense: apache-2.0\n---\n# Model", "apache-2.0"),
        ("---\nlicense: other\nlicense_name: qwen-research\n---\n", "qwen-research"),
        ("---\nlicense: [mit, bsd]\n---\n", "mit bsd"),
        ("---\nlanguage: en\n---\n", "unknown"),
        ("---\nlicense: [\n---\n", "unknown"),
        ("# A card without front matter", "unknown"),
        ("", "unknown"),
    ],
)
def test_licenses_are_those_of_the_model_cards(tmp_path: Path, card: str, license_name: str):
    write_rows(tmp_path, [["a", "b"]])
    model = {"name_or_path": model_in(tmp_path / "policy", card)}
    making = load_make_recipe(write_made_recipe(tmp_path, model=model, sample={"n": 2}))
    (facts,) = model_facts(making)
    assert (facts.role, facts.license, facts.size) == ("generator", license_name, 1500)


@pytest.mark.parametrize("parameter", ["model", "judge"])
@pytest.mark.parametrize(("model_type", "noted"), [("llava", True), ("qwen2_vl", False)])
def test_a_judge_of_the_same_family_is_noted(
    tmp_path: Path, parameter: str, model_type: str, noted: bool
):
    write_rows(tmp_path, [["a", "b"]])
    (tmp_path / "own.py").write_text(
        "from dataclasses import dataclass\nfrom unidpo_mm.pipelines.scorer import Scorer\n"
        f"@dataclass(frozen=True)\nclass Own(Scorer):\n    {parameter}: str = ''\nSCORER = Own\n",
        encoding="utf-8",
    )
    judge = model_in(tmp_path / "judge", "---\nlicense: mit\n---\n", model_type)
    value = f"{LOCAL}{judge}" if parameter == "judge" else judge
    making = load_make_recipe(
        write_made_recipe(
            tmp_path,
            model={"name_or_path": model_in(tmp_path / "policy")},
            sample={"n": 2},
            score={"own": {"scorer": "./own.py", parameter: value}},
        )
    )
    facts = model_facts(making)
    assert [(fact.role, fact.license) for fact in facts] == [
        ("generator", "unknown"),
        ("own", "mit"),
    ]
    assert bool(family_notes(facts)) is noted


def test_a_lora_adapter_has_the_license_of_its_base(tmp_path: Path):
    write_rows(tmp_path, [["a", "b"]])
    base = model_in(tmp_path / "base", "---\nlicense: gemma\n---\n")
    lora = tmp_path / "lora"
    lora.mkdir()
    config = {"base_model_name_or_path": base}
    (lora / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    model = {"name_or_path": str(lora)}
    (facts,) = model_facts(
        load_make_recipe(write_made_recipe(tmp_path, model=model, sample={"n": 2}))
    )
    assert (facts.license, facts.model_type) == ("gemma", "llava")


# ---- size and browser ----


@pytest.mark.slow
def test_a_page_of_five_thousand_rows_stays_small(tmp_path: Path):
    draw = numpy.random.default_rng(0)
    for number in range(50):
        pixels = draw.integers(0, 256, (320, 320, 3), dtype=numpy.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    texts = [f"{'word ' * length}{'x' * 2000}" for length in (9, 40, 150)]
    with (tmp_path / "rows.jsonl").open("w", encoding="utf-8") as stream:
        for number in range(5000):
            row = {
                "id": f"p{number}",
                "prompt": f"{'<image>' * 4}Question {number}? {'Why? ' * 900}",
                "images": [f"{(number + k) % 50}.png" for k in range(4)],
                "responses": [{"text": f"{text} {number}"} for text in texts],
            }
            stream.write(json.dumps(row) + "\n")
    score = {
        "brief": {"scorer": "rules", "max_words": 100},
        "long": {"scorer": "rules", "min_words": 20},
        "total": {"scorer": "combine", "use": {"brief": 1.0, "long": 0.5}},
    }
    making = load_make_recipe(write_made_recipe(tmp_path, score=score))
    write_files(making, make(making))
    page = tmp_path / "made" / "made.html"
    assert page.read_text(encoding="utf-8").count("data:image/jpeg") == 160
    assert page.stat().st_size < 5e6, f"{page.stat().st_size:,} bytes"


@pytest.mark.browser
@pytest.mark.parametrize("size", ["1280,900", "500,900"])
def test_the_page_fits_its_window_and_writes_to_no_console(folder: Path, page: str, size: str):
    path = folder / f"with-width-{size}.html"
    path.write_text(page.replace("</body>", f"{WIDTH}</body>"), encoding="utf-8")
    done = browse(path, f"--window-size={size}", "--dump-dom")
    assert "CONSOLE" not in done.stderr
    needed, available = map(int, re.findall(r"width (\d+) of (\d+)", done.stdout)[-1])
    assert needed <= available

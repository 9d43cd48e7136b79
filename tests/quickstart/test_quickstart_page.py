"""The end of the demo on a tiny model: evaluation, screen and page."""

import io
import json
import random
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console
from unidpo_mm_eval.results.comparison import compare
from unidpo_mm_quickstart import training_rows
from unidpo_mm_quickstart.charts import moving_average
from unidpo_mm_quickstart.evaluation import Evaluation, commands, control_result, evaluate
from unidpo_mm_quickstart.exercises import math_tasks, text_tasks
from unidpo_mm_quickstart.images import KINDS, Emoji, draw_canvases
from unidpo_mm_quickstart.page import GALLERY_SIZE, write_page
from unidpo_mm_quickstart.summary import Summary, print_summary
from unidpo_mm_quickstart.training_rows import DOMAINS, DemoData

IMAGES = 14


@dataclass(frozen=True)
class End:
    """Data, results and page of the last stage of the demo."""

    data: DemoData
    before: Evaluation
    summary: Summary
    page: str


def small_data(folder: Path) -> DemoData:
    """Write test images of plain squares, their questions, and held-out pairs."""
    emoji = []
    for number, kind in enumerate(KINDS):
        file = folder / f"{kind}.png"
        Image.new("RGBA", (72, 72), (60 * number, 90, 200, 255)).save(file)
        emoji.append(Emoji(concept=kind, kind=kind, file=file))
    test = draw_canvases(emoji, folder / "images", IMAGES, name="heldout")
    data = DemoData(folder=folder, train=(), test=tuple(test))
    training_rows.write_jsonl(data.file("test_images"), map(training_rows.test_row, test))
    generator = random.Random(0)
    pairs = [training_rows.caption_pair(c, n, generator) for n, c in enumerate(test)]
    tasks = [*math_tasks("heldout", 4, seed=0), *text_tasks("heldout", 4, seed=0)]
    training_rows.write_jsonl(
        data.file("heldout_pairs"), [*pairs, *map(training_rows.task_row, tasks)]
    )
    return data


def history() -> list[dict[str, float]]:
    names = ("loss", "rewards/accuracies", "rewards/margins", "w_qual", "w_perf")
    return [
        {"step": step, "loss": 1 / step, **{f"{d}/{n}": step for d in DOMAINS for n in names}}
        for step in range(1, 12)
    ]


@pytest.fixture(scope="module")
def end(checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> End:
    folder = tmp_path_factory.mktemp("demo")
    data = small_data(folder)
    models = {"before": checkpoint("llava"), "after": checkpoint("llava")}
    before, after = evaluate(models, data, folder / "eval", dtype="float32")
    control = control_result(after.captions, data, folder / "eval", seed=0)
    summary = Summary(
        captions=compare([before.captions, after.captions, control]),
        pairs=compare([before.pairs, after.pairs]),
        commands=commands(models, data, folder / "eval", dtype="float32"),
        page=folder / "report.html",
        tuned=folder / "uni_dpo",
    )
    write_page(summary, data, history(), summary.page)
    return End(data, before, summary, summary.page.read_text(encoding="utf-8"))


def test_evaluation_has_every_sample_and_domain(end: End):
    values = end.before.values()
    assert len(end.before.captions.per_sample) == IMAGES
    assert len(end.before.pairs.per_sample) == IMAGES + 8
    assert {f"pairs_{domain}" for domain in DOMAINS} < set(values)
    assert all(0 <= values[name] <= 1 for name in ("accuracy", "hallucination_rate", "pairs_all"))


def test_the_screen_has_four_numbers_with_intervals_the_control_and_the_next_commands(end: End):
    stream = io.StringIO()
    print_summary(end.summary, Console(file=stream, width=120), seconds=200)
    text = stream.getvalue()
    numbers = list(end.summary.numbers())
    assert len(numbers) == 4
    for number in numbers:
        assert number.title in text
        assert number.before == number.after  # the same model
        assert re.fullmatch(r"\d+ \[\d+, \d+\]", number.after)
    assert [bool(number.control) for number in numbers] == [True, True, True, False]
    for command in ("unidpo-mm chat", "unidpo-mm init", "unidpo-mm train"):
        assert command in text
    assert "3 min 20 s" in text
    assert str(end.summary.page) in text


def test_the_page_shows_the_first_images_with_both_responses(end: End):
    figures = re.findall(r"<figure>(.*?)</figure>", end.page, re.DOTALL)
    assert len(figures) == GALLERY_SIZE
    for figure, canvas in zip(figures, end.data.test, strict=False):
        assert f'alt="{canvas.caption}"' in figure
        assert figure.count('class="wrong"') == 2  # the random model's responses
    assert f"The first {GALLERY_SIZE} of {IMAGES} images" in end.page


def test_the_page_has_charts_tables_and_commands_and_loads_nothing(end: End):
    assert end.page.count("<svg") == 2
    for domain in DOMAINS:
        assert f"<!-- {domain} -->" in end.page  # the legend of the chart
    for command in end.summary.commands:
        assert command in end.page
    assert not re.search(r'(?:src|href)="(?!data:|#)', end.page)


def test_the_moving_average_is_centered_and_shorter_at_the_ends():
    assert moving_average([0, 3, 6, 9, 12], 3) == [1.5, 3, 6, 9, 10.5]


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_has_no_error_in_a_browser_and_does_not_scroll_sideways(
    end: End, tmp_path: Path, width: int
):
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    assert chromium, "this test needs Chromium on the path"
    driver = """
<script>
const out = document.createElement("pre");
out.id = "driven";
out.textContent = JSON.stringify({
  wide: document.documentElement.scrollWidth - window.innerWidth,
  images: [...document.images].map(image => image.naturalWidth),
  charts: [...document.querySelectorAll("svg")].map(chart => chart.getBoundingClientRect().width),
});
document.body.append(out);
</script>
"""
    frame = tmp_path / "page.html"
    frame.write_text(end.page.replace("</body>", f"{driver}</body>"), encoding="utf-8")
    # A headless window is at least 500 pixels wide, so the page is tried in a frame
    outer = tmp_path / "outer.html"
    outer.write_text(
        f'<iframe src="page.html" width="{width}" height="2000"></iframe><script>'
        "window.onload = () => { document.body.append(document.querySelector('iframe')"
        ".contentDocument.getElementById('driven').cloneNode(true)); };</script>"
    )
    done = subprocess.run(
        [
            chromium,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--allow-file-access-from-files",
            "--dump-dom",
            outer.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    match = re.search(r'<pre id="driven">(.*?)</pre>', done.stdout)
    assert match, done.stderr[-1000:]
    state = json.loads(match[1])
    assert state["wide"] <= 0
    assert len(state["images"]) == GALLERY_SIZE
    assert all(state["images"])
    assert all(0 < chart <= width for chart in state["charts"])

"""The comparison page in a browser: filters, images, and no errors.

`make test-browser` runs it; it needs Chromium on the path.
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from support.adversarial_responses import red_image
from support.browser import browse
from support.eval_commands import run, text_of

pytestmark = pytest.mark.browser

RESPONSES = {"base": "AABB ", "tuned": "ABAB "}
"""Result -> its responses to five questions with the answer A: both correct, worse, better, ..."""
DRIVER = """
<script>
const seen = {};
for (const button of document.querySelectorAll("[data-filter]")) {
  button.click();
  seen[button.dataset.filter] = {
    count: document.getElementById("count").textContent,
    ids: [...document.querySelectorAll("#samples article")].map(
      e => e.querySelector(".id").textContent.split(" ")[0]),
    pressed: button.getAttribute("aria-pressed"),
  };
}
document.querySelector("[data-filter=all]").click();
const search = document.getElementById("search");
search.value = "number 3";
search.dispatchEvent(new Event("input"));
seen.search = document.getElementById("count").textContent;
search.value = "";
search.dispatchEvent(new Event("input"));
Promise.all([...document.images].map(i => i.decode())).then(() => {
  seen.images = [...document.images].map(i => i.naturalWidth);
}).catch(error => { seen.images = String(error); }).finally(() => {
  const out = document.createElement("pre");
  out.id = "driven";
  out.textContent = JSON.stringify(seen);
  document.body.append(out);
});
</script>
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    data = folder / "data.tsv"
    rows = [f"{n}\tnumber {n}?\t{red_image(40 * n)}\tcat\tdog\tA\n" for n in range(5)]
    data.write_text("index\tquestion\timage\tA\tB\tanswer\n" + "".join(rows))
    results = []
    for name, responses in RESPONSES.items():
        file, result = folder / f"{name}.jsonl", folder / f"{name}.json"
        lines = [json.dumps({"id": n, "response": text}) for n, text in enumerate(responses)]
        file.write_text("\n".join(lines) + "\n")
        words = ("-b", "ai2d", "--data", data, "--predictions", file, "--output", result)
        assert run("score", *words).exit_code == 0
        results.append(result)
    html = folder / "page.html"
    done = run("compare", *results, "--data", data, "--html", html)
    assert done.exit_code == 0, text_of(done)
    return html


def test_filters_show_their_samples_without_errors(page: Path) -> None:
    driven = page.with_name("driven.html")
    text = page.read_text(encoding="utf-8")
    driven.write_text(text.replace("</main>", f"</main>{DRIVER}"), encoding="utf-8")
    done = browse(driven, "--dump-dom")
    actual = re.search(r'<pre id="driven">(.*?)</pre>', done.stdout, re.DOTALL)
    assert actual, done.stderr[-2000:]
    observed: dict[str, Any] = json.loads(actual[1])
    output = {
        name: observed[name]["ids"] for name in ("all", "discordant", "better", "worse", "wrong")
    }
    assert output == {
        "all": ["0", "1", "2", "3", "4"], "discordant": ["1", "2"], "better": ["2"],
        "worse": ["1"], "wrong": ["3", "4"],
    }  # fmt: skip
    assert observed["odd"]["ids"] == ["4"]
    assert observed["discordant"] == {
        "count": "2 of 5 samples",
        "ids": ["1", "2"],
        "pressed": "true",
    }
    assert observed["search"] == "1 of 5 samples"
    assert observed["images"] == [4] * 5
    assert "CONSOLE" not in done.stderr


def test_the_page_fits_a_phone(page: Path) -> None:
    """Only the table, which scrolls, is wider than the window."""
    narrow = page.with_name("narrow.html")
    probe = (
        "<script>document.title = JSON.stringify("
        "[document.documentElement.scrollWidth, window.innerWidth])</script>"
    )
    text = page.read_text(encoding="utf-8")
    narrow.write_text(text.replace("</main>", f"</main>{probe}"), encoding="utf-8")
    done = browse(narrow, "--dump-dom", "--window-size=500,900")
    actual = re.search(r"<title>(.*?)</title>", done.stdout)
    assert actual
    wide, window = json.loads(actual[1])
    assert wide <= window

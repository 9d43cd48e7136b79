"""The lens in a browser: filters, keys, clicks, a phone, and no console message.

`make test-browser` runs it; it needs Chromium on the path.
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from support.browser import browse
from support.ledgers import write_data, write_ledger

from unidpo_mm.lens import lens_page

pytestmark = pytest.mark.browser

DRIVER = """
<script>
const log = {};
const text = (id) => document.getElementById(id).textContent;
const selected = () => document.querySelector("#rows tr[aria-selected=true] td")?.textContent;
const set = (id, value) => {
  document.getElementById(id).value = value;
  document.getElementById(id).dispatchEvent(new Event("input", { bubbles: true }));
};
document.body.focus();
log.start = [text("count"), text("now"), selected()];
const tab = [...document.querySelectorAll("#tabs button")].find((e) => e.textContent === "ignored");
tab.click();
log.pressed = tab.getAttribute("aria-pressed");
document.body.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowUp", bubbles: true }));
log.up = selected();
document.body.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowLeft", bubbles: true }));
log.left = text("now");
set("domain", "math");
log.math = [text("count"), document.querySelectorAll("#rows tr").length];
set("domain", "");
set("search", "r3:");
log.search = text("count");
log.detail = text("detail");
const image = document.querySelector("#detail img");
set("search", "");
const box = document.getElementById("dots").getBoundingClientRect();
const [x, y, index] = dots[0];
const place = { clientX: box.left + x, clientY: box.top + y };
document.getElementById("dots").dispatchEvent(new MouseEvent("click", place));
log.clicked = text("detail").includes(pairs.pair_id[index]);
log.quadrants = [...document.querySelectorAll("#quadrants span")].map((e) => e.textContent);
log.width = [document.documentElement.scrollWidth, window.innerWidth];
image.decode().then(() => { log.image = image.naturalWidth; }).finally(() => {
  const out = document.createElement("pre");
  out.id = "driven";
  out.textContent = JSON.stringify(log);
  document.body.append(out);
});
</script>
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lens")
    rows = write_data(folder / "out", 24)
    write_ledger(folder / "out", [row.pair_id(row.pairs[0]) for row in rows])
    path = folder / "driven.html"
    text = lens_page(folder / "out")
    path.write_text(text.replace("</body>", f"{DRIVER}</body>"), encoding="utf-8")
    return path


def drive(page: Path, *options: str) -> dict[str, Any]:
    done = browse(page, "--dump-dom", *options)
    actual = re.search(r'<pre id="driven">(.*?)</pre>', done.stdout, re.DOTALL)
    assert actual, done.stderr[-2000:]
    assert "CONSOLE" not in done.stderr
    observed: dict[str, Any] = json.loads(
        actual[1].replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">")
    )
    return observed


def test_filters_keys_and_clicks_show_their_pairs(page: Path) -> None:
    observed = drive(page)
    count, now, first = observed["start"]
    assert count == "24 of 24 pairs"
    assert now == "step 18 of 18"
    assert first.startswith("r")
    assert observed["pressed"] == "true"
    assert observed["up"] not in (None, first)
    assert observed["left"] == "step 17 of 18"
    assert observed["math"][0] == "8 of 24 pairs"
    assert observed["search"] == "1 of 24 pairs"
    for words in ("What is 3?", "good </script> 3", "bad & 3", "chosen, score", "3 visits"):
        assert words in observed["detail"]
    assert observed["image"] == 320
    assert observed["clicked"]
    assert len(observed["quadrants"]) == 4
    assert all("of contributions" in text for text in observed["quadrants"])


def test_the_page_fits_a_phone(page: Path) -> None:
    wide, window = drive(page, "--window-size=500,900")["width"]
    assert wide <= window

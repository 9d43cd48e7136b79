"""The built site in headless Chromium: every page at two widths, links, search, no network.

`make test-browser` runs it; it needs Chromium on the path.
"""

import functools
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag

import pytest
from support.markdown_blocks import ROOT

pytestmark = pytest.mark.browser

WIDTHS = (1280, 390)
SEARCH_SECONDS = 8
DRIVER = """<!DOCTYPE html><body style="margin: 0"><script>
const jobs = JOBS, results = [];
const frame = document.createElement("iframe");
frame.style.cssText = "border: 0; height: 900px";
document.body.append(frame);
frame.onload = () => setTimeout(() => {
  const page = frame.contentDocument;
  results.push({
    name: jobs[results.length][0],
    width: jobs[results.length][1],
    content: page.documentElement.scrollWidth,
    heading: page.querySelector("h1").textContent,
    formulas: page.querySelectorAll("math").length,
    plots: page.querySelectorAll("svg.plot").length,
    scripts: frame.contentWindow.__md_scope !== undefined,
  });
  next();
}, 100);
function next() {
  if (results.length === jobs.length) {
    const out = document.createElement("pre");
    out.id = "driven";
    out.textContent = JSON.stringify(results);
    document.body.append(out);
    return;
  }
  const [name, width] = jobs[results.length];
  frame.style.width = width + "px";
  frame.src = name;
}
next();
</script></body>
"""


class Page(HTMLParser):
    """The ids, links and resources of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.resources: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.ids |= {values[name] for name in ("id", "name") if values.get(name)}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if tag in ("script", "img", "iframe") and "src" in values:
            self.resources.append(values["src"])
        if tag == "link" and "href" in values and values.get("rel") != "canonical":
            self.resources.append(values["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(folder)]
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[str, Page]:
    """Return the parsed pages by name."""
    paths = [path for path in site.glob("*.html") if path.name != "404.html"]
    assert len(paths) == len(list((ROOT / "docs").glob("*.md")))
    return {path.name: Page(path.read_text(encoding="utf-8")) for path in sorted(paths)}


@pytest.fixture(scope="module")
def url(site: Path) -> Iterator[str]:
    """Serve the site from this machine."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.startswith("/slow"):  # keeps the page loading while a worker searches
                time.sleep(SEARCH_SECONDS)
            super().do_GET()

        def log_message(self, *_: Any) -> None:
            """Print no requests."""

    handler = functools.partial(Handler, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def browse(address: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Return the page after its scripts have run; no host but this machine can be reached."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    assert browser, "install Chromium to run this test"
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
               "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1", "--dump-dom",
               *options, address]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, timeout=280, check=True)


def test_pages_use_no_other_host(pages: dict[str, Page]) -> None:
    for name, page in pages.items():
        assert not [url for url in page.resources if re.match(r"(?:https?:)?//", url)], name


def test_every_link_inside_the_site_leads_somewhere(pages: dict[str, Page], site: Path) -> None:
    for name, page in pages.items():
        for link in page.links:
            path, anchor = urldefrag(link)
            if re.match(r"[a-z]+:", link):
                continue
            target = path or name
            assert (site / target).exists(), f"{name}: {link}"
            if anchor and target in pages:
                assert unquote(anchor) in pages[target].ids, f"{name}: {link}"


def test_pages_fit_desktops_and_phones_without_errors(
    pages: dict[str, Page], site: Path, url: str
) -> None:
    jobs = [(name, width) for width in WIDTHS for name in pages]
    (site / "driver.html").write_text(DRIVER.replace("JOBS", json.dumps(jobs)))
    done = browse(f"{url}/driver.html", "--window-size=1400,1000", "--virtual-time-budget=120000")
    driven = re.search(r'<pre id="driven">(.*?)</pre>', done.stdout, re.DOTALL)
    assert driven, done.stderr[-2000:]
    results = json.loads(driven[1])
    assert [(result["name"], result["width"]) for result in results] == jobs
    assert not [result for result in results if result["content"] > result["width"]]
    assert all(result["heading"] and result["scripts"] for result in results)
    (method, _) = [result for result in results if result["name"] == "method.html"]
    assert method["formulas"] > 10
    assert method["plots"] == 5
    assert "CONSOLE" not in done.stderr, re.findall(r".*CONSOLE.*", done.stderr)


def check_search(done: subprocess.CompletedProcess[str]) -> None:
    results = re.findall(r'href="([^"]*)" class="md-search-result__link"', done.stdout)
    assert any("method.html" in result for result in results), done.stderr[-2000:]
    assert "CONSOLE" not in done.stderr, re.findall(r".*CONSOLE.*", done.stderr)


def test_the_search_of_files_finds_a_page(site: Path) -> None:
    check_search(browse(f"{site.as_uri()}/index.html?q=tau_good", "--virtual-time-budget=10000"))


def test_the_search_of_a_server_finds_a_page(site: Path, url: str) -> None:
    text = (site / "index.html").read_text(encoding="utf-8")
    slow = '<img src="slow.svg" alt="">'
    (site / "slow.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg"/>')
    (site / "searched.html").write_text(text.replace("</body>", f"{slow}</body>"))
    check_search(browse(f"{url}/searched.html?q=tau_good"))

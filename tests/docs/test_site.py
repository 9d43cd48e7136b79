"""The parts of the site: navigation, links, generated pages, and the curves of its plots."""

import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
import unidpo_mm_eval.authoring
import yaml
from support.markdown_blocks import ROOT, documentation

import unidpo_mm
from unidpo_mm import authoring
from unidpo_mm.cli.page import command_page
from unidpo_mm.losses import weights
from unidpo_mm.losses.uni_dpo import uni_dpo_loss

DOCS = ROOT / "docs"
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
FENCED = re.compile(r"^ *(```+|~~~+).*?^ *\1 *$", re.MULTILINE | re.DOTALL)


def prose_of(page: Path) -> str:
    """Return the text of a page without its blocks and inline code."""
    return re.sub(r"`[^`\n]*`", "", FENCED.sub("", page.read_text(encoding="utf-8")))


def anchors_of(page: Path) -> set[str]:
    """Return the anchors of the headings of a page, as GitHub and the site name them."""
    text = FENCED.sub("", page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    plain = (re.sub(r"[^\w\s-]", "", heading.lower()).strip() for heading in headings)
    return {re.sub(r"\s+", "-", heading) for heading in plain}


@pytest.mark.parametrize("page", documentation(), ids=lambda page: page.name)
def test_links_lead_to_existing_pages_and_headings(page: Path) -> None:
    for link in LINK.findall(prose_of(page)):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.is_file(), link
        assert not anchor or anchor in anchors_of(target), link
        if page.parent == DOCS:  # the site has no other files of the repository
            assert target.parent == DOCS, link


def test_the_navigation_has_every_page() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")

    def pages(item: object) -> list[str]:
        if isinstance(item, str):
            return [item]
        items = item.values() if isinstance(item, dict) else item
        return [page for inner in items for page in pages(inner)]

    listed = pages(yaml.safe_load(text)["nav"])
    assert sorted(listed) == sorted(path.name for path in DOCS.glob("*.md"))


@pytest.mark.parametrize("module", [unidpo_mm, authoring, unidpo_mm_eval.authoring, unidpo_mm_eval])
def test_the_page_of_the_api_has_every_public_name(module: ModuleType) -> None:
    text = (DOCS / "python.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^::: [\w.]+\.(\w+)$", text, re.MULTILINE))
    for members in re.findall(r"members: \[([^\]]*)\]", text):
        listed |= set(members.split(", "))
    assert set(module.__all__) - {"__version__"} <= listed


def test_the_page_of_commands_is_up_to_date(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    written = (DOCS / "command_line.md").read_text(encoding="utf-8")
    assert written == command_page(), "run python -m unidpo_mm.cli.page > docs/command_line.md"


def test_the_curves_of_the_plots_are_those_of_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(DOCS / "tools")
    import curves

    values = np.linspace(-6, 6, 97)
    tensor = torch.from_numpy(values)
    zero = torch.zeros_like(tensor)
    actual = {
        "w_qual": curves.quality_weight(values, eta=0.7),
        "w_perf": curves.performance_weight(values, gamma=3.0, tau_ref=0.8),
        "gate": curves.nll_gate(values, 4.0, tau_good=3.2),
        "loss": curves.pair_loss(values, values, w_qual=0.5, gamma=3.0, tau_ref=0.8),
    }
    output = uni_dpo_loss(
        tensor, zero, zero, zero, zero, zero,
        beta=1.0, gamma=3.0, tau_ref=0.8, nll_lambda=0.0, tau_good=9.0,
    )  # fmt: skip
    expected = {
        "w_qual": weights.quality_weight(tensor, zero, eta=0.7),
        "w_perf": weights.performance_weight(tensor, gamma=3.0, tau_ref=0.8),
        "gate": weights.calibrated_nll_gate(tensor, zero, zero + 4, tau_good=3.2),
        "loss": output.per_pair,
    }
    for name, curve in actual.items():
        np.testing.assert_allclose(curve, expected[name].numpy(), atol=1e-12, err_msg=name)


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_without_torch(tmp_path: Path) -> None:
    """`mkdocs.yml` is strict: a warning ends the build."""
    script = (
        "import sys; from mkdocs.__main__ import cli; "
        f"cli(['build', '--site-dir', {str(tmp_path)!r}], standalone_mode=False); "
        "print(sorted({'torch', 'unidpo_mm', 'transformers'} & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip().endswith("[]")
    assert len(list(tmp_path.glob("*.html"))) > len(list(DOCS.glob("*.md")))

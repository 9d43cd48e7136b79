"""The report of a run in a browser: no console message, and no wider than a phone.

`make test-browser` runs it; it needs Chromium on the path.
"""

from pathlib import Path

import pytest
from support.browser import browse

from unidpo_mm.ledger.alarms import Alarm
from unidpo_mm.report import RunRecord, report_page

pytestmark = pytest.mark.browser

WIDTH = """
<script>
document.title = [document.documentElement.scrollWidth, window.innerWidth].join(" of ");
const out = document.createElement("pre");
out.textContent = "width " + document.title;
document.body.append(out);
</script>
"""


@pytest.mark.parametrize("size", ["1200,1600", "500,900"], ids=["screen", "phone"])
def test_the_report_opens_without_console_messages(tmp_path: Path, size: str) -> None:
    logs = [
        {
            "step": step,
            "loss": 1 / step,
            "grad_norm": step % 3,
            "w_qual": 0.6,
            "w_perf": 0.5,
            "eval_loss": 2 / step,
            "eval_rewards/accuracies": step / 20,
        }
        for step in range(1, 21)
    ]
    record = RunRecord(
        directory=Path("a-run-with-a-long-name-that-has-no-place-to-break" * 2),
        recipe={
            "data": {"sources": [{"path": "pairs.jsonl", "scores": {"judge": "a judge"}}]},
            "train": {"learning_rate": 1e-5, "optim": "adamw_torch"},
        },
        settings={"loss": {"name": "uni_dpo", "eta": 0.7}, "versions": {"torch": "2.14.1"}},
        state={"global_step": 20, "max_steps": 20, "log_history": logs},
    )
    alarm = Alarm("flat", "All weights are equal.", "Raise eta.")
    page = report_page(record, [alarm], ended=True)
    path = tmp_path / "report.html"
    path.write_text(page.replace("</body>", f"{WIDTH}</body>"))
    done = browse(path, f"--window-size={size}", "--dump-dom")
    assert "CONSOLE" not in done.stderr
    width = done.stdout.rpartition("width ")[2].split("<")[0]
    needed, available = map(int, width.split(" of "))
    assert needed <= available

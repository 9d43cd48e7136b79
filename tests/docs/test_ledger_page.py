"""docs/ledger.md lists the columns and the alarms of the code."""

import re
from pathlib import Path

from unidpo_mm.ledger import alarms
from unidpo_mm.ledger.columns import COLUMNS

PAGE = (Path(__file__).parents[2] / "docs" / "ledger.md").read_text(encoding="utf-8")


def rows(title: str) -> list[list[str]]:
    """Return the cells of the table that follows its titles."""
    table = PAGE[PAGE.index(title) :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in table]


def test_every_column_is_listed_with_its_meaning() -> None:
    listed = [(name, meaning.replace("\\|", "|")) for name, meaning in rows("| column |")]
    assert listed == [(f"`{column.name}`", column.meaning) for column in COLUMNS]


def test_every_alarm_is_listed_with_its_threshold() -> None:
    names = re.findall(r'Alarm\(\s*"([^"]+)"', Path(alarms.__file__).read_text(encoding="utf-8"))
    listed = dict(rows("| alarm |"))
    assert list(listed) == names
    assert f"{-alarms.FALLEN} nats" in listed["chosen log-probs fall"]
    assert f"{alarms.COLLAPSED:.0%}".replace("%", " %") in listed["contributions collapse"]
    assert f"{alarms.NEARLY_ALL:.0%}".replace("%", " %") in listed["gate always open"]
    assert f"{alarms.FEW_VISITS:.0%}".replace("%", " %") in listed["one part of the data dominates"]
    scores = listed["score range unfit for eta"]
    assert f"below {alarms.FLAT} or above {alarms.STEEP:g}" in scores
    assert f"above {alarms.CORRELATED}" in listed["weights depend on length"]

"""The messages of docs/troubleshooting.md are those that the commands print."""

from pathlib import Path

import pytest
from support.documented_messages import BLOCK, PAGE, SITUATIONS, message_of, write_world
from support.forked_runs import preload

WRITTEN = {match["name"]: match["text"] for match in BLOCK.finditer(PAGE.read_text("utf-8"))}
UPDATE = "run python tests/support/documented_messages.py"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    preload()
    return write_world(tmp_path_factory.mktemp("world"))


def test_the_page_shows_every_situation() -> None:
    assert WRITTEN.keys() == SITUATIONS.keys()


@pytest.mark.parametrize("name", list(SITUATIONS)[::5])
def test_the_message_is_the_documented_one(name: str, world: Path) -> None:
    assert WRITTEN[name].rstrip() == message_of(name, world), UPDATE


@pytest.mark.slow
def test_all_messages_are_the_documented_ones(world: Path) -> None:
    different = [name for name in SITUATIONS if WRITTEN[name].rstrip() != message_of(name, world)]
    assert not different, UPDATE

"""A hundred thousand rows with ten thousand images: two minutes and two gigabytes at most."""

import json
import random
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest
from builders import make_image

ROWS, IMAGES = 100_000, 10_000
WORDS = [f"word{number}" for number in range(2000)]


def write_rows(folder: Path) -> Path:
    draw = random.Random(0)
    (folder / "images").mkdir()
    base = make_image(1, (640, 480))
    for number in range(IMAGES):
        base.putpixel((0, 0), (number % 256, number // 256, 0))
        base.save(folder / "images" / f"{number}.jpg", quality=60)

    def text(words: int) -> str:
        return " ".join(draw.choices(WORDS, k=words))

    path = folder / "rows.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for number in range(ROWS):
            record = {
                "prompt": text(20),
                "chosen": text(draw.randint(20, 80)),
                "rejected": text(draw.randint(20, 80)),
                "score_chosen": draw.randint(5, 10),
                "score_rejected": draw.randint(0, 6),
            }
            if number % 2:
                record["images"] = [f"images/{draw.randrange(IMAGES)}.jpg"]
            file.write(json.dumps(record) + "\n")
    return path


@pytest.mark.slow
def test_a_large_data_set_is_checked_soon_and_in_little_memory(tmp_path: Path) -> None:
    path = write_rows(tmp_path)
    command = [sys.executable, "-m", "unidpo_mm", "data", "check", str(path), "--scale", "0,10"]
    began = time.monotonic()
    done = subprocess.run(
        [*command, "--html", str(tmp_path / "page.html")], capture_output=True, check=False
    )
    seconds = time.monotonic() - began
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stdout[-500:] + done.stderr[-500:]
    assert b"100,000" in done.stdout
    assert b"No problems found." in done.stdout
    assert min(seconds, used.ru_utime + used.ru_stime) < 120  # wall time is long on a busy machine
    assert used.ru_maxrss < 2_000_000  # kilobytes

"""Measure how fast a run on many rows starts, and how much memory its rows take.

    python benchmarks/large_data.py 100000 [FOLDER]

writes rows with images into the folder (a temporary one by default), and prints the time of three
stages: the first reading, which writes the rows to the cache, and two starts that open them. A
start reads the sources, looks up the lengths of all rows, splits and digests them, makes the
micro-batches of an epoch, and reads 1,000 random rows. Rows are not encoded: their lengths are
written into the index as if an earlier start had measured them, because encoding takes the same
time as before. Each stage runs in a process of its own. CPU times are printed as well, since other
programs may slow down a stage.
"""

import json
import multiprocessing
import os
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

IMAGES = 10_000
"""Number of distinct images."""


def write_data(folder: Path, rows: int) -> None:
    """Write rows with one image each."""
    from PIL import Image

    (folder / "images").mkdir()
    for number in range(min(IMAGES, rows)):
        color = (number % 256, number // 256 % 256, 7)
        Image.new("RGB", (16, 16), color).save(folder / f"images/{number}.png")
    draw = random.Random(0)
    words = "the image shows a small red house and two green trees near water".split()
    with (folder / "rows.jsonl").open("w") as file:
        for number in range(rows):
            texts = [" ".join(draw.choices(words, k=draw.randrange(10, 60))) for _ in range(2)]
            row = {
                "prompt": f"<image>What is in image {number}?",
                "images": [f"images/{number % IMAGES}.png"],
                "chosen": f"{texts[0]} {number}",
                "rejected": texts[1],
                "score_chosen": draw.randrange(5, 10),
                "score_rejected": draw.randrange(5),
            }
            file.write(json.dumps(row) + "\n")


def read(folder: Path) -> Any:
    """Return the rows of the file."""
    from unidpo_mm.config import SourceOptions
    from unidpo_mm.data.load import load_rows

    return load_rows([SourceOptions(path=str(folder / "rows.jsonl"))])


def first_start(folder: Path) -> None:
    """Read all rows, and write their lengths into the index."""
    from unidpo_mm.cache.row_index import NUMBERS, add_rows, index_path
    from unidpo_mm.data.row_table import table_of

    digests = table_of(read(folder)).digests()
    draw = random.Random(1)
    values = dict.fromkeys(NUMBERS, 0) | {"pairs": 1, "images": 16}
    lengths = ([draw.randrange(10, 60), draw.randrange(10, 60)] for _ in digests)
    add_rows(
        index_path("large"),
        {
            digest.tobytes(): {**values, "prompt": 30, "responses": responses}
            for digest, responses in zip(digests, lengths, strict=True)
        },
    )


def next_start(folder: Path) -> None:
    """Prepare a run on the rows, make the micro-batches of an epoch, and read random rows."""
    from unidpo_mm.data import measure, preflight
    from unidpo_mm.data.batches import GroupBatchSampler, GroupDataset
    from unidpo_mm.data.digest import data_digest
    from unidpo_mm.data.row_table import columns_of
    from unidpo_mm.data.split import split_rows

    measure.encoding_fingerprint = lambda adapter: "large"
    rows = read(folder)
    adapter: Any = None  # every row is in the index
    counts, problems = preflight.survey(rows, adapter)
    assert not problems
    assert counts.rows == len(rows)
    training, _ = split_rows(rows, 0.01, seed=0)
    json.dumps(data_digest(training).to_json())
    units = columns_of(training).units.tolist()
    batches = list(GroupBatchSampler(GroupDataset(training, adapter), units, 8, seed=0))
    draw = random.Random(2)
    for batch in draw.choices(batches, k=1000):
        assert training[batch[0]].images


def measured(name: str, stage: Callable[[Path], None], folder: Path) -> None:
    """Run a stage and print its times and the memory that it added."""
    import unidpo_mm.data.load
    import unidpo_mm.data.preflight  # noqa: F401 # its memory is not that of the rows

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, cpu = time.perf_counter(), time.process_time()
    stage(folder)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(f"{name:12}  {seconds:7.1f} s  {cpu:7.1f} s CPU  {memory / 2**20:5.2f} GiB", flush=True)


def main() -> None:
    """Run all stages."""
    rows = int(sys.argv[1])
    with tempfile.TemporaryDirectory(dir=sys.argv[2] if len(sys.argv) > 2 else None) as name:
        folder = Path(name)
        os.environ["UNIDPO_MM_CACHE"] = str(folder / "cache")
        write_data(folder, rows)
        time.sleep(2.5)  # files that were changed just now are not trusted
        stages = (("first", first_start), ("second", next_start), ("third", next_start))
        for stage, function in stages:
            process = multiprocessing.get_context("fork").Process(
                target=measured, args=(stage, function, folder)
            )
            process.start()
            process.join()
            if process.exitcode:
                sys.exit(f"the stage '{stage}' failed")


if __name__ == "__main__":
    main()

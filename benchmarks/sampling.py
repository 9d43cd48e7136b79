"""CPU time of eight responses per image prompt: sampled together, and in eight runs of one each.

python benchmarks/sampling.py MODEL ROWS [PROMPTS]

MODEL is a vision-language checkpoint, ROWS a file of rows with images. Both ways alternate in one
process with one thread, and give the same responses.
"""

import statistics
import sys
import time
from collections.abc import Callable

import torch

from unidpo_mm.adapter import AdapterOptions
from unidpo_mm.config import SourceOptions
from unidpo_mm.data.load import ReadOptions, load_rows
from unidpo_mm.inference.checkpoint import find_checkpoint, load_checkpoint
from unidpo_mm.inference.decoding import Decoding, Sampling
from unidpo_mm.inference.noise import noise_key
from unidpo_mm.inference.samples import Sampler

RESPONSES = 8
NEW_TOKENS = 8
ROUNDS = 3


def main(model: str, rows: str, count: int = 16) -> None:
    """Measure both ways and print the median of their ratio."""
    torch.set_num_threads(1)
    loaded = load_checkpoint(find_checkpoint(model), dtype="float32", device="cpu")
    adapter = loaded.adapter(AdapterOptions())
    source = load_rows([SourceOptions(path=rows)], ReadOptions(incomplete=True))
    prompts = [adapter.encode_prompt(row) for row in source[:count]]
    sampler = Sampler(
        loaded.model,
        adapter,
        Decoding(max_new_tokens=NEW_TOKENS),
        sampling=Sampling(),
        device="cpu",
    )

    def texts(numbers: range) -> list[list[str]]:
        keys = [[noise_key(0, str(n), k) for k in numbers] for n in range(len(prompts))]
        return [[r.text for r in group] for group in sampler.generate(prompts, keys)]

    def one_by_one() -> list[list[str]]:
        single = [texts(range(k, k + 1)) for k in range(RESPONSES)]
        return [[single[k][n][0] for k in range(RESPONSES)] for n in range(len(prompts))]

    ratios = []
    texts(range(2))  # decides whether prompts can be shared
    for _ in range(ROUNDS):
        together, shared = timed(lambda: texts(range(RESPONSES)))
        separate, repeated = timed(one_by_one)
        ratios.append(together / separate)
        equal = sum(
            a == b for x, y in zip(shared, repeated, strict=True) for a, b in zip(x, y, strict=True)
        )
        print(f"together {together:.2f} s, one by one {separate:.2f} s, {equal} equal responses")
    print(f"together / one by one: {statistics.median(ratios):.2f}")


def timed(run: Callable[[], list[list[str]]]) -> tuple[float, list[list[str]]]:
    """Return CPU seconds and the result."""
    start = time.process_time()
    result = run()
    return time.process_time() - start, result


if __name__ == "__main__":
    main(*sys.argv[1:3], *map(int, sys.argv[3:4]))

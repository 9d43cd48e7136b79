"""Memory and efficiency of large runs, from bytes and FLOPs; nothing here is a measurement.

    python benchmarks/scale_arithmetic.py docs/many_devices.md

writes the tables between the markers of a page. Each formula is one function.
"""

import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

GB = 1e9
VOCABULARY = 152_000
TOKENS = 8192
"""Tokens of a micro-batch, padding included."""

MICRO_BATCHES = (2048, 8192, 32768)
"""The same, for the efficiency."""

LORA_SHARE = 0.005
"""Weights of a LoRA adapter of rank 16 on all linear layers, per weight of the model."""

LAYER_BYTES = 45
"""Bytes that a layer keeps per token and element of its width while it is computed again."""

MATMUL = 400e12
"""FLOP per second of a GPU (H100, bf16) in products of these sizes."""

IN_NODE = 300e9
BETWEEN_NODES = 40e9
"""Bytes per second and GPU of collective calls, NVLink and 400 Gbit/s network."""

GPUS_PER_NODE = 8
CARD = 80.0
"""Gigabytes of a GPU."""


@dataclass(frozen=True)
class Size:
    """A model size: weights, decoder layers and width."""

    name: str
    weights: float
    layers: int
    width: int


SIZES = (
    Size("2B", 2.2e9, 28, 1536),
    Size("7B", 8.3e9, 28, 3584),
    Size("32B", 33.5e9, 64, 5120),
    Size("72B", 73.4e9, 80, 8192),
)
GPUS = (1, 8, 64)


def root_bytes(size: Size) -> float:
    """Return the bytes of embedding and head in bf16, which FSDP2 keeps gathered in a step."""
    return 2 * 2 * VOCABULARY * size.width


def layer_bytes(size: Size) -> float:
    """Return the bytes of the largest unit that is gathered at a time, twice for the prefetch."""
    return 2 * 2 * (size.weights - 2 * VOCABULARY * size.width) / size.layers


def activation_bytes(size: Size, tokens: int = TOKENS) -> float:
    """Return the bytes of activations with every layer checkpointed.

    The inputs of all layers in bf16, and one layer that is computed again.
    """
    return tokens * size.width * (2 * size.layers + LAYER_BYTES)


def full_ddp(size: Size, gpus: int) -> float:
    """Weights, gradients and two moments in float32: 16 bytes per weight."""
    return 16 * size.weights


def full_zero2(size: Size, gpus: int) -> float:
    """Weights in bf16 whole; gradients in bf16, master weights and moments divided."""
    return 2 * size.weights + 14 * size.weights / gpus


def full_sharded(size: Size, gpus: int) -> float:
    """Sixteen bytes per weight, divided (FSDP2 and ZeRO-3), and what is gathered."""
    return 16 * size.weights / gpus + root_bytes(size) + layer_bytes(size)


def full_hybrid(size: Size, gpus: int) -> float:
    """The same, divided within a node only."""
    return full_sharded(size, min(gpus, GPUS_PER_NODE))


def lora_ddp(size: Size, gpus: int) -> float:
    """Frozen weights in bf16, and 16 bytes per weight of the LoRA adapter."""
    return (2 + 16 * LORA_SHARE) * size.weights


def lora_sharded(size: Size, gpus: int) -> float:
    """The same, divided, and what is gathered."""
    return lora_ddp(size, gpus) / gpus + root_bytes(size) + layer_bytes(size)


def lora_hybrid(size: Size, gpus: int) -> float:
    """The same, divided within a node only."""
    return lora_sharded(size, min(gpus, GPUS_PER_NODE))


def whole_copy(size: Size) -> float:
    """A frozen copy of the model as the reference, in bf16 and whole on every GPU."""
    return 2 * size.weights


State = Callable[[Size, int], float]
STATES: tuple[tuple[str, State], ...] = (
    ("full, DDP", full_ddp),
    ("full, ZeRO-2", full_zero2),
    ("full, FSDP2 or ZeRO-3", full_sharded),
    ("full, FSDP2 within nodes", full_hybrid),
    ("LoRA, DDP", lora_ddp),
    ("LoRA, FSDP2 or ZeRO-3", lora_sharded),
    ("LoRA, FSDP2 within nodes", lora_hybrid),
)


def needed(state: State, size: Size, gpus: int) -> float:
    """Return the gigabytes per GPU: state and activations, with a cached reference."""
    return (state(size, gpus) + activation_bytes(size)) / GB


def computing_seconds(tokens: int, *, lora: bool) -> float:
    """Return the seconds of computing per weight of a micro-batch: forward, again, and backward.

    Each pass is 2 FLOP per weight and token; the backward pass of trained weights is two passes,
    that of frozen ones is one.
    """
    return 2 * (3 if lora else 4) * tokens / MATMUL


def moving_seconds(gpus: int, *, lora: bool, divided: int) -> float:
    """Return the seconds of communication per weight of a micro-batch.

    Divided weights are gathered in bf16 for the forward and again for the backward pass. Gradients
    of trained weights are reduced in float32: scattered where weights are divided, otherwise (and
    between the groups of hybrid sharding) by an all-reduce, which moves them twice.

    Args:
        gpus: All GPUs.
        lora: Whether a LoRA adapter trains.
        divided: The number of GPUs among which weights are divided; 1 for DDP.
    """
    trained = LORA_SHARE if lora else 1.0
    share = (divided - 1) / divided
    copies = gpus // divided
    within = IN_NODE if divided <= GPUS_PER_NODE else BETWEEN_NODES
    between = IN_NODE if gpus <= GPUS_PER_NODE else BETWEEN_NODES
    gathered_and_scattered = (2 * 2 + 4 * trained) * share
    reduced = 2 * 4 * trained / divided * (copies - 1) / copies
    return gathered_and_scattered / within + reduced / between


def efficiency(gpus: int, tokens: int, *, lora: bool, divided: int) -> tuple[float, float]:
    """Return the share of time spent computing: nothing overlaps, and everything does.

    Both times grow with the number of weights, so their ratio is the same for every size.
    """
    computing = computing_seconds(tokens, lora=lora)
    moving = moving_seconds(gpus, lora=lora, divided=divided)
    return computing / (computing + moving), computing / max(computing, moving)


def longest_row(size: Size, state: State, gpus: int) -> int:
    """Return the tokens of the longest row that fits on a GPU with every layer checkpointed."""
    free = 0.9 * CARD * GB - state(size, gpus)
    return max(0, int(free / activation_bytes(size, 1)))


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def memory_table() -> str:
    """Return the gigabytes per GPU of every state; bold where they do not fit."""
    rows = []
    for name, state in STATES:
        cells = []
        for size in SIZES:
            values = [needed(state, size, gpus) for gpus in GPUS]
            cells.append(
                " / ".join(f"{v:.0f}" if v < 0.9 * CARD else f"**{v:.0f}**" for v in values)
            )
        rows.append([name, *cells])
    rows.append(["frozen copy, in addition", *(f"{whole_copy(s) / GB:.0f}" for s in SIZES)])
    return table(["per GPU, on 1 / 8 / 64 GPUs", *(size.name for size in SIZES)], rows)


def efficiency_table() -> str:
    """Return the range of the efficiency of every way to divide the work."""
    ways = (("DDP", 1), ("FSDP2 or ZeRO-3", None), ("FSDP2 within nodes", GPUS_PER_NODE))
    rows = []
    for lora in (False, True):
        for name, limit in ways:
            for gpus in GPUS[1:]:
                if limit == GPUS_PER_NODE == gpus:
                    continue  # one node: the same as dividing among all
                cells = []
                for tokens in MICRO_BATCHES:
                    low, high = efficiency(gpus, tokens, lora=lora, divided=limit or gpus)
                    cells.append(f"{100 * low:.0f} to {100 * high:.0f} %")
                rows.append([f"{'LoRA' if lora else 'full'}, {name}, {gpus} GPUs", *cells])
    return table(["time spent computing", *(f"{n} tokens" for n in MICRO_BATCHES)], rows)


def length_table() -> str:
    """Return the longest rows that fit, in thousands of tokens."""
    rows = []
    for name, state in STATES[2:3] + STATES[4:6]:
        for gpus in GPUS[:1] if state is lora_ddp else GPUS[1:]:
            lengths = [longest_row(size, state, gpus) // 1000 for size in SIZES]
            rows.append(
                [
                    f"{name}, {gpus} GPU{'s' * (gpus > 1)}",
                    *(f"{n} k" if n else "none" for n in lengths),
                ]
            )
    return table(["longest row in tokens", *(size.name for size in SIZES)], rows)


TABLES = {"memory": memory_table, "efficiency": efficiency_table, "length": length_table}


def with_tables(page: str) -> str:
    """Return a page with its tables computed again."""
    for name, make in TABLES.items():
        block = re.compile(rf"(<!-- table: {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        content = make() + "\n"
        page = block.sub(lambda match, text=content: match[1] + text + match[2], page)
    return page


if __name__ == "__main__":
    for path in map(Path, sys.argv[1:]):
        path.write_text(with_tables(path.read_text(encoding="utf-8")), encoding="utf-8")

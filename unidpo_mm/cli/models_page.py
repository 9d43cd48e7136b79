"""Write the table of docs/models.md and the page docs/model_types.md from the model families.

Run ``python -m unidpo_mm.cli.models_page docs``.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from ..config.page import updated_page
from ..model_types import ModelType
from ..modeling.memory_estimate import LORA_RANK, METHODS, TOKENS, estimate
from .model_table import model_types

__all__ = ["TABLE", "models_table", "types_page"]

TABLE = "models"
"""The title of the table in docs/models.md."""

COMMAND = re.compile(r"pip install '[^']+'")

INTRODUCTION = f"""# Model types

A section per model type with images: what it supports, and the memory that training takes.
[Models](models.md) has the types at a glance and the meaning of the units.

The memory is computed, not measured, for one GPU, `bf16: true`, AdamW, activation checkpointing, a
micro-batch of {TOKENS} tokens, and a reference that is cached or the model without its LoRA
adapter. With $P$ weights of the language model, $Q$ of them in its linear layers, and $V$ weights
of vision tower and projector, the bytes are:

| | LoRA | QLoRA (4 bits) | full |
| --- | --- | --- | --- |
| weights | $2 (P + V) + 6 A$ | $2 (P - Q + V) + 0.516 Q + 6 A$ | $2 V + 6 P$ |
| gradients | $4 A$ | $4 A$ | $4 P$ |
| optimizer | $8 A$ | $8 A$ | $8 P$ |
| activations | $T (2 d L + c) + 4096 W$ | $T (2 d L + c) + 4096 W$ | $T (4 d L + c) + 4096 W$ |

- Weights that are trained are kept in float32, and copied to bfloat16 in the forward pass: 6 bytes.
- $A = r \\sum (\\text{{inputs}} + \\text{{outputs}})$ is the number of weights of a LoRA adapter of
  rank $r = {LORA_RANK}$ on all linear layers of the language model.
- A weight in NF4 takes 4 bits, 8 bits per 64 weights, and 32 bits per 16,384 weights.
- Of $T$ tokens, the inputs of all $L$ layers of width $d$ are kept. One layer at a time is computed
  again, and keeps about $c = 20 d + 6 q + 4 k + 8 f$ bytes per token ($26 d$ in full training,
  where hidden states are in float32), where $q$ and $k$ are the widths of queries and keys, and $f$
  is that of the feed-forward layer. $W$ is the size of the vocabulary: the logits of 512 tokens and
  their gradients, with `train.logps_chunk_size: 512`. By default, a GPU computes up to a gigabyte
  of logits at a time.

A frozen copy of the model (`reference: frozen_copy`) adds the trained weights once more. Images add
activations of the vision tower, and PyTorch keeps a reserve. A GB has 10⁹ bytes.

`python -m unidpo_mm.cli.models_page docs` generates this page; a test keeps it up to date."""


def models_table() -> list[str]:
    """Return the lines of the table in docs/models.md."""
    return [
        "| models | model type | family | unit of `image_max_size` | layouts | videos | notes |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        *(
            f"| [{kind.title}](model_types.md#{kind.name}) | `{kind.name}` | `{family}` "
            f"| {kind.image_unit or 'fixed size'} | {'all' if kind.packs else 'plain'} "
            f"| {'yes' if kind.videos else 'no'} | {_notes(kind)} |"
            for family, kind in _with_images()
        ),
    ]


def types_page() -> str:
    """Return the page of all types with images, as Markdown."""
    sections = ["\n".join(_section(family, kind)) for family, kind in _with_images()]
    return "\n\n".join([INTRODUCTION, *sections]) + "\n"


def _with_images() -> list[tuple[str, ModelType]]:
    return [(family, kind) for family, kind in model_types() if kind.images != "none"]


def _notes(kind: ModelType) -> str:
    return "; ".join(COMMAND.sub(r"`\g<0>`", note) for note in kind.caveats)


def _section(family: str, kind: ModelType) -> Iterator[str]:
    """Yield the lines of the section of a type."""
    yield f"## {kind.name}"
    yield ""
    yield f"{kind.title}, family `{family}`."
    yield ""
    yield f"- Layouts of rows: {', '.join(kind.layouts)}."
    yield f"- Images per row: {kind.images}. Videos: {'yes' if kind.videos else 'no'}."
    if kind.image_unit is None:
        yield "- Image size: fixed, so `model.image_max_size` is refused."
    else:
        yield f"- Image size: `model.image_max_size` is a number of {kind.image_unit}."
    if kind.caveats:
        yield f"- Notes: {_notes(kind)}."
    yield ""
    yield from _memory(kind)


def _memory(kind: ModelType) -> Iterator[str]:
    """Yield the lines of the table of memory."""
    if not kind.sizes:
        yield "The memory of its models is not listed here: use the formula above."
        return
    yield "| model | training | weights | gradients | optimizer | activations | total, GB |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for size in kind.sizes:
        for method, text in METHODS.items():
            needed = estimate(size, method)
            parts = (needed.weights, needed.gradients, needed.optimizer, needed.activations)
            cells = [_gigabytes(part) for part in (*parts, needed.total)]
            yield f"| {size.name} | {text} | {' | '.join(cells)} |"


def _gigabytes(number: float) -> str:
    gigabytes = number / 1e9
    return f"{gigabytes:.0f}" if gigabytes >= 99.5 else f"{gigabytes:.1f}"


if __name__ == "__main__":
    directory = Path(sys.argv[1])
    page = directory / "models.md"
    text = updated_page(page.read_text(encoding="utf-8"), {TABLE: models_table()})
    page.write_text(text, encoding="utf-8")
    (directory / "model_types.md").write_text(types_page(), encoding="utf-8")

"""An image token without an embedding is accepted if the model replaces it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from builders import batch_of, load_tiny, logp_model_of, mixed_rows

from unidpo_mm.errors import DataError
from unidpo_mm.modeling.logp_model import compute_logps

Checkpoint = Callable[[str], Path]

BEYOND = 3
"""Distance of the image token from the last row of the embedding, plus one."""


def with_image_token_outside(base: Path, folder: Path) -> Path:
    """Copy a checkpoint and give its image token an id beyond the embedding."""
    shutil.copytree(base, folder)
    config = json.loads((folder / "config.json").read_text())
    setting = next(name for name in ("image_token_id", "image_token_index") if name in config)
    old, new = config[setting], config["text_config"]["vocab_size"] + BEYOND
    (folder / "config.json").write_text(json.dumps({**config, setting: new}))
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    (token,) = [item for item in tokenizer["added_tokens"] if item["id"] == old]
    token["id"] = new
    tokenizer["model"]["vocab"][token["content"]] = new
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    return folder


def test_gemma_gives_the_same_log_probs(checkpoint: Checkpoint, tmp_path: Path) -> None:
    base, rows = checkpoint("gemma3"), mixed_rows(images=True)
    outside = load_tiny(with_image_token_outside(base, tmp_path / "outside"))
    inside = load_tiny(base)
    with torch.no_grad():
        first, second = (
            compute_logps(logp_model_of(loaded), loaded.adapter, batch_of(loaded, rows))
            for loaded in (inside, outside)
        )
    assert torch.allclose(first, second, atol=1e-6)
    for row in rows:
        outside.adapter.check_fit(row, outside.adapter.encode(row))


def test_other_models_refuse_the_row(checkpoint: Checkpoint, tmp_path: Path) -> None:
    loaded = load_tiny(with_image_token_outside(checkpoint("internvl"), tmp_path / "outside"))
    row = next(row for row in mixed_rows(images=True) if row.images)
    with pytest.raises(DataError, match="and the model's embedding has"):
        loaded.adapter.check_fit(row, loaded.adapter.encode(row))

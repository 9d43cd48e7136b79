"""Tiny reward models for tests: classifiers and process reward models with their tokenizers."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers.processors import TemplateProcessing

from model_adapters._tiny import CHATML, save_tokenizer, tiny_text

BOS = "<s>"
MARK = "<extra_0>"
TOKENS = ("<pad>", "<|im_start|>", "<|im_end|>", BOS, MARK)


def tokenizer_in(
    folder: Path, *, template: str | None = CHATML, adds_bos: bool = False, padding_side: str = ""
) -> Any:
    """Write a tokenizer, which may write a first token by itself; return it."""
    roles: dict[str, Any] = {"pad_token": "<pad>", "bos_token": BOS, "eos_token": "<|im_end|>"}
    roles |= {"padding_side": padding_side} if padding_side else {}
    tokenizer = save_tokenizer(folder, special=TOKENS, template=template, **roles)
    if adds_bos:
        tokenizer._tokenizer.post_processor = TemplateProcessing(
            single=f"{BOS} $A", special_tokens=[(BOS, tokenizer.bos_token_id)]
        )
        tokenizer.save_pretrained(folder)
    return tokenizer


def reward_model_in(
    folder: Path,
    *,
    labels: int = 1,
    pad: bool = True,
    sizes: Mapping[str, int] | None = None,
    **tokenizer: Any,
) -> Any:
    """Write a tiny classifier and return it."""
    from transformers import LlamaConfig, LlamaForSequenceClassification

    settings = {**tiny_text(tokenizer_in(folder, **tokenizer)), **(sizes or {})}
    if not pad:
        settings["pad_token_id"] = None
    torch.manual_seed(0)
    model = LlamaForSequenceClassification(LlamaConfig(**settings, num_labels=labels)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(8)
    model.save_pretrained(folder)
    return model


def without_tensors(folder: Path, prefix: str) -> None:
    """Remove tensors from a checkpoint."""
    path = folder / "model.safetensors"
    tensors = {k: v for k, v in load_file(path).items() if not k.startswith(prefix)}
    save_file(tensors, path, {"format": "pt"})


def step_model_in(folder: Path, *, scale: float = 1.0, **tokenizer: Any) -> tuple[Any, Any]:
    """Write a tiny process reward model; return its backbone and its head.

    Its configuration refers to code of the checkpoint, as that of Qwen2.5-Math-PRM does.
    """
    from transformers import Qwen2Config, Qwen2Model

    settings = tiny_text(tokenizer_in(folder, **tokenizer))
    torch.manual_seed(1)
    backbone = Qwen2Model(Qwen2Config(**settings)).eval()
    width = settings["hidden_size"]
    head = torch.nn.Sequential(
        torch.nn.Linear(width, width), torch.nn.ReLU(), torch.nn.Linear(width, 2)
    )
    with torch.no_grad():
        for parameter in backbone.parameters():
            if parameter.ndim > 1:
                parameter.mul_(8)
        head[2].weight.mul_(scale)
        if scale > 1:  # steps of both kinds
            hidden = backbone(torch.arange(settings["vocab_size"]).unsqueeze(0)).last_hidden_state
            head[2].bias -= head(hidden)[0].median(0).values
    backbone.save_pretrained(folder)
    tensors = {f"model.{name}": value for name, value in backbone.state_dict().items()}
    tensors |= {f"score.{name}": value.clone() for name, value in head.state_dict().items()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["architectures"] = ["Qwen2ForProcessRewardModel"]
    config["auto_map"] = {"AutoModel": "modeling_qwen2_rm.Qwen2ForProcessRewardModel"}
    (folder / "config.json").write_text(json.dumps(config))
    return backbone, head

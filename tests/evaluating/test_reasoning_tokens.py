"""Reasoning tags that a tokenizer counts among its special tokens stay in a response."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from asking import talking_checkpoint
from transformers import AddedToken, AutoTokenizer
from unidpo_mm_eval.models.decoding import KeepsReasoning

from unidpo_mm.reasoning import is_reasoning_token, strip_reasoning


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder: Path = talking_checkpoint(tmp_path_factory.mktemp("model") / "llava", "llava")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    special = ("[THINK]", "[/THINK]", "<|channel|>", "<|message|>", "<|end|>", "<|image|>")
    tokenizer.add_tokens([AddedToken(text, special=True) for text in special])
    return tokenizer


def kept(tokenizer: Any, text: str) -> str:
    def decode(ids: Any) -> str:
        return str(tokenizer.decode(ids, skip_special_tokens=True)).strip()

    adapter: Any = SimpleNamespace(processor=tokenizer, decode=decode, pad_token_id=0)
    wrapped = KeepsReasoning(adapter)
    assert wrapped.pad_token_id == 0
    return wrapped.decode(tokenizer.encode(text, add_special_tokens=False))


def test_tags_stay_and_other_special_tokens_do_not(tokenizer: Any) -> None:
    said = kept(tokenizer, "[THINK]What is?[/THINK]Hello<|image|>")
    assert "[THINK]" in said
    assert "<|image|>" not in said
    assert strip_reasoning(said).text == strip_reasoning(kept(tokenizer, "Hello")).text


def test_a_response_without_reasoning_is_decoded_as_before(tokenizer: Any) -> None:
    assert kept(tokenizer, "Hello<|end|>") == kept(tokenizer, "Hello")


def test_tokens() -> None:
    tags = ("<think>", "[/THINK]", "<|channel|>", "<|START_THINKING|>", "\u25c1/think\u25b7")
    assert all(map(is_reasoning_token, tags))
    assert not any(map(is_reasoning_token, ("<s>", "<|im_end|>", "[INST]", "<image>", "a<think>")))

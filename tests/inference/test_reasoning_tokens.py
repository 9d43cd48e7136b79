"""Reasoning tags that are special tokens of a tokenizer stay in the response."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.small_benchmarks import varied_checkpoint
from transformers import AddedToken, AutoTokenizer

from unidpo_mm.inference.local_model import ReasoningAdapter
from unidpo_mm.reasoning import is_reasoning_token, strip_reasoning


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder: Path = varied_checkpoint(tmp_path_factory.mktemp("model") / "llava", "llava")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    special = ("[THINK]", "[/THINK]", "<|channel|>", "<|message|>", "<|end|>", "<|image|>")
    tokenizer.add_tokens([AddedToken(text, special=True) for text in special])
    return tokenizer


def kept(tokenizer: Any, text: str) -> str:
    def decode(ids: Any) -> str:
        return str(tokenizer.decode(ids, skip_special_tokens=True)).strip()

    adapter: Any = SimpleNamespace(processor=tokenizer, decode=decode, pad_token_id=0)
    wrapped = ReasoningAdapter(adapter)
    assert wrapped.pad_token_id == 0
    return wrapped.decode(tokenizer.encode(text, add_special_tokens=False))


def test_tags_stay_and_other_special_tokens_do_not(tokenizer: Any) -> None:
    responses = kept(tokenizer, "[THINK]What is?[/THINK]Hello<|image|>")
    assert "[THINK]" in responses
    assert "<|image|>" not in responses
    assert strip_reasoning(responses).text == strip_reasoning(kept(tokenizer, "Hello")).text


def test_a_response_without_reasoning_is_decoded_as_before(tokenizer: Any) -> None:
    assert kept(tokenizer, "Hello<|end|>") == kept(tokenizer, "Hello")


def test_tokens() -> None:
    tags = ("<think>", "[/THINK]", "<|channel|>", "<|START_THINKING|>", "\u25c1/think\u25b7")
    assert all(map(is_reasoning_token, tags))
    assert not any(map(is_reasoning_token, ("<s>", "<|im_end|>", "[INST]", "<image>", "a<think>")))

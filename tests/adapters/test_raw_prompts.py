"""Plain prompts: one BOS, no EOS before a response, and no second chat template unnoticed."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import make_image, row
from tokenizers.processors import TemplateProcessing
from transformers import AddedToken

from unidpo_mm.adapter import AdapterOptions
from unidpo_mm.modeling.families import family_for
from unidpo_mm.modeling.load import ModelSource, load_adapter, load_config

Checkpoint = Callable[[str], Path]
BOS, EOS = "<|im_start|>", "<|im_end|>"
BASE = {
    "bos": (f"{BOS} $A", [BOS], []),
    "eos": (f"$A {EOS}", [], [EOS]),
    "both": (f"{BOS} $A {EOS}", [BOS], [EOS]),
    "two first ones": (f"{BOS} <pad> $A", [BOS, "<pad>"], []),
}
"""Tokens that a tokenizer adds before and after a text."""


def adapter_of(folder: Path, **options: Any) -> tuple[Any, Any]:
    source = ModelSource(name_or_path=str(folder))
    config = load_config(source)
    adapter: Any = load_adapter(
        source, AdapterOptions(**options), config=config, family=family_for(config)
    )
    return adapter, getattr(adapter.processor, "tokenizer", adapter.processor)


def add_specials(tokenizer: Any, added: str) -> None:
    names = [name for name in (BOS, EOS, "<pad>") if name in added]
    tokenizer._tokenizer.post_processor = TemplateProcessing(
        single=added, special_tokens=[(n, tokenizer.convert_tokens_to_ids(n)) for n in names]
    )


@pytest.mark.parametrize("model_type", ["llama", "llava"])
@pytest.mark.parametrize("kind", BASE)
@pytest.mark.parametrize("images", [0, 2])
def test_a_raw_prompt_has_each_first_token_once_and_no_last_token(
    checkpoint: Checkpoint, model_type: str, kind: str, images: int
) -> None:
    if images and model_type == "llama":
        images = 0
    added, first, _ = BASE[kind]
    adapter, tokenizer = adapter_of(checkpoint(model_type), prompt_style="raw")
    add_specials(tokenizer, added)
    start = "".join(first)
    images = [make_image(1)] * images
    for written in ("", start):
        example = row("r", f"{written}Q: Hi\nA:", (" Hello", " No"), images=images)
        group = adapter.encode(example)
        text = tokenizer.decode(group.prompt_ids).replace("<image>", "")
        assert text == f"{start}Q: Hi\nA:"
        assert torch.equal(group.prompt_ids, adapter.encode_prompt(example).prompt_ids)
        assert [tokenizer.decode(ids) for ids in group.response_ids] == [
            f" Hello{EOS}",
            f" No{EOS}",
        ]
    assert bool(images) == bool(group.images.tokens)


def test_a_response_tokenized_separately_gets_no_extra_space(checkpoint: Checkpoint) -> None:
    """As sentencepiece tokenizers, which mark the start of a text with a space."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = {letter: n for n, letter in enumerate("\u2581sqaureidQ:\nA.", start=3)}
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2, **letters}
    merges = [("s", "q"), ("sq", "u"), ("squ", "a")]
    for left, right in merges:
        vocabulary[left + right] = len(vocabulary)
    backend = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    backend.decoder = decoders.Metaspace(prepend_scheme="first")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    adapter, _ = adapter_of(checkpoint("llama"), prompt_style="raw")
    adapter.processor = tokenizer
    group = adapter.encode(row("r", "A squ", ("are", "id"), (2.0, 1.0)))
    assert tokenizer.convert_ids_to_tokens(group.prompt_ids.tolist())[-1] == "squ"
    tokens = [tokenizer.convert_ids_to_tokens(ids.tolist()) for ids in group.response_ids]
    assert tokens == [["a", "r", "e", "</s>"], ["i", "d", "</s>"]]


# ---- prompts that contain a template ----

TEMPLATED = {
    "chatml": f"{BOS}user\nHi{EOS}\n{BOS}assistant\n",
    "its end alone": f"Hi{EOS}\n{BOS}assistant\n",
    "Llama 2's": "[INST] Hi [/INST]",
    "Llama 3's": "<|start_header_id|>user<|end_header_id|>\n\nHi",
    "Gemma's": "<start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n",
    "Vicuna's": "USER: Hi ASSISTANT:",
    "DeepSeek's": "<\uff5cUser\uff5c>Hi<\uff5cAssistant\uff5c>",
}


@pytest.mark.parametrize("kind", TEMPLATED)
def test_a_prompt_that_contains_a_template_gives_one_warning(
    checkpoint: Checkpoint, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    adapter, _ = adapter_of(checkpoint("llama"))
    with caplog.at_level(logging.WARNING):
        for number in range(3):
            adapter.encode(row(f"r{number}", TEMPLATED[kind]))
    (record,) = caplog.records
    assert "of data.jsonl row r0 already contains a chat template" in record.getMessage()
    assert "prompt_style: raw" in record.getMessage()


@pytest.mark.parametrize("model_type", ["llama", "llava"])
@pytest.mark.parametrize(
    ("prompt", "options"),
    [
        ("What do <b> and [1] mean? Human: hi", {}),
        ("Compare user and assistant: which is which", {}),
        (TEMPLATED["chatml"], {"prompt_style": "raw"}),
    ],
)
def test_an_ordinary_or_raw_prompt_gives_no_warning(
    checkpoint: Checkpoint,
    caplog: pytest.LogCaptureFixture,
    model_type: str,
    prompt: str,
    options: Any,
) -> None:
    adapter, _ = adapter_of(checkpoint(model_type), **options)
    with caplog.at_level(logging.WARNING):
        adapter.encode(row("r", prompt))
    assert not caplog.records


def test_a_response_that_ends_its_turn_gives_a_warning(
    checkpoint: Checkpoint, caplog: pytest.LogCaptureFixture
) -> None:
    adapter, _ = adapter_of(checkpoint("llama"))
    with caplog.at_level(logging.WARNING):
        adapter.encode(row("r", "Hi", (f"Hello{EOS}", f"No{EOS}\n")))
    (record,) = caplog.records
    assert f"already ends with '{EOS}'" in record.getMessage()
    assert "prompt_style: raw" in record.getMessage()


# ---- sizes of the model ----


def test_the_error_of_a_token_without_an_embedding_names_its_field(checkpoint: Checkpoint) -> None:
    from builders import preflight

    from unidpo_mm.errors import DataError

    adapter, tokenizer = adapter_of(checkpoint("llama"))
    tokenizer.add_tokens([AddedToken("<extra>", special=True)])
    rows = [
        row("a", "Say <extra>"),
        row("b", "Hi", ("Yes", "No <extra>")),
        row("c", "Hi", ("Yes", "No")),
    ]
    with pytest.raises(DataError) as error:
        preflight(rows, adapter)
    size = adapter.limits.embeddings
    assert [problem.where for problem in error.value.problems] == [
        "data.jsonl row a, field 'prompt'",
        "data.jsonl row b, field 'rejected'",
    ]
    assert f"'<extra>' has the id {size}, and the model's embedding has {size} rows" in str(
        error.value
    )


def test_padding_without_an_embedding_is_replaced(checkpoint: Checkpoint) -> None:
    for model_type in ("llama", "llava"):
        adapter, tokenizer = adapter_of(checkpoint(model_type))
        assert adapter.pad_token_id == tokenizer.pad_token_id
        tokenizer.add_special_tokens({"pad_token": "[PAD]"})
        assert tokenizer.pad_token_id >= adapter.limits.embeddings
        assert adapter.pad_token_id == tokenizer.eos_token_id


@pytest.mark.parametrize(
    ("model_type", "sizes", "positions"),
    [
        ("gpt2", {"n_positions": 32}, 32),
        ("opt", {"max_position_embeddings": 32, "ffn_dim": 32, "word_embed_proj_dim": 32}, 32),
        ("gptj", {"n_positions": 32, "rotary_dim": 8}, 32),
        ("llama", {"max_position_embeddings": 32}, None),
        ("bloom", {}, None),
        ("xglm", {"max_position_embeddings": 32, "attention_heads": 4}, None),
    ],
)
def test_learned_positions_follow_from_the_configuration(
    model_type: str, sizes: Any, positions: int | None
) -> None:
    from transformers import AutoConfig

    from model_adapters._limits import ModelLimits

    settings = {
        "vocab_size": 99,
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
    }
    config = AutoConfig.for_model(model_type, **{**settings, **sizes})
    assert ModelLimits.of(config) == ModelLimits(99, positions)


def test_a_row_beyond_the_learned_positions_is_refused_or_dropped(tmp_path: Path) -> None:
    from builders import preflight

    from unidpo_mm.errors import DataError
    from unidpo_mm.plugins import load_family

    folder = load_family("text").tiny(tmp_path / "m", model_type="gpt2", max_position_embeddings=32)
    adapter, _ = adapter_of(folder)
    rows = [row("short", "Hi", ("a", "b")), row("long", "Hello " * 30, ("yes", "no"))]
    with pytest.raises(DataError, match=r"row long.*the model has learned 32 positions. Set data"):
        preflight(rows, adapter)
    assert preflight(rows, adapter, drop_long=True).too_long == 1
    adapter, _ = adapter_of(folder, max_length=32)
    with pytest.raises(DataError, match=r"the prompt has .* max_length is 32"):
        preflight(rows, adapter)

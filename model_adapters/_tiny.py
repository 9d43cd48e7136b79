"""Tiny tokenizers and model sizes for random checkpoints, built offline within milliseconds."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

__all__ = ["CHATML", "TINY_TEXT", "save_tokenizer", "tiny_text"]

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<image>\n' }}"
    "{% elif part['type'] == 'video' %}{{ '<video>\n' }}{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""A ChatML template that accepts strings and lists of parts."""

SPECIAL = ("<pad>", "<|im_start|>", "<|im_end|>", "<image>", "<video>")
SPECIAL_ROLES: dict[str, Any] = {
    "pad_token": "<pad>",
    "bos_token": "<|im_start|>",
    "eos_token": "<|im_end|>",
    "extra_special_tokens": {"image_token": "<image>", "video_token": "<video>"},
}
SAMPLE = (
    "What is in the image? A red square and a blue circle. How many are there? Two. "
    "Compute 3 + 4 * 5. The answer is 23. Write one word. Hello, world! user assistant system"
)

TINY_TEXT: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
}
"""Sizes of a tiny decoder, by their common names in transformers."""


def save_tokenizer(
    folder: Path,
    *,
    special: Sequence[str] = SPECIAL,
    template: str | None = CHATML,
    **settings: Any,
) -> PreTrainedTokenizerFast:
    """Write a byte-level BPE tokenizer with a chat template, trained on one sentence; return it.

    Args:
        folder: The directory.
        special: Special tokens, in the order of their ids.
        template: The chat template; `None` if there is none.
        **settings: The pad, bos and eos tokens, and names of others.
    """
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=384,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator([SAMPLE], trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, chat_template=template, **(settings or SPECIAL_ROLES)
    )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    return tokenizer


def tiny_text(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    """Return the settings of a tiny decoder with the ids of a tokenizer."""
    names = ("bos_token_id", "eos_token_id", "pad_token_id")
    ids = {name: getattr(tokenizer, name) for name in names}
    return {**TINY_TEXT, "vocab_size": len(tokenizer), **ids}

"""Tokenizers, chat templates and decoder sizes of tiny checkpoints with images."""

from pathlib import Path
from typing import Any

from ._tiny import save_tokenizer, tiny_text

__all__ = ["VISION", "chat_template", "ids_of", "text_config", "tokenizer_with"]

BASE = ("<pad>", "<|im_start|>", "<|im_end|>")
VISION: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
"""Sizes of a tiny vision tower, by their common names in transformers."""


def chat_template(image: str, *, video: str = "", bos: str = "") -> str:
    """Return a ChatML template that writes `image` for an image and starts with `bos`.

    It writes `video` for a video, unless that is empty.
    """
    for_video = f"{{% elif part['type'] == 'video' %}}{{{{ '{video}' }}}}" if video else ""
    return (
        f"{{{{ '{bos}' }}}}"
        "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
        "{% if message['content'] is string %}{{ message['content'] }}"
        "{% else %}{% for part in message['content'] %}"
        f"{{% if part['type'] == 'image' %}}{{{{ '{image}' }}}}"
        f"{for_video}"
        "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}{{ '<|im_end|>\n' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )


def tokenizer_with(
    folder: Path,
    special: tuple[str, ...],
    image: str | None,
    *,
    video: str = "",
    bos: str | None = None,
    eos: str = "<|im_end|>",
    **named: str,
) -> Any:
    """Write a tokenizer and return it.

    Args:
        folder: The directory.
        special: Its special tokens besides those of ChatML.
        image: The text of an image in its chat template; `None` if it has none.
        video: The text of a video in its chat template; empty if it has none.
        bos: Its first token; `None` if it has none.
        eos: The token that ends a turn.
        **named: Special tokens that the tokenizer gets as attributes.
    """
    tokens = dict.fromkeys((*BASE, *special, *((bos,) if bos else ())))
    settings: dict[str, Any] = {"pad_token": "<pad>", "eos_token": eos}
    settings |= {"bos_token": bos} if bos else {}
    settings |= {"extra_special_tokens": named} if named else {}
    template = None if image is None else chat_template(image, video=video, bos=bos or "")
    return save_tokenizer(folder, special=tuple(tokens), template=template, **settings)


def text_config(tokenizer: Any, **settings: Any) -> dict[str, Any]:
    """Return the settings of a tiny decoder with heads of 8 dimensions."""
    return {**tiny_text(tokenizer), "head_dim": 8, **settings}


def ids_of(tokenizer: Any, **tokens: str) -> dict[str, int]:
    """Return settings with ids from settings with tokens."""
    return {name: tokenizer.convert_tokens_to_ids(token) for name, token in tokens.items()}

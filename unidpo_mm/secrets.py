"""Masking of tokens and passwords in everything that is printed, logged or written.

A recipe may contain an access token (`train.hub_token`, `model.init_kwargs.token`) or a URL with a
password. Neither may reach a record, a checkpoint, a log or an error message.
"""

import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

__all__ = ["MASK", "is_secret_key", "mask_secrets", "mask_text", "mask_url"]

MASK = "***"

USER_INFO = re.compile(
    r"(?<=://)(?:[^/\s?#'\"]*|[^/\s:@'\"]+:(?!\d{1,5}(?:[/?#\s'\"]|\Z))[^\s'\"]*)@"
)
"""``user:password@``, also with a slash in the password, which is invalid in a URL."""
PARAMETER = re.compile(
    r"(?P<name>[?&;][\w.%-]*(?:key|token|secret|passw|pwd|auth|signature|sig|credential)[\w.%-]*=)"
    r"[^&;\s#'\"]+",
    re.IGNORECASE,
)
HEADER = re.compile(
    r"(?P<name>\b(?:bearer|basic)\s+|\bauthorization['\"]?\s*[:=]\s*['\"]?(?!bearer|basic))"
    r"[\w.~+/=-]{6,}",
    re.IGNORECASE,
)
TOKEN = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{16,}|sk-[A-Za-z0-9_-]{16,}|gh[pousr]_[A-Za-z0-9]{20,}"
    r"|github_pat_\w{20,}|glpat-[\w-]{16,}|AKIA[A-Z0-9]{16}|xox[abprs]-[\w-]{10,})"
)
"""Keys with a known prefix."""

SECRET_WORDS = frozenset(
    "password passwd passphrase secret secrets apikey credential credentials authorization "
    "bearer".split()
)
"""Words of a key that mark its value as secret; ``token`` does only if it is the last."""

SECRET_PAIRS = frozenset(
    {("api", "key"), ("access", "key"), ("private", "key"), ("secret", "key"), ("auth", "key")}
)
"""Two neighboring words of a key that mark its value as secret."""

WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")

KEY_VALUE = re.compile(r"(?P<key>[\w.-]+)(?P<equals>\s*[=:]\s*)(?P<value>[^\s,;'\"{}\[\]]+)")
"""``key=value`` or ``key: value`` in a text, as in an override."""

TOKEN_TYPES = frozenset(
    "image video pad eos bos unk sep cls mask end start stop special new per vision audio boi eoi "
    "placeholder first last next".split()
)
"""Words before ``token`` with which it means a token of the vocabulary."""


def is_secret_key(key: str) -> bool:
    """Return whether a key refers, by its last part, to an access token, password or API key.

    Numbers of tokens (`eval_max_new_tokens`) and names of token types are not secret.
    """
    words = [word.lower() for word in WORDS.findall(key.rsplit(".", 1)[-1])]
    if not words:
        return False
    if any(pair in SECRET_PAIRS for pair in pairwise(words)):
        return True
    if words[-1] in ("token", "tokens"):
        return words[-1] == "token" and TOKEN_TYPES.isdisjoint(words[:-1])
    return not SECRET_WORDS.isdisjoint(words)


def mask_secrets(value: Any, key: str = "") -> Any:
    """Return a copy of nested mappings, lists and texts with every secret replaced by `MASK`.

    Args:
        value: JSON-like values; anything else is returned as it is.
        key: The key that `value` belongs to; a text under a secret key is masked.
    """
    if isinstance(value, Mapping):
        secret = is_secret_key(key)  # then all values below it are
        return {
            name: mask_secrets(item, key if secret else str(name)) for name, item in value.items()
        }
    if isinstance(value, list | tuple):
        masked = [mask_secrets(item, key) for item in value]
        return masked if isinstance(value, list) else tuple(masked)
    if isinstance(value, str):
        return MASK if value and is_secret_key(key) else mask_text(value)
    if isinstance(value, int | float) and not isinstance(value, bool) and is_secret_key(key):
        return MASK
    return value


def mask_url(url: str) -> str:
    """Return a URL with its user, password and key parameters masked."""
    masked = USER_INFO.sub(f"{MASK}@", url)
    return PARAMETER.sub(lambda match: match["name"] + MASK, masked)


def mask_text(text: str) -> str:
    """Return a text with secrets in URLs, headers, keys and ``secret_key=value`` masked."""
    masked = HEADER.sub(lambda match: match["name"] + MASK, mask_url(text))
    return KEY_VALUE.sub(_masked_pair, TOKEN.sub(MASK, masked))


def _masked_pair(match: "re.Match[str]") -> str:
    if match["value"] in ("null", "true", "false") or not is_secret_key(match["key"]):
        return match[0]
    if ":" in match["equals"] and match["key"].lower() == "token":
        return match[0]  # a sentence, as in "unexpected token: x"
    return f"{match['key']}{match['equals']}{MASK}"

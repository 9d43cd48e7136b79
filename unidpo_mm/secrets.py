"""Mask passwords and keys in texts that are printed, logged or written."""

import re

__all__ = ["MASK", "mask_secrets", "mask_url"]

MASK = "***"

USER_INFO = re.compile(
    r"(?<=://)(?:[^/\s?#'\"]*|[^/\s:@'\"]+:(?!\d{1,5}(?:[/?#\s'\"]|\Z))[^\s'\"]*)@"
)
"""``user:password@``, also if the password contains a slash, which is not allowed in URLs."""
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
"""Keys that are recognized by their prefix."""


def mask_url(url: str) -> str:
    """Return a URL with its user, password and key parameters masked."""
    masked = USER_INFO.sub(f"{MASK}@", url)
    return PARAMETER.sub(lambda match: match["name"] + MASK, masked)


def mask_secrets(text: str) -> str:
    """Return a text with the secrets of its URLs and headers, and known kinds of keys, masked."""
    masked = HEADER.sub(lambda match: match["name"] + MASK, mask_url(text))
    return TOKEN.sub(MASK, masked)

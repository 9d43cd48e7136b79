"""Choices of how a row becomes tokens, shared by recipes, the command line and adapters."""

from typing import Literal

__all__ = ["LengthPolicy", "PromptStyle"]

LengthPolicy = Literal["error", "drop", "truncate_response", "shrink_image"]
"""What happens to a row that is longer than allowed."""

PromptStyle = Literal["auto", "chat", "raw"]
"""Whether plain string prompts are rendered by the chat template; `auto`: if there is one."""

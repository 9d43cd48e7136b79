"""LLM judges: models behind an OpenAI-compatible URL or in this process."""

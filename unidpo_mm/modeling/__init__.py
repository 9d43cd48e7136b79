"""Models: loading them, their parts and LoRA adapters, their log-probs, and the reference model."""

__all__: list[str] = []

"""From batches to a trained model: the step, the trainer, metrics, evaluation."""

__all__: list[str] = []

"""Export of trained models: merge or rename, write a model card, and prove the result."""

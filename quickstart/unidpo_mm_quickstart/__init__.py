"""The quick-start: a small vision-language model, trained on images, math and text.

Suggested reading order: `assets` (the downloads), `tower`, `vlm` and `projector` (how the model is
assembled), `images` and `exercises` (the tasks), `training_rows` (the data files), `captions` (the
metrics of captions), `pipeline` (all stages of a run), `comparison`, `report`.
"""

__all__: list[str] = []

"""The quick-start: a real small vision-language model, real pictures, three kinds of task.

Read in this order: `assets` (what is downloaded), `tower`, `vlm` and `projector` (how the model
is put together), `pictures` and `tasks` (what it is asked), `rows` (the training files),
`measure` (the figures).
"""

__all__: list[str] = []

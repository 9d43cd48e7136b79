"""The quick-start: a real small vision-language model, real images, three kinds of task.

Read in this order: `assets` (what is downloaded), `tower`, `vlm` and `projector` (how the model
is put together), `images` and `exercises` (what it is asked), `training_rows` (the files),
`captions` (what it says, and the figures), `pipeline` (the whole), `compare`, `report`.
"""

__all__: list[str] = []

"""From files to batches: formats, images, loading, splitting, encoding, collating."""

__all__: list[str] = []

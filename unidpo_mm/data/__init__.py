"""From files to batches: formats, pictures, loading, splitting, encoding, collating."""

__all__: list[str] = []

"""Evaluation for `unidpo-mm`: a consumer of the core, which never imports it."""

__all__: list[str] = []

"""Stores on disk: reference log-probs, image features and row lengths, each computed once.

`keys` identifies results by content, `reference_store` and `feature_store` keep them, and
`directory` says where the cache is. Everything in it may be deleted at any time.
"""

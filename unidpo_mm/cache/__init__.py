"""What is computed once and kept on disk: log-probs of the reference, and features of images.

`keys` identifies results by content, `reference_store` and `feature_store` keep them, and
`directory` says where the cache is. Everything in it may be deleted at any time.
"""

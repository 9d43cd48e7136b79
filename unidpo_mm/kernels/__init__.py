"""Computations that replace those of transformers: shared-prompt attention and the log-prob head.

A preference group is one prompt with several responses. `packing.py` lets all responses of a group
share one run over the prompt, inside the model's own attention: `branch_attention.py` computes it
piece by piece, `last_layer.py` skips positions of the last layer whose output is not used, and
`token_state.py` recognizes models for which sharing a prompt would be wrong. `logprobs.py` turns
hidden states into log-probs without keeping the logits. The reference for all of them is the plain
layout, one row per response: tests hold them to it in values and gradients.
"""

__all__: list[str] = []

"""From a checkpoint and a benchmark to a file of predictions.

questions.py   a sample becomes a prompt with pictures
checkpoint.py  a folder or name becomes a model with its adapter and a fingerprint
store.py       answers are appended to a file that any kill leaves usable
answering.py   batches of one size, halved where memory runs out, shared by processes
run.py         the flow: answer, merge, score, compare
"""

"""From a model and a benchmark to a file of predictions and a result.

prompts.py     a sample becomes a prompt with images
store.py       predictions are appended to a file that remains usable after any kill
generate.py    batches that depend on the data alone, shared between processes
eval_run.py    a checkpoint, a benchmark and settings become predictions
served.py      the same for a server
flow.py        `eval run`: several checkpoints and benchmarks, scored and compared
callback.py    benchmarks during training
"""

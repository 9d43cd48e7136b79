"""The ledger of a run: one line per pair and visit, with its log-probs, weights and loss.

`columns.py` lists the columns, `files.py` writes and reads them, `tables.py` has the questions that
`unidpo-mm ledger` answers. Training records the lines in `training/ledger_recorder.py`.
"""

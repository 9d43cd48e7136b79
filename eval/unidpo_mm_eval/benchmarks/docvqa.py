"""DocVQA validation: scanned documents, scored by similarity of short answers."""

from ._short_answers import anls_benchmark

BENCHMARK = anls_benchmark("docvqa", "DocVQA validation", file="DocVQA_VAL.tsv", rows=5349)

"""InfoVQA validation: infographics, scored by similarity of short answers."""

from ._short_answers import anls_benchmark

BENCHMARK = anls_benchmark("infovqa", "InfoVQA validation", file="InfoVQA_VAL.tsv", rows=2801)

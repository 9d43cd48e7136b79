"""The kinds of plugins of evaluation; `unidpo_mm.plugins` finds them.

Judges are models and not plugins. Protocols, prompts and suites are data, see `discovery`.
"""

from unidpo_mm.plugins import Kind

CURRENT = "the current directory"

BENCHMARKS = Kind(
    noun="benchmark",
    where="--benchmark",
    export="BENCHMARK",
    attributes=("name", "title", "read", "scorers", "expected", "files", "scorer"),
    expected="an unidpo_mm_eval.authoring.Benchmark",
    guide="docs/benchmarks.md",
    package="unidpo_mm_eval.benchmarks",
    group="unidpo_mm_eval.benchmarks",
    base=CURRENT,
)
SCORERS = Kind(
    noun="scorer",
    where="--scorer",
    export="SCORER",
    attributes=("metrics", "headline", "measure", "grade_responses"),
    expected="an unidpo_mm_eval.authoring.Scorer",
    group="unidpo_mm_eval.scorers",
    base=CURRENT,
)
"""Scorers that replace those of a benchmark, which are part of the benchmark."""
BRIDGES = Kind(
    noun="tool",
    where="TOOL",
    export="BRIDGE",
    attributes=("name", "title", "endings", "export", "read"),
    expected="an unidpo_mm_eval.bridges.Bridge",
    guide="docs/benchmarks.md",
    package="unidpo_mm_eval.bridges",
    group="unidpo_mm_eval.bridges",
    base=CURRENT,
)

"""`unidpo-mm eval list`: benchmarks, protocols, suites and bridges."""

__all__ = ["list_benchmarks"]


def list_benchmarks() -> None:
    """Show all benchmarks with their protocols, and all protocols."""
    from rich.console import Console

    from ..report.listing import print_benchmarks

    print_benchmarks(Console())

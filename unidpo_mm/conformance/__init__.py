"""Checks that an adapter and a model with images agree with the library, on a few made-up rows.

A mistake in an adapter rarely causes an error. A dropped tensor or a wrong token type gives wrong
log-probs, and a run would silently train on them. So the log-probs of a mixed batch are compared
with those of the model's own processor and forward pass, and another image has to change them.
"""

from .checks import CHECKS, Check, conformance_problems
from .log_probs import check_log_probs, rounding_of_logits
from .start import check_untested_type
from .subject import Subject

__all__ = [
    "CHECKS",
    "Check",
    "Subject",
    "check_log_probs",
    "check_untested_type",
    "conformance_problems",
    "rounding_of_logits",
]

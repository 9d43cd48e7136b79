"""Numbers within five percent, and equal text otherwise: ChartQA's relaxed match."""

from collections.abc import Sequence

__all__ = ["relaxed_match"]

TOLERANCE = 0.05
"""Of the target, inclusive, in floating point as it is written."""


def relaxed_match(prediction: str, answers: Sequence[str], *, strip: bool = True) -> bool:
    """Says whether a prediction matches one of the answers.

    A percentage is a hundredth of the bare number, a target of zero is compared as text, and any
    word beside the number is wrong.

    Args:
        prediction: What the model said, whole.
        answers: Any of them will do.
        strip: Blanks around the prediction do not count; lmms-eval leaves them.
    """
    said = prediction.strip() if strip else prediction
    return any(_matches(said, answer) for answer in answers)


def _matches(prediction: str, target: str) -> bool:
    said, wanted = _number(prediction), _number(target)
    if said is not None and wanted:
        return abs(said - wanted) / abs(wanted) <= TOLERANCE
    return prediction.lower() == target.lower()


def _number(text: str) -> float | None:
    try:
        return float(text.rstrip("%")) / 100.0 if text.endswith("%") else float(text)
    except ValueError:
        return None

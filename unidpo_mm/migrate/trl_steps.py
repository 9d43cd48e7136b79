"""What TRL reads together: data sets and their splits, losses and their weights."""

from typing import Any

from ..plugins import suggestion
from .draft import Draft
from .losses import mixed, put_loss

__all__ = ["complete_data", "complete_loss"]

SAME = ("hinge", "ipo", "robust", "sft")
"""Losses that are called the same."""
OTHERS = (
    "exo_pair", "nca_pair", "sppo_hard", "aot", "aot_unpaired", "apo_zero", "apo_down", "discopop",
)  # fmt: skip
"""Losses of TRL that are not built."""
SMOOTHED = (
    "of these losses only robust reads it there, so it is left out: write loss.label_smoothing to "
    "have it in dpo"
)
TOKENS = "its mean runs over the answers; there it runs over all their tokens"
BUILDERS = ("json", "parquet")
"""Names that stand for a kind of file and not for a data set."""


def complete_data(draft: Draft) -> None:
    """States the sources, and what is evaluated on."""
    draft.hold_out("test_split_size")
    split, tested = draft.values.get("dataset_train_split"), draft.value("dataset_test_split")
    entries = draft.values.get("datasets")
    name = draft.values.get("dataset_name")
    if entries and not isinstance(entries, list):
        draft.problem("datasets", "it is no list", "Write [{path: ..., split: ...}]")
    elif entries:
        sources = [source for entry in entries for source in _sources(draft, entry)]
        draft.put("data.sources", sources, "datasets")
        for key in ("dataset_name", "dataset_train_split", "dataset_test_split"):
            if key in draft.values:
                draft.note(key, "beside `datasets` it is not read")
        return
    if "datasets" in draft.values:
        draft.leave_out("datasets", "")
    if name is None:
        return
    source = {"path": name} if split is None else {"path": name, "split": split}
    draft.put("data.sources", [source], "dataset_name", "dataset_train_split")
    strategy = draft.get("train.eval_strategy")
    if strategy not in (None, "no"):
        held_out = {"path": name, "split": tested or "test"}
        draft.put("data.eval_sources", [held_out], "dataset_test_split", "dataset_name")
    elif "dataset_test_split" in draft.values:
        draft.note("dataset_test_split", "nothing is evaluated, as eval_strategy is 'no'")


def _sources(draft: Draft, entry: Any) -> list[dict[str, Any]]:
    if not isinstance(entry, dict) or "path" not in entry:
        draft.problem("datasets", "an entry has no path", "Write {path: ..., split: ...}")
        return []
    files = entry.get("data_files") if entry["path"] in BUILDERS else None
    paths = [files] if isinstance(files, str) else files or [entry["path"]]
    unread = sorted(set(entry) - {"path", "split"} - ({"data_files"} if files else set()))
    if unread:
        text = f"{', '.join(unread)} of '{entry['path']}' is not read: write those rows into a file"
        draft.note("datasets", text)
    split = {} if entry.get("split") is None else {"split": entry["split"]}
    return [{"path": path, **split} for path in paths]


def complete_loss(draft: Draft) -> None:
    """States the loss, or the weighted sum of losses, with its parameters."""
    stated = draft.value("loss_type")
    there = [str(name) for name in (stated if isinstance(stated, list) else [stated])]
    parts = [_part(draft, name) for name in there]
    for name, part in zip(there, parts, strict=True):
        if part is None:
            is_known = "it is not built" if name in OTHERS else f"it is none{_near(name)}"
            problem = f"there is no loss for '{name}' here: {is_known}"
            draft.problem("loss_type", problem, f"Write one of {', '.join(_known())}")
    known = [part for part in parts if part is not None]
    weights = draft.values.get("loss_weights") or [1.0] * len(there)
    if len(known) < len(there) or not _fit(draft, there, known, weights):
        return
    if len(there) == 1 and (weights == [1] or there == ["sft"] or _weighted(draft)):
        _single(draft, *known[0])
    else:
        keys = ("loss_type", "loss_weights", "beta", "label_smoothing")
        mixture = {
            name: (float(weight), {key: value for key, (value, _) in given.items()})
            for (name, given), weight in zip(known, weights, strict=True)
        }
        mixed(draft, mixture, *keys)
    if "sft" in there:
        draft.note("loss_type", f"'sft': {TOKENS}")
    _notes(draft, there)


def _known() -> list[str]:
    from ..training.aliases import TRL_LOSSES

    return [*TRL_LOSSES, *SAME]


def _near(name: str) -> str:
    return suggestion(name, _known())


def _part(draft: Draft, name: str) -> tuple[str, dict[str, tuple[Any, str]]] | None:
    """Return our loss and its parameters, or None where there is none."""
    from ..training.aliases import TRL_LOSSES

    if name not in _known():
        return None
    ours, given = TRL_LOSSES.get(name, (name, {}))
    parameters: dict[str, tuple[Any, str]] = {}
    if name != "sft":
        parameters["beta"] = (draft.value("beta"), "beta")
    if name == "robust":
        parameters["label_smoothing"] = (draft.value("label_smoothing"), "label_smoothing")
    return ours, {**parameters, **{key: (value, "loss_type") for key, value in given.items()}}


def _fit(draft: Draft, there: list[str], known: list[Any], weights: Any) -> bool:
    """Whether losses and weights make one loss; notes the problems where they do not."""
    before = len(draft.problems)
    numbers = isinstance(weights, list) and all(isinstance(one, int | float) for one in weights)
    if not numbers or len(weights) != len(there):
        problem = f"there are {len(there)} losses, and not as many numbers"
        draft.problem("loss_weights", problem, "Give one weight for each loss of loss_type")
    if len({name for name, _ in known}) < len(known):
        problem = "two of these losses are one loss here"
        draft.problem("loss_type", problem, "Name one of them, with the sum of their weights")
    if _weighted(draft) and there != ["sigmoid"]:
        problem = "the weighting of WPO is built for sigmoid alone"
        draft.problem("use_weighting", problem, "Write loss_type: sigmoid, or leave it out")
    return len(draft.problems) == before


def _weighted(draft: Draft) -> bool:
    return draft.values.get("use_weighting") is True


def _single(draft: Draft, name: str, parameters: dict[str, tuple[Any, str]]) -> None:
    if _weighted(draft):
        put_loss(draft, "wpo", parameters, "use_weighting", "loss_type")
        draft.note("use_weighting", draft.keys["use_weighting"].text)
    else:
        put_loss(draft, name, parameters, "loss_type")
    if draft.values.get("loss_weights") is not None:
        draft.note("loss_weights", "a single loss has the weight 1 here")


def _notes(draft: Draft, there: list[str]) -> None:
    if "label_smoothing" in draft.values and "robust" not in there:
        draft.leave_out("label_smoothing", SMOOTHED)
    if draft.values.get("use_weighting") in (None, False) and "use_weighting" in draft.values:
        draft.leave_out("use_weighting", "")
    if there == ["sft"] and "beta" in draft.values:
        draft.note("beta", "the loss 'sft' has none")

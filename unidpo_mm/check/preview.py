"""Show rows as the model sees them: the tokens of prompt, images and responses in colors."""

from collections.abc import Iterator
from itertools import groupby

from rich.text import Text

from ..adapter import Adapter
from ..records import EncodedGroup, PreferenceRow

__all__ = ["preview"]

STYLES = {
    "prompt": "cyan",
    "image": "black on yellow",
    "video": "black on magenta",
    "response": "green",
    "rejected": "red",
}


def preview(row: PreferenceRow, adapter: Adapter) -> Iterator[Text]:
    """Yield the lines of a row: its place, the legend of the colors with counts, and its tokens."""
    group = adapter.encode(row)
    preferences = group.preferences
    lengths = ", ".join(str(ids.numel()) for ids in group.response_ids)
    videos: list[str | tuple[str, str]] = []
    if row.videos:
        count = f" {group.videos.tokens} tokens of {len(row.videos)}, "
        videos = [("videos", STYLES["video"]), count]
    yield Text(f"{row.where} ({row.id}, {row.domain})", style="bold")
    yield Text.assemble(
        ("prompt", STYLES["prompt"]),
        f" {group.prompt_ids.numel() - group.images.tokens - group.videos.tokens} tokens, ",
        ("images", STYLES["image"]),
        f" {group.images.tokens} tokens of {len(row.images)}, ",
        *videos,
        ("responses", STYLES["response"]),
        f" {lengths} tokens (trained on)",
    )
    yield _prompt(group, adapter)
    chosen = {pair.chosen for pair in preferences.pairs}
    bad = {label.response for label in row.labels if not label.good}
    for number, ids in enumerate(group.response_ids):
        score = float(preferences.scores[number])
        suffix = "" if score != score else f", score {score:g}"
        is_rejected = number in bad or (preferences.pairs and number not in chosen)
        style = STYLES["rejected" if is_rejected else "response"]
        if row.labels:
            suffix += ", labeled bad" if number in bad else ", labeled good"
        yield Text.assemble(
            (f"response {number}{suffix}: ", "dim"), (_decoded(adapter, ids.tolist()), style)
        )


def _prompt(group: EncodedGroup, adapter: Adapter) -> Text:
    """Return the prompt with the number of tokens in place of consecutive tokens of media."""
    text = Text()
    kinds = {media.token_id: kind for kind, media in group.media.items() if media.token_id}
    for kind, run in groupby(group.prompt_ids.tolist(), kinds.get):
        ids = list(run)
        content = _decoded(adapter, ids) if kind is None else f"[{len(ids)} {kind} tokens]"
        text.append(content, style=STYLES[kind or "prompt"])
    return text


def _decoded(adapter: Adapter, ids: list[int]) -> str:
    """Return the text of ids, including special tokens."""
    tokenizer = getattr(adapter.processor, "tokenizer", adapter.processor)
    return str(tokenizer.decode(ids, skip_special_tokens=False))

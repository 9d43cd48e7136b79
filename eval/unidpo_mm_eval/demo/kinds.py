"""The ten kinds of things that the demo's images show, and which of them a caption names."""

import re

__all__ = ["KINDS", "named_kinds"]

KINDS: dict[str, tuple[str, ...]] = {
    "animal": ("animal-",),
    "building": ("place-building", "place-religious"),
    "face": ("face-",),
    "flag": ("country-flag",),
    "food": ("food-",),
    "hand": ("hand-", "hands"),
    "heart": ("heart",),
    "person": ("person-role", "person-fantasy"),
    "plant": ("plant-",),
    "vehicle": ("transport-ground", "transport-air", "transport-water"),
}
"""Kind -> how the subcategories of the emoji list that belong to it begin."""


def named_kinds(caption: str) -> list[str]:
    """Return the kinds that a caption names, in order, each once; plurals count."""
    words = re.findall(r"[a-z]+", caption.lower())
    found = [w if w in KINDS else w.removesuffix("s") for w in words]
    return list(dict.fromkeys(word for word in found if word in KINDS))

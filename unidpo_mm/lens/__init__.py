"""The lens: one self-contained page to look at the ledger of a run, pair by pair."""

from .page import LensOptions, lens_page

__all__ = ["LensOptions", "lens_page"]

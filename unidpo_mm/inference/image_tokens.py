"""Check that a processor writes as many tokens for an image as its model returns features.

A processor computes that number from settings of its own. If they disagree with those of the model,
every batch with images fails deep inside the model, with an error that names no setting.
"""

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from ..adapter import Adapter, ImageSetting, image_settings, place_of
from ..data.collate import collate_prompts
from ..data.images import MemoryImage
from ..errors import DataError, ModelError, Problem, ProcessorError, counted
from ..modeling.logp_model import base_and_head, evaluating
from ..modeling.vision import ENCODERS, Features, takes_features
from ..records import EncodedGroup, MediaKind, MediaSlot, Message, PreferenceRow, Response

__all__ = ["check_image_tokens"]

WHERE = "image check"
SIZES = ((160, 48), (60, 90))
"""Sizes of the images of the made-up rows: a wide and a tall one, which processors tile in
different ways."""
LONGEST_VALUE = 40
"""Maximum number of characters of a value in messages."""


@torch.no_grad()
def check_image_tokens(
    model: Any, adapter: Adapter, device: Any, rows: Sequence[PreferenceRow] = ()
) -> None:
    """Compare image tokens with features, for made-up images and those of some rows.

    Args:
        model: The model, with or without PEFT; a model without images is not checked.
        adapter: Encodes the rows.
        device: The device of the model.
        rows: Rows of the run.

    Raises:
        ProcessorError: If the numbers differ, or the model fails for an image.
    """
    base: Any = base_and_head(model)[0]
    if not takes_features(base):
        return
    with evaluating(base):
        for row in (*map(_row, SIZES), *(row for row in rows if row.media)):
            try:
                group = adapter.encode_prompt(row)
            except DataError:  # the rows of a run are checked before
                continue
            for problem in _problems(base, adapter, row, group, device):
                raise ProcessorError(problem)


def _problems(
    base: Any, adapter: Adapter, row: PreferenceRow, group: EncodedGroup, device: Any
) -> Iterator[Problem]:
    """Yield the problem of each kind of media whose tokens and features do not agree."""
    for kind, media in group.media.items():
        if not media.inputs:
            continue
        settings = image_settings(adapter) if kind == "image" else ()
        try:
            count = _feature_count(base, adapter, group, kind, device)
        except (torch.OutOfMemoryError, ModelError):
            raise
        except Exception as error:  # a tower may raise anything if it gets other sizes
            text = f"{type(error).__name__}: {' '.join(str(error).split())}".rstrip(".")
            problem = f"the model fails for the {kind}s that its processor encodes ({text})"
            yield _problem(adapter, problem, settings)
            continue
        if count != media.tokens:
            number = len(row.images if kind == "image" else row.videos)
            problem = (
                f"the processor writes {counted(media.tokens, f'{kind} token')} for "
                f"{counted(number, kind)}, and the model returns {counted(count, 'feature')}"
            )
            yield _problem(adapter, problem, settings)


def _feature_count(
    base: Any, adapter: Adapter, group: EncodedGroup, kind: MediaKind, device: Any
) -> int:
    """Return the number of features of a kind of media."""
    prompt = collate_prompts([group], pad_token_id=adapter.pad_token_id).to(device)
    inputs = adapter.forward_inputs(prompt)
    encode = getattr(base, ENCODERS[kind])
    accepted = inspect.signature(encode).parameters
    arguments = {name: value for name, value in inputs.items() if name in accepted}
    features = Features.of_output(encode(**arguments, return_dict=True)).of_entries()
    return sum(part.numel() // part.shape[-1] for part in features)


def _problem(adapter: Adapter, message: str, settings: Sequence[ImageSetting]) -> Problem:
    """Return a problem with the settings that may have caused it."""
    differing = [setting for setting in settings if setting.differs]
    if differing:
        message += ": " + "; ".join(map(_comparison, differing))
    remedy = "Use the files of the processor and config.json of the same checkpoint"
    if names := [setting.name for setting in differing or settings]:
        listed = " or ".join(filter(None, (", ".join(names[:-1]), names[-1])))
        remedy = f"Correct {listed} of the processor to match config.json"
    return Problem(place_of(adapter.processor), message, remedy)


def _comparison(setting: ImageSetting) -> str:
    value, expected = str(setting.value), str(setting.model_value)
    name = f"{setting.name} in {setting.place}"
    if max(len(value), len(expected)) > LONGEST_VALUE:
        return f"{name} is not {setting.model_name} in config.json"
    return f"{name} is {value}, and {setting.model_name} in config.json is {expected}"


def _row(size: tuple[int, int]) -> PreferenceRow:
    """Return a row with an image."""
    from PIL import Image

    image = MemoryImage(Image.new("RGB", size, (128, 128, 128)), WHERE)
    return PreferenceRow(
        id=WHERE,
        domain="multimodal",
        source=WHERE,
        where=WHERE,
        messages=(Message("user", (MediaSlot("image"), "a")),),
        images=(image,),
        responses=(Response("a"),),
        raw=True,
    )

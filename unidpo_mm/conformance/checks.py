"""The checks, from cheap to expensive; each returns what is wrong, or nothing."""

import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import Problem, UniDPOError
from ..inference.decoding import Decoding
from ..inference.generation import generate_responses
from ..kernels.packing import enable_packing
from ..modeling.logp_model import evaluating
from ..modeling.lora_targets import part_of
from ..modeling.vision import ENCODERS, PIXELS, Features, MediaFeatures, trains_vision
from ..records import MediaKind
from .library import library_inputs, library_logps
from .probe import with_other_medium
from .subject import Subject

__all__ = ["CHECKS", "Check", "conformance_problems"]

MIN_CHANGE = 1e-6
"""Minimum change of a log-prob by another image; a model that ignores it gives equal numbers."""
NEW_TOKENS = 3
"""Number of tokens to generate."""
NUMBERS = re.compile(r"[0-9][0-9.,e+-]*")
"""Parts in which the same error may differ between checks, such as sizes of tensors."""


@dataclass(frozen=True)
class Check:
    """A check.

    Attributes:
        name: What it checks, in a few words.
        run: Return what is wrong with a subject; `None` if nothing is.
        at_start: Whether it runs before training.
    """

    name: str
    run: Callable[[Subject], str | None]
    at_start: bool = True


def conformance_problems(
    subject: Subject, checks: Sequence[Check] | None = None
) -> Iterator[Problem]:
    """Yield a problem for each check that a model fails.

    Checks whose messages differ only in numbers fail for the same reason, and share a problem.

    Args:
        subject: The model with its adapter.
        checks: The checks to run; `None` for all.
    """
    failures: dict[str, tuple[str, list[str]]] = {}
    for check in CHECKS if checks is None else checks:
        if (message := _message(check, subject)) is not None:
            _, names = failures.setdefault(NUMBERS.sub("", message), (message, []))
            names.append(check.name)
    family = subject.family.name
    remedy = f"Choose another model, or fix the adapter of '{family}', see docs/families.md"
    for message, (first, *others) in failures.values():
        if others:
            message += f" (the same in {', '.join(map(repr, others))})"
        yield Problem(f"conformance check '{first}'", message, remedy)


def _message(check: Check, subject: Subject) -> str | None:
    """Return why a check fails; `None` if it does not."""
    try:
        return check.run(subject)
    except UniDPOError as error:
        return "; ".join(problem.message for problem in error.problems)
    except Exception as error:  # an adapter or model may raise anything
        return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _tensors_reach_the_model(subject: Subject) -> str | None:
    """Return tensors of the processor that the model takes and the adapter does not pass."""
    row = subject.rows[1]  # the one with two images, if there are images
    inputs = library_inputs(subject.adapter, row, row.responses[0].text)
    passed = subject.adapter.forward_inputs(subject.batch([row]).inputs)
    accepted = inspect.signature(subject.base.forward).parameters
    lost = sorted((inputs.keys() & accepted.keys()) - passed.keys())
    return f"the adapter does not pass {', '.join(lost)} to the model" if lost else None


def _tensors_belong_to_tokens_or_images(subject: Subject) -> str | None:
    """Return tensors of images or videos that also run over the tokens of a prompt."""
    for group in subject.groups():
        tokens = group.prompt_ids.numel()
        tensors = (item for media in group.media.values() for item in media.inputs.items())
        for name, tensor in tensors:
            if tokens in tensor.shape[:2] and tensor.ndim > 1 and name not in PIXELS.values():
                return f"'{name}' runs over the tokens of the prompt, and is not padded with them"
    return None


def _features_are_counted(subject: Subject) -> str | None:
    """Compare the numbers of features with those that the adapter declares."""
    if not (subject.has_images and subject.logp_model.takes_features):
        return None
    for row, group in zip(subject.rows, subject.groups(), strict=True):
        for kind, media in group.media.items():
            if not media.inputs:
                continue
            features = _features(subject, [row], kind)
            if len(features) != media.entries:
                return (
                    f"the model returns features in {len(features)} parts for the row with "
                    f"{row.id}, and the adapter declares {media.entries}"
                )
            count = sum(part.numel() // part.shape[-1] for part in features)
            if count != media.tokens:
                return (
                    f"the row with {row.id} has {media.tokens} {kind} tokens, and the model "
                    f"returns {count} features"
                )
    return None


@torch.no_grad()
def _features(subject: Subject, rows: Sequence[Any], kind: MediaKind) -> Sequence[Tensor] | Tensor:
    """Return the features of a kind of media of rows, by part."""
    inputs = subject.adapter.forward_inputs(subject.batch(rows, layout="packed").inputs)
    encode = getattr(subject.base, ENCODERS[kind])
    accepted = inspect.signature(encode).parameters
    arguments = {name: value for name, value in inputs.items() if name in accepted}
    return Features.of_output(encode(**arguments, return_dict=True)).of_entries()


def _batch_equals_library(subject: Subject) -> str | None:
    """Compare a mixed batch with a forward pass of the model per response."""
    groups = subject.groups()
    logps = subject.logps().split([sum(map(len, group.response_ids)) for group in groups])
    for row, group, ours in zip(subject.rows, groups, logps, strict=True):
        with evaluating(subject.logp_model):
            expected = library_logps(subject.model, subject.adapter, row, group, subject.device)
        comparable = ~expected.isnan()
        difference = float((ours - expected)[comparable].abs().max())
        if not difference <= subject.tolerance:
            return (
                f"log-probs of the row with {row.id} differ by {difference:.3g} from those that "
                "the model's own processor and forward pass give"
            )
    return None


def _media_change_the_results(subject: Subject) -> str | None:
    """Return an image or a video that can be replaced without changing log-probs."""
    for row in subject.rows:
        for place in range(len(row.media)):
            other = with_other_medium(row, place)
            change = float((subject.logps([row]) - subject.logps([other])).abs().max())
            if not change > MIN_CHANGE:
                images = len(row.images)
                name = f"image {place + 1}" if place < images else f"video {place + 1 - images}"
                return f"another {name} in the row with {row.id} changes no log-prob"
    return None


def _features_can_be_shared(subject: Subject) -> str | None:
    """Compare pixels with features that are computed once, and that were stored."""
    if not (subject.has_images and subject.logp_model.takes_features):
        return None
    expected = subject.logps()
    if message := _differs(subject, expected, subject.logps(media_once=True), "images once"):
        return message
    if trains_vision(subject.model):  # features are neither shared nor stored
        return None
    shared, again = MediaFeatures(), MediaFeatures()
    subject.logps(media=shared, media_once=True)
    for kind, output in shared.outputs.items():
        entries = [group.media[kind].entries for group in subject.groups() if kind in group.media]
        counts = [count for count in entries if count]
        starts = [sum(counts[:number]) for number in range(len(counts))]
        stored = [
            output.tensors(range(start, start + count))
            for start, count in zip(starts, counts, strict=True)
        ]
        again.outputs[kind] = Features.of_tensors(stored, counts, torch.device(subject.device))
    logps = subject.logps(media=again, media_once=True)
    return _differs(subject, expected, logps, "stored features")


def _weights_have_parts(subject: Subject) -> str | None:
    """Return weights outside of the language model that would train by default."""
    model, parts, frozen = subject.model, subject.family.parts, subject.family.default_freeze
    language = {id(p) for p in model.get_decoder().parameters()}
    language |= {id(p) for p in model.get_output_embeddings().parameters()}
    for name, parameter in model.named_parameters():
        part = part_of(name, parts)
        if part == "other":
            return f"the weight {name} belongs to no part of the family"
        if (part in frozen) == (id(parameter) in language):
            state = "frozen" if part in frozen else "trained"
            return f"the weight {name} is {state} by default, in the part '{part}'"
    return None


def _layouts_agree(subject: Subject) -> str | None:
    """Compare packed and joined rows with plain ones, unless the model cannot use them."""
    if enable_packing(subject.model) is not None:
        return None
    expected = subject.logps()
    for layout in ("packed", "joined"):
        if message := _differs(subject, expected, subject.logps(layout=layout), f"{layout} rows"):
            return message
    return None


def _generation_is_independent(subject: Subject) -> str | None:
    """Compare responses that are generated in a batch with those of a single prompt."""
    adapter, decoding = subject.adapter, Decoding(max_new_tokens=NEW_TOKENS)
    prompts = [adapter.encode_prompt(row) for row in subject.rows]

    def generate(batch: Sequence[Any]) -> list[str]:
        model, device = subject.model.eval(), subject.device
        return [r.text for r in generate_responses(model, adapter, batch, decoding, device=device)]

    for row, prompt, text in zip(subject.rows, prompts, generate(prompts), strict=True):
        (alone,) = generate([prompt])
        if alone != text:
            return f"the response to the row with {row.id} depends on the other rows of its batch"
    return None


def _differs(subject: Subject, expected: Tensor, logps: Tensor, what: str) -> str | None:
    difference = float((logps - expected).abs().max())
    if difference <= subject.tolerance:
        return None
    return f"{what} change log-probs by {difference:.3g}"


CHECKS = (
    Check("tensors of the processor", _tensors_reach_the_model),
    Check("tensors of tokens and images", _tensors_belong_to_tokens_or_images),
    Check("parts of the model", _weights_have_parts),
    Check("numbers of features", _features_are_counted),
    Check("results of the library", _batch_equals_library),
    Check("another image", _media_change_the_results),
    Check("shared features", _features_can_be_shared),
    Check("layouts", _layouts_agree, at_start=False),  # the run chooses its layout by its own rows
    Check("generation", _generation_is_independent, at_start=False),
)
"""All checks, in the order in which they run."""

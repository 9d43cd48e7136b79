"""Prove that an exported model computes what the trained model computes.

A few fixed prompts go through the trained model, with the code that trains and evaluates, and
through the exported files, with nothing but transformers: its processor, its forward pass and its
`generate`. Prompts, log-probs of responses and greedy tokens must be the same.
"""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ..adapter import Adapter, AdapterFamily, generation_inputs
from ..data.collate import collate, collate_prompts
from ..data.images import MemoryImage
from ..errors import DataError, ModelError, Problem
from ..inference.local_model import prompt_style
from ..modeling.families import VISION
from ..modeling.logp_model import LogpModel, compute_logps
from ..records import EncodedGroup, MediaSlot, Message, Pair, PreferenceRow, Response

__all__ = ["Measurement", "Proof", "compare", "measure", "measure_plain", "probe_rows"]

NEW_TOKENS = 12
GREEDY: Mapping[str, Any] = {
    "max_new_tokens": NEW_TOKENS,
    "do_sample": False,
    "num_beams": 1,
    "repetition_penalty": 1.0,
    "temperature": None,
    "top_p": None,
    "top_k": None,
    "return_dict_in_generate": True,
    "output_logits": True,
}
TOLERANCE = 1e-4
HALF_TOLERANCE = 0.1
"""Maximum difference of log-probs, relative to the largest one if that is above 1. In half
precision, two ways to compute the same sum round differently."""

QUESTIONS = ("What is 3 + 4?", "Describe the image in one sentence.")
RESPONSES = ("The answer is 7.", "It shows a red square on a blue background.")
IMAGE_SIZE = (160, 112)


@dataclass(frozen=True)
class Measurement:
    """The results of a model for the probe rows.

    Attributes:
        prompts: For each row, the ids of its prompt.
        logps: For each row, the log-probs of the tokens of its responses, float32.
        tokens: For each row, the ids of a greedy response.
        logits: For each row, the logits [tokens, vocabulary] that the response was chosen by.
        half: Whether the model computes in half precision.
    """

    prompts: tuple[list[int], ...]
    logps: tuple[Tensor, ...]
    tokens: tuple[list[int], ...]
    logits: tuple[Tensor, ...]
    half: bool

    def difference(self, other: "Measurement") -> float:
        """Return the maximum difference of the log-probs of two models."""
        pairs = zip(self.logps, other.logps, strict=True)
        return max(float((left - right).abs().max()) for left, right in pairs)

    @property
    def tolerance(self) -> float:
        """The maximum difference that rounding explains."""
        largest = max(float(logps.abs().max()) for logps in self.logps)
        return (HALF_TOLERANCE if self.half else TOLERANCE) * max(1.0, largest)


@dataclass(frozen=True, kw_only=True)
class Proof:
    """The comparison of an exported model with the trained one.

    Attributes:
        rows: Number of prompts.
        logps: Number of compared log-probs.
        difference: Maximum difference of the log-probs.
        tokens: Number of greedy tokens of the trained model.
        equal_tokens: Number of them that the exported model also generates, counted up to the first
            difference.
    """

    rows: int
    logps: int
    difference: float
    tokens: int
    equal_tokens: int


def probe_rows(family: AdapterFamily, adapter: Adapter) -> list[PreferenceRow]:
    """Return a row of text and, for families with images, one with an image.

    Some models with images do not accept text alone.
    """
    text = _row(0, ())
    if VISION not in family.parts:
        return [text]
    image = Image.linear_gradient("L").resize(IMAGE_SIZE).convert("RGB")
    image.paste((200, 30, 30), (40, 30, 100, 80))
    rows = [_row(1, (MemoryImage(image, "the probe"),))]
    with contextlib.suppress(DataError):
        adapter.encode(text)
        rows.insert(0, text)
    return rows


def _row(number: int, images: tuple[MemoryImage, ...]) -> PreferenceRow:
    slots = tuple(MediaSlot("image") for _ in images)
    return PreferenceRow(
        id=f"probe {number}",
        domain="multimodal" if images else "text",
        source="probe",
        where=f"probe {number}",
        messages=(Message("user", (*slots, QUESTIONS[number])),),
        images=images,
        responses=tuple(Response(text, None) for text in RESPONSES),
        pairs=(Pair(0, 1),),
        raw=True,
    )


@torch.no_grad()
def measure(model: Any, adapter: Adapter, rows: Sequence[PreferenceRow]) -> Measurement:
    """Measure a model with the code that trains and evaluates it."""
    model.eval()
    logp_model = LogpModel(model).eval()
    prompts, logps, tokens, logits = [], [], [], []
    for row in rows:
        group = adapter.encode(row)
        batch = collate([group], pad_token_id=adapter.pad_token_id)
        logps.append(compute_logps(logp_model, adapter, batch))
        prompts.append(group.prompt_ids.tolist())
        prompt = collate_prompts([adapter.encode_prompt(row)], pad_token_id=adapter.pad_token_id)
        inputs = generation_inputs(adapter, prompt)
        response = _greedy(model, inputs, adapter.pad_token_id)
        tokens.append(response[0])
        logits.append(response[1])
    half = _is_half(model)
    return Measurement(tuple(prompts), tuple(logps), tuple(tokens), tuple(logits), half)


@torch.no_grad()
def measure_plain(
    model: Any,
    processor: Any,
    adapter: Adapter,
    rows: Sequence[PreferenceRow],
    *,
    style: str,
    variables: Mapping[str, Any],
) -> Measurement:
    """Measure an exported model with transformers alone.

    Args:
        model: The model, loaded by transformers.
        processor: The processor or tokenizer, loaded by transformers.
        adapter: The adapter of the trained model, for the ids of the responses.
        rows: The probe rows.
        style: How the run rendered prompts: ``auto``, ``chat`` or ``raw``.
        variables: Variables of the chat template.
    """
    model.eval()
    chat = prompt_style(processor, style) == "chat"
    prompts, logps, tokens, logits = [], [], [], []
    for row in rows:
        group = adapter.encode(row)
        inputs = dict(
            _chat_inputs(processor, row, variables)
            if chat
            else _raw_inputs(processor, row, getattr(adapter, "placeholders", {}).get("image"))
        )
        prompts.append(inputs["input_ids"][0].tolist())
        numbers = range(len(group.response_ids))
        logps.append(torch.cat([_logps(model, inputs, group, number) for number in numbers]))
        response = _greedy(model, inputs, adapter.pad_token_id)
        tokens.append(response[0])
        logits.append(response[1])
    half = _is_half(model)
    return Measurement(tuple(prompts), tuple(logps), tuple(tokens), tuple(logits), half)


def compare(expected: Measurement, actual: Measurement, *, where: str, what: str) -> Proof:
    """Compare two measurements of the same rows.

    Args:
        expected: Of the trained model.
        actual: Of the exported model.
        where: The model, for messages.
        what: What the exported model is, for messages.

    Raises:
        ModelError: If prompts, log-probs or greedy tokens differ by more than rounding.
    """
    if expected.prompts != actual.prompts:
        problem = f"the processor of {what} encodes a prompt differently"
        remedy = "Save the processor that the run was trained with in its directory"
        raise ModelError(Problem(where, problem, remedy))
    tolerance = max(expected.tolerance, actual.tolerance)
    difference = expected.difference(actual)
    if not difference <= tolerance:  # also for NaN
        problem = (
            f"log-probs of {what} differ from those of the trained model by {difference:.3g}, and "
            f"rounding explains at most {tolerance:.1g}"
        )
        remedy = "Use --dtype float32, or export it the other way, with or without --merge"
        raise ModelError(Problem(where, problem, remedy))
    equal = 0
    for left, right, logits in zip(expected.tokens, actual.tokens, expected.logits, strict=True):
        same = _equal_beginning(left, right)
        equal += same
        if same < min(len(left), len(right)):
            gap = float(logits[same, left[same]] - logits[same, right[same]])
            if gap > 2 * tolerance:  # else both tokens are equally likely
                problem = f"{what} generates another response than the trained model"
                raise ModelError(Problem(where, problem, "Use --dtype float32"))
    return Proof(
        rows=len(expected.prompts),
        logps=sum(logps.numel() for logps in expected.logps),
        difference=difference,
        tokens=sum(map(len, expected.tokens)),
        equal_tokens=equal,
    )


def _greedy(model: Any, inputs: Mapping[str, Tensor], pad_token_id: int) -> tuple[list[int], Any]:
    """Return the ids of a greedy response and the logits [tokens, vocabulary] of its tokens."""
    output = model.generate(**inputs, **GREEDY, pad_token_id=pad_token_id)
    width = inputs["input_ids"].shape[1]
    return output.sequences[0, width:].tolist(), torch.cat(output.logits).float()


def _chat_inputs(
    processor: Any, row: PreferenceRow, variables: Mapping[str, Any]
) -> Mapping[str, Tensor]:
    (question,) = [part for part in row.messages[0].parts if isinstance(part, str)]
    content: Any = question
    if hasattr(processor, "image_processor"):
        images = [{"type": "image", "image": image.open()} for image in row.images]
        content = [*images, {"type": "text", "text": question}]
    inputs: Mapping[str, Tensor] = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        **variables,
    )
    return inputs


def _raw_inputs(
    processor: Any, row: PreferenceRow, placeholder: str | None
) -> Mapping[str, Tensor]:
    parts = [part if isinstance(part, str) else placeholder for part in row.messages[0].parts]
    images = {"images": [image.open() for image in row.images]} if row.images else {}
    inputs: Mapping[str, Tensor] = processor(
        text="".join(map(str, parts)), return_tensors="pt", **images
    )
    return inputs


def _logps(model: Any, prompt: Mapping[str, Tensor], group: EncodedGroup, number: int) -> Tensor:
    """Return the log-probs of a response after a prompt.

    Its token types are those of the adapter: processors return them for complete rows only.
    """
    response_ids = group.response_ids[number]
    types = {name: (parts[0], parts[1 + number]) for name, parts in group.token_extras.items()}
    ids = prompt["input_ids"]
    width = ids.shape[1]
    inputs = dict(prompt)
    for name, tensor in prompt.items():
        if tensor.shape == ids.shape and name not in types:
            added = torch.ones_like if name == "attention_mask" else torch.zeros_like
            inputs[name] = torch.cat([tensor, added(response_ids)[None].to(tensor)], dim=1)
    for name, (before, after) in types.items():
        before = prompt.get(name, before[None])
        inputs[name] = torch.cat([before, after[None].to(before)], dim=1)
    inputs["input_ids"] = torch.cat([ids, response_ids[None]], dim=1)
    logits = model(**inputs, use_cache=False).logits[0, width - 1 : -1].float()
    return torch.log_softmax(logits, dim=-1).gather(1, response_ids[:, None])[:, 0]


def _equal_beginning(left: Sequence[int], right: Sequence[int]) -> int:
    """Return the number of equal tokens before the first difference."""
    for number, (one_token, other_token) in enumerate(zip(left, right, strict=False)):
        if one_token != other_token:
            return number
    return min(len(left), len(right))


def _is_half(model: Any) -> bool:
    dtypes = {parameter.dtype for parameter in model.parameters()}
    return bool(dtypes & {torch.bfloat16, torch.float16})

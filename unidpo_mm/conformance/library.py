"""Log-probs of responses as the processor and the forward pass of a model give them."""

import inspect
from typing import Any

import torch
from torch import Tensor

from ..adapter import Adapter
from ..records import EncodedGroup, FrameSampling, Message, PreferenceRow

__all__ = ["library_inputs", "library_logps"]

MAX_ENDING = 2
"""Maximum number of tokens after a response that only the adapter or only the template adds."""


def library_inputs(
    adapter: Adapter, row: PreferenceRow, response: str, *, continued: bool = False
) -> dict[str, Tensor]:
    """Return the inputs of a conversation with a response, as the processor returns them.

    Args:
        adapter: The adapter, whose processor and placeholders are used. It chooses the frames of
            videos.
        row: A row whose prompt is a single message.
        response: The response.
        continued: Whether the response follows the generation prompt directly. A chat template may
            render a complete conversation differently, for example without a reasoning block.
    """
    processor: Any = adapter.processor
    tokenizer = getattr(processor, "tokenizer", processor)
    template = getattr(processor, "chat_template", None) or tokenizer.chat_template
    arguments: dict[str, Any]
    if template:
        messages = [*row.messages, *(() if continued else (Message("assistant", (response,)),))]
        turns = [message.turn() for message in messages]
        if tokenizer is processor:  # its templates take strings
            turns = [{**turn, "content": m.text} for turn, m in zip(turns, messages, strict=True)]
        text = processor.apply_chat_template(
            turns, chat_template=template, tokenize=False, add_generation_prompt=continued
        )
        text += response if continued else ""
        if tokenizer.eos_token and not text.rstrip().endswith(tokenizer.eos_token):
            text += tokenizer.eos_token  # the template does not end a turn
        starts = bool(tokenizer.bos_token) and text.startswith(tokenizer.bos_token)
        complete = starts or tokenizer is processor  # the template writes all special tokens
        arguments = {"text": [text], "add_special_tokens": not complete}
    else:
        placeholders = getattr(adapter, "placeholders", {})
        prompt = "".join(
            part
            if isinstance(part, str)
            else placeholders.get(part.kind) or str(getattr(processor, f"{part.kind}_token"))
            for part in row.messages[0].parts
        )
        if "suffix" in inspect.signature(type(processor).__call__).parameters:
            arguments = {"text": [prompt], "suffix": [response]}
        else:
            arguments = {"text": [prompt + response + (tokenizer.eos_token or "")]}
    if row.images:
        arguments["images"] = [[image.open() for image in row.images]]
    if row.videos:
        sampling = getattr(adapter, "frame_sampling", FrameSampling())
        videos = [video.sample(sampling) for video in row.videos]
        arguments["videos"] = [list(video.frames) for video in videos]
        arguments["video_metadata"] = [video.metadata for video in videos]
        arguments["do_sample_frames"] = False
    inputs = processor(**arguments, return_tensors="pt")
    return {
        name: value
        for name, value in inputs.items()
        if isinstance(value, Tensor) and name != "labels"
    }


@torch.no_grad()
def library_logps(
    model: Any, adapter: Adapter, row: PreferenceRow, group: EncodedGroup, device: Any
) -> Tensor:
    """Return the log-probs of the responses to a row, each from a forward pass of its own.

    Returns:
        [M], NaN for an end of turn that only the adapter adds.

    Raises:
        ValueError: If the ids of the group differ from those of the processor.
    """
    start, logps = group.prompt_ids.numel(), []
    for response, ids in zip(row.responses, group.response_ids, strict=True):
        tokens = [*group.prompt_ids.tolist(), *ids.tolist()]
        inputs = _inputs_with(adapter, row, response.text, tokens)
        shared = min(len(tokens), inputs["input_ids"].shape[1])
        on_device = {name: value.to(device) for name, value in inputs.items()}
        logits = model(**on_device).logits[0].float().log_softmax(-1)
        positions = torch.arange(start - 1, shared - 1)
        rendered_logps = logits[positions, ids[: shared - start].to(logits.device)].cpu()
        missing = rendered_logps.new_full((len(ids) - len(rendered_logps),), torch.nan)
        logps += [rendered_logps, missing]
    return torch.cat(logps)


def _inputs_with(
    adapter: Adapter, row: PreferenceRow, response: str, tokens: list[int]
) -> dict[str, Tensor]:
    """Return the processor's inputs that have the ids of the adapter."""
    differences = []
    for continued in (False, True):
        inputs = library_inputs(adapter, row, response, continued=continued)
        expected = inputs["input_ids"][0].tolist()
        shared = min(len(tokens), len(expected))
        if expected[:shared] == tokens[:shared] and len(expected) - len(tokens) in range(
            -MAX_ENDING, MAX_ENDING + 1
        ):
            return inputs
        differences.append(_difference(adapter.processor, tokens, expected))
    raise ValueError(differences[0])


def _difference(processor: Any, tokens: list[int], expected: list[int]) -> str:
    """Return where two lists of ids start to differ."""
    tokenizer = getattr(processor, "tokenizer", processor)
    shared = min(len(tokens), len(expected))
    place = next((n for n in range(shared) if tokens[n] != expected[n]), shared)
    texts = [tokenizer.decode(ids[place : place + 5]) for ids in (tokens, expected)]
    return (
        f"the adapter's ids differ from the processor's at token {place}: "
        f"{texts[0]!r} instead of {texts[1]!r}"
    )

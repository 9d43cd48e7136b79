"""Encoded rows against the processor and chat template of each model."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import (
    IMAGE_TYPES,
    MODEL_TYPES,
    QWEN_TYPES,
    TEXT_TYPES,
    batch_of,
    load_tiny,
    logp_model_of,
    make_image,
    row,
)

from unidpo_mm.adapter import Adapter
from unidpo_mm.errors import DataError
from unidpo_mm.modeling.load import LoadedModel
from unidpo_mm.modeling.logp_model import compute_logps
from unidpo_mm.records import EncodedGroup, MediaSlot, Message, Pair, PreferenceRow

Checkpoint = Callable[[str], Path]
Unchanged = Callable[[str], LoadedModel]
SLOT = MediaSlot("image")

CONVERSATIONS: dict[str, list[Message]] = {
    "single": [Message("user", ("What is 3 + 4?",))],
    "system": [Message("system", ("Write example word.",)), Message("user", ("Hello!",))],
    "turns": [
        Message("user", ("What is it?",)),
        Message("assistant", ("A red square.",)),
        Message("user", ("How many?",)),
    ],
}
WITH_IMAGES: dict[str, list[Message]] = {
    "one image": [Message("user", (SLOT, "What is in the image?"))],
    "image after the text": [Message("user", ("What is this? ", SLOT))],
    "three images over two turns": [
        Message("system", ("Write example word.",)),
        Message("user", (SLOT, "and", SLOT, "How many?")),
        Message("assistant", ("Two.",)),
        Message("user", ("And now? ", SLOT)),
    ],
    "an image in every turn": [
        Message("user", (SLOT, "What is it?")),
        Message("assistant", ("A red square.",)),
        Message("user", (SLOT, "And this?")),
        Message("assistant", ("A blue circle.",)),
        Message("user", ("And this? ", SLOT)),
    ],
    "words first, an image later": [
        Message("user", ("Hello!",)),
        Message("assistant", ("Hello, world!",)),
        Message("user", ("What is in ", SLOT, " the image?")),
    ],
    "the image is long gone": [
        Message("system", ("Write example word.",)),
        Message("user", (SLOT, "What is it?")),
        Message("assistant", ("Square",)),
        Message("user", ("How many?",)),
        Message("assistant", ("Two",)),
        Message("user", ("Compute 3 + 4.",)),
    ],
}
SIZES = [(40, 30), (28, 28), (30, 60)]
RESPONSES = ("The answer is 23.", "A red square and a blue circle", "no")


def row_for(messages: Sequence[Message], responses: Sequence[str] = RESPONSES) -> PreferenceRow:
    count = sum(message.slots("image") for message in messages)
    return row(
        "r1",
        messages,
        responses,
        [float(len(responses) - n) for n in range(len(responses))],
        images=[make_image(n + 1, SIZES[n]) for n in range(count)],
        pairs=[Pair(0, n) for n in range(1, len(responses))],
    )


def as_chat(
    example: PreferenceRow, response: str | None, *, as_parts: bool
) -> list[dict[str, Any]]:
    """Return the row as chat messages of transformers, with images."""
    images = iter(example.images)

    def content(parts: Sequence[Any]) -> Any:
        if not as_parts:
            return "".join(parts)
        return [
            {"type": "text", "text": part}
            if isinstance(part, str)
            else {"type": "image", "image": next(images).open()}
            for part in parts
        ]

    chat = [{"role": m.role, "content": content(m.parts)} for m in example.messages]
    if response is not None:
        chat.append({"role": "assistant", "content": content((response,))})
    return chat


def processed(adapter: Adapter, example: PreferenceRow, response: str | None) -> Any:
    as_parts = hasattr(adapter.processor, "tokenizer")
    return adapter.processor.apply_chat_template(
        as_chat(example, response, as_parts=as_parts),
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        add_generation_prompt=response is None,
    )


def plain_rows(group: EncodedGroup) -> list[list[int]]:
    return [torch.cat([group.prompt_ids, ids]).tolist() for ids in group.response_ids]


CASES = [
    (model_type, name)
    for model_type in MODEL_TYPES
    for name in (*CONVERSATIONS, *(WITH_IMAGES if model_type in IMAGE_TYPES else ()))
]


@pytest.mark.parametrize(("model_type", "name"), CASES)
def test_ids_and_pixels_equal_those_of_the_processor(
    unchanged: Unchanged, model_type: str, name: str
) -> None:
    adapter = unchanged(model_type).adapter
    example = row_for({**CONVERSATIONS, **WITH_IMAGES}[name])
    group = adapter.encode(example)
    for number, (ids, response) in enumerate(zip(plain_rows(group), RESPONSES, strict=True)):
        expected = processed(adapter, example, response)
        assert ids == expected["input_ids"][0].tolist()
        token_keys = {"input_ids", "attention_mask", "token_type_ids", *group.token_extras}
        assert set(group.images.inputs) == set(expected) - token_keys
        for key, tensor in group.images.inputs.items():
            assert torch.equal(tensor, expected[key]), key
        for key, parts in group.token_extras.items():
            marks = torch.cat([parts[0], parts[1 + number]])
            assert marks.tolist() == expected[key][0].tolist(), key


def test_the_comparison_with_the_processor_detects_another_response(unchanged: Unchanged) -> None:
    adapter = unchanged("llava").adapter
    example = row_for(WITH_IMAGES["one image"])
    ids = plain_rows(adapter.encode(example))[0]
    assert ids != processed(adapter, example, RESPONSES[1])["input_ids"][0].tolist()


@pytest.mark.parametrize(("model_type", "name"), CASES)
def test_the_prompt_equals_the_generation_prompt_of_the_processor(
    unchanged: Unchanged, model_type: str, name: str
) -> None:
    adapter = unchanged(model_type).adapter
    example = row_for({**CONVERSATIONS, **WITH_IMAGES}[name])
    group = adapter.encode_prompt(example)
    assert group.prompt_ids.tolist() == processed(adapter, example, None)["input_ids"][0].tolist()
    assert group.response_ids == ()
    assert group.preferences.pairs == ()
    assert torch.equal(group.prompt_ids, adapter.encode(example).prompt_ids)


@pytest.mark.parametrize("model_type", IMAGE_TYPES)
@pytest.mark.parametrize("name", WITH_IMAGES)
def test_there_are_as_many_image_tokens_as_features(
    unchanged: Unchanged, model_type: str, name: str
) -> None:
    loaded = unchanged(model_type)
    group = loaded.adapter.encode(row_for(WITH_IMAGES[name]))
    model: Any = loaded.model
    features = model.model.get_image_features(**group.images.inputs).pooler_output
    assert group.images.tokens == sum(part.shape[0] for part in features) > 0
    assert int((group.prompt_ids == group.images.token_id).sum()) == group.images.tokens


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_the_targets_are_exactly_the_response_and_the_end_of_its_turn(
    unchanged: Unchanged, model_type: str
) -> None:
    loaded = unchanged(model_type)
    example = row_for(CONVERSATIONS["turns"])
    group = loaded.adapter.encode(example)
    processor: Any = loaded.adapter.processor
    tokenizer = getattr(processor, "tokenizer", processor)
    for ids, response in zip(group.response_ids, RESPONSES, strict=True):
        assert tokenizer.decode(ids) == f"{response}<|im_end|>\n"
        assert loaded.adapter.decode(ids.tolist()) == response
    batch = batch_of(loaded, [example])
    scored = batch.inputs.tokens["input_ids"][batch.inputs.segment == 1]
    assert torch.equal(scored, torch.cat(group.response_ids))
    assert torch.equal(batch.targets.ids, torch.cat(group.response_ids))
    assert torch.equal(
        batch.inputs.tokens["input_ids"][batch.targets.row, batch.targets.position + 1], scored
    )


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_the_model_accepts_all_forward_inputs(unchanged: Unchanged, model_type: str) -> None:
    loaded = unchanged(model_type)
    rows = [row_for(CONVERSATIONS["single"])]
    if model_type in IMAGE_TYPES:
        rows.append(row_for(WITH_IMAGES["three images over two turns"]))
    batch = batch_of(loaded, rows)
    family_input = "mm_token_type_ids" if model_type in QWEN_TYPES else "position_ids"
    allowed = {"input_ids", "attention_mask", family_input, *batch.inputs.images.inputs}
    assert set(loaded.adapter.forward_inputs(batch.inputs)) == allowed
    with torch.no_grad():
        logps = compute_logps(logp_model_of(loaded), loaded.adapter, batch)
    assert logps.shape == batch.targets.ids.shape
    assert (logps < 0).all()


# ---- fillers ----


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_a_filler_has_weight_zero_and_runs_every_part(
    checkpoint: Checkpoint, model_type: str
) -> None:
    from unidpo_mm.data.collate import collate

    loaded = load_tiny(checkpoint(model_type))
    group = loaded.adapter.filler()
    assert group.weight == 0
    assert bool(group.images.inputs) == (model_type in IMAGE_TYPES)
    batch = collate([group], pad_token_id=loaded.adapter.pad_token_id)
    assert len(batch.pairs) == 1
    assert batch.pairs.weight.tolist() == [0.0]
    assert batch.responses.weight.tolist() == [0.0]
    compute_logps(logp_model_of(loaded), loaded.adapter, batch).sum().backward()
    base: Any = loaded.model
    for part, prefixes in loaded.family.parts.items():
        grads = [
            p.grad is not None
            for name, p in base.named_parameters()
            if any(name.startswith(prefix) for prefix in prefixes)
        ]
        assert any(grads), part


# ---- templates ----

LLAVA_15 = (
    "{% for message in messages %}{{ message['role'].upper() + ': ' }}"
    "{% for part in message['content'] if part['type'] == 'image' %}{{ '<image>\n' }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] + ' ' }}"
    "{% endfor %}{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
"""The template of LLaVA 1.5: a response ends with a space and without a special token."""


def with_template(folder: Path, template: str | None, **options: Any) -> LoadedModel:
    loaded = load_tiny(folder, **options)
    processor: Any = loaded.adapter.processor
    processor.chat_template = template
    if hasattr(processor, "tokenizer"):
        processor.tokenizer.chat_template = template
    return loaded


def test_a_template_without_an_end_token_gets_one(checkpoint: Checkpoint) -> None:
    adapter = with_template(checkpoint("llava"), LLAVA_15).adapter
    example = row_for(WITH_IMAGES["one image"])
    group = adapter.encode(example)
    tokenizer: Any = adapter.processor.tokenizer
    for ids, response_ids, response in zip(
        plain_rows(group), group.response_ids, RESPONSES, strict=True
    ):
        expected = processed(adapter, example, response)["input_ids"][0].tolist()
        assert ids[-1] == tokenizer.eos_token_id
        assert ids[:-1] == expected[: len(ids) - 1]
        assert tokenizer.decode(expected[len(ids) - 1 :]).strip() == ""
        assert tokenizer.decode(response_ids).strip() == f"{response}<|im_end|>"


LLAMA_3 = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{{ message['content'] + '<|eot|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def test_a_turn_that_ends_with_a_special_token_gets_no_second_end(
    checkpoint: Checkpoint,
) -> None:
    from transformers import AddedToken

    adapter = with_template(checkpoint("llama"), LLAMA_3).adapter
    tokenizer: Any = adapter.processor
    tokenizer.add_tokens([AddedToken("<|eot|>", special=True)])
    assert tokenizer.convert_tokens_to_ids("<|eot|>") not in tokenizer.all_special_ids
    example = row_for(CONVERSATIONS["single"])
    for ids, response in zip(plain_rows(adapter.encode(example)), RESPONSES, strict=True):
        assert ids == processed(adapter, example, response)["input_ids"][0].tolist()


def test_a_special_token_at_the_start_of_a_response_is_not_its_end(
    checkpoint: Checkpoint,
) -> None:
    template = (
        "{% for message in messages %}{% if message['role'] == 'assistant' %}{{ '<|im_start|>' }}"
        "{% endif %}{{ message['content'] + '\n' }}{% endfor %}"
    )
    adapter = with_template(checkpoint("llama"), template).adapter
    group = adapter.encode(row_for(CONVERSATIONS["single"]))
    tokenizer: Any = adapter.processor
    assert [ids[-1] for ids in group.response_ids] == [tokenizer.eos_token_id] * 3
    assert all(int(ids[0]) == tokenizer.bos_token_id for ids in group.response_ids)


@pytest.mark.parametrize("style", ["auto", "raw"])
def test_a_plain_prompt_without_a_template_is_rendered_raw(
    checkpoint: Checkpoint, style: Any
) -> None:
    adapter = with_template(checkpoint("llama"), None, prompt_style=style).adapter
    group = adapter.encode(row("r", "What is 3 + 4?", (" The answer", " Two"), (2.0, 1.0)))
    tokenizer: Any = adapter.processor
    for ids, response in zip(plain_rows(group), (" The answer", " Two"), strict=True):
        expected = tokenizer(f"What is 3 + 4?{response}")["input_ids"]
        assert ids == [*expected, tokenizer.eos_token_id]


def test_the_raw_style_ignores_the_template(checkpoint: Checkpoint) -> None:
    rendered = {}
    for style in ("auto", "raw", "chat"):
        adapter = load_tiny(checkpoint("llava"), prompt_style=style).adapter
        tokenizer: Any = adapter.processor.tokenizer
        prompt = adapter.encode(row("r", "Hello", ("a", "b"))).prompt_ids
        rendered[style] = tokenizer.decode(prompt)
    assert rendered["raw"] == "Hello"
    assert (
        rendered["auto"]
        == rendered["chat"]
        == ("<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n")
    )


def test_raw_prompts_keep_the_positions_of_their_images(checkpoint: Checkpoint) -> None:
    loaded = load_tiny(checkpoint("llava"), prompt_style="raw")
    example = row("r", "What?", (" A", " B"), images=[make_image(1)])
    group = loaded.adapter.encode(example)
    processor: Any = loaded.adapter.processor
    expected = processor(text="<image>What?", images=[make_image(1)], return_tensors="pt")
    assert group.prompt_ids.tolist() == expected["input_ids"][0].tolist()
    assert torch.equal(group.images.inputs["pixel_values"], expected["pixel_values"])


def test_a_conversation_without_a_template_is_refused(checkpoint: Checkpoint) -> None:
    adapter = with_template(checkpoint("llama"), None).adapter
    with pytest.raises(DataError, match=r"row r1, field 'prompt'.*no chat template.*Use a plain"):
        adapter.encode(row_for(CONVERSATIONS["turns"]))


def test_the_chat_style_without_a_template_is_refused(checkpoint: Checkpoint) -> None:
    adapter = with_template(checkpoint("llama"), None, prompt_style="chat").adapter
    with pytest.raises(DataError, match=r"prompt_style is 'chat' and this model has no chat templ"):
        adapter.encode(row())


# ---- the boundary of prompt and response ----


@pytest.mark.parametrize("model_type", ["llama", "llava"])
def test_no_token_spans_prompt_and_response(checkpoint: Checkpoint, model_type: str) -> None:
    """'squ' + 'are' is one token as a text, which no model could generate after 'squ'."""
    loaded = load_tiny(checkpoint(model_type), prompt_style="raw")
    processor: Any = loaded.adapter.processor
    tokenizer = getattr(processor, "tokenizer", processor)
    images = [make_image(1)] if model_type == "llava" else []
    example = row("r", "A red squ", ("are", "id"), (2.0, 1.0), images=images)
    group = loaded.adapter.encode(example)
    alone = tokenizer("A red squ")["input_ids"]
    assert (
        tokenizer("A red square")["input_ids"][: len(alone)] != alone
    )  # as one text the tokens merge
    assert group.prompt_ids.tolist()[-len(alone) :] == alone
    assert torch.equal(group.prompt_ids, loaded.adapter.encode_prompt(example).prompt_ids)
    for ids, text in zip(group.response_ids, ("are", "id"), strict=True):
        assert ids.tolist() == [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]


def test_a_response_that_starts_like_the_prompt_ends_keeps_its_tokens(
    checkpoint: Checkpoint,
) -> None:
    adapter = load_tiny(checkpoint("llama")).adapter
    example = row("r", "x", ("a", "assistant\na"), (2.0, 1.0))
    for ids, response in zip(
        plain_rows(adapter.encode(example)), ("a", "assistant\na"), strict=True
    ):
        assert ids == processed(adapter, example, response)["input_ids"][0].tolist()


def test_the_first_token_of_a_tokenizer_is_added_once(
    checkpoint: Checkpoint,
) -> None:
    """As the sentencepiece tokenizers of Llama: texts start with bos, templates write it or not."""
    from tokenizers import processors

    loaded = with_template(checkpoint("llava"), LLAVA_15)
    tokenizer: Any = loaded.adapter.processor.tokenizer
    bos = tokenizer.bos_token
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A",
        pair=f"{bos} $A {bos} $B",
        special_tokens=[(bos, tokenizer.bos_token_id)],
    )
    for template in (LLAVA_15, "{{ bos_token }}" + LLAVA_15):
        loaded.adapter.processor.chat_template = template
        for name in ("single", "one image"):
            example = row_for({**CONVERSATIONS, **WITH_IMAGES}[name], RESPONSES[:2])
            group = loaded.adapter.encode(example)
            assert group.prompt_ids.tolist().count(tokenizer.bos_token_id) == 1
            expected = processed(loaded.adapter, example, RESPONSES[0])["input_ids"][0].tolist()
            ids = plain_rows(group)[0]
            assert ids[:-1] == expected[: len(ids) - 1]


# ---- length ----


@pytest.mark.parametrize("model_type", ["llama", "llava_next"])
def test_max_length_cuts_only_responses_and_counts_them(
    checkpoint: Checkpoint, model_type: str
) -> None:
    example = row_for(
        WITH_IMAGES["one image"] if model_type == "llava_next" else CONVERSATIONS["turns"]
    )
    uncut = load_tiny(checkpoint(model_type)).adapter.encode(example)
    prompt = uncut.prompt_ids.numel()
    lengths = sorted(ids.numel() for ids in uncut.response_ids)
    assert lengths[0] < lengths[1] < lengths[2]
    limit = prompt + lengths[1]
    cut = load_tiny(checkpoint(model_type), max_length=limit).adapter.encode(example)
    assert cut.cut_responses == 1
    assert torch.equal(cut.prompt_ids, uncut.prompt_ids)
    assert cut.images.tokens == uncut.images.tokens
    for short, ids in zip(cut.response_ids, uncut.response_ids, strict=True):
        assert torch.equal(short, ids[: lengths[1]])
    tight = load_tiny(checkpoint(model_type), max_length=prompt + 1).adapter.encode(example)
    assert [ids.numel() for ids in tight.response_ids] == [1, 1, 1]
    assert tight.cut_responses == 3


def test_the_error_of_a_prompt_without_room_for_a_response_has_the_necessary_length(
    checkpoint: Checkpoint,
) -> None:
    example = row_for(WITH_IMAGES["one image"])
    uncut = load_tiny(checkpoint("llava")).adapter.encode(example)
    prompt = uncut.prompt_ids.numel()
    total = prompt + max(ids.numel() for ids in uncut.response_ids)
    adapter = load_tiny(checkpoint("llava"), max_length=prompt).adapter
    with pytest.raises(DataError) as error:
        adapter.encode(example)
    message = str(error.value)
    assert message.startswith("data.jsonl row r1, field 'prompt'")
    assert f"{prompt} tokens, {uncut.images.tokens} of them image tokens" in message
    assert f"max_length to {total} or more" in message


# ---- placeholders ----


def test_a_placeholder_in_the_text_of_a_prompt_is_refused(unchanged: Unchanged) -> None:
    adapter = unchanged("llava").adapter
    example = row_for([Message("user", (SLOT, "What does <image> mean?"))])
    with pytest.raises(DataError, match=r"r1, field 'prompt'.*2 placeholders for 1 images"):
        adapter.encode(example)


def test_a_placeholder_in_a_response_is_refused(unchanged: Unchanged) -> None:
    adapter = unchanged("llava").adapter
    with pytest.raises(DataError, match=r"row r1.*a response contains image tokens"):
        adapter.encode(row_for(WITH_IMAGES["one image"], ("a <image>", "b")))


@pytest.mark.parametrize("model_type", TEXT_TYPES)
def test_a_text_model_refuses_images(unchanged: Unchanged, model_type: str) -> None:
    adapter = unchanged(model_type).adapter
    with pytest.raises(DataError, match=r"r1, field 'images'.*this model has no vision tower"):
        adapter.encode(row_for(WITH_IMAGES["one image"]))


def test_a_group_has_scores_pairs_and_targets(unchanged: Unchanged) -> None:
    adapter = unchanged("llama").adapter
    example = row("r", "x", ("a", "b", "c"), (1.0, None, 3.0), pairs=[Pair(2, 0, 0.5)])
    group = adapter.encode(example)
    preferences = group.preferences
    assert preferences.scores.dtype == torch.float64
    assert preferences.scores[[0, 2]].tolist() == [1.0, 3.0]
    assert preferences.scores[1].isnan()
    assert preferences.pairs == (Pair(2, 0, 0.5),)
    assert preferences.pair_ids == (example.pair_id(example.pairs[0]),)
    assert preferences.response_units == (2,)
    assert (group.row.id, group.row.domain, group.row.source) == ("r", "text", "data")

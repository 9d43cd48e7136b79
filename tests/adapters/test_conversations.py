"""Encoded rows against what each model's own processor and chat template give."""

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
from unidpo_mm.records import EncodedGroup, ImageSlot, Message, Pair, PreferenceRow

Checkpoint = Callable[[str], Path]
SLOT = ImageSlot()

CONVERSATIONS: dict[str, list[Message]] = {
    "single": [Message("user", ("What is 3 + 4?",))],
    "system": [Message("system", ("Write one word.",)), Message("user", ("Hello!",))],
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
        Message("system", ("Write one word.",)),
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
        Message("system", ("Write one word.",)),
        Message("user", (SLOT, "What is it?")),
        Message("assistant", ("Square",)),
        Message("user", ("How many?",)),
        Message("assistant", ("Two",)),
        Message("user", ("Compute 3 + 4.",)),
    ],
}
SIZES = [(40, 30), (28, 28), (30, 60)]
ANSWERS = ("The answer is 23.", "A red square and a blue circle", "no")


def row_for(messages: Sequence[Message], answers: Sequence[str] = ANSWERS) -> PreferenceRow:
    count = sum(message.image_slots for message in messages)
    return row(
        "r1",
        messages,
        answers,
        [float(len(answers) - n) for n in range(len(answers))],
        images=[make_image(n + 1, SIZES[n]) for n in range(count)],
        pairs=[Pair(0, n) for n in range(1, len(answers))],
    )


def as_chat(one: PreferenceRow, answer: str | None, *, as_parts: bool) -> list[dict[str, Any]]:
    """The row as transformers' own chat messages, images in place."""
    images = iter(one.images)

    def content(parts: Sequence[Any]) -> Any:
        if not as_parts:
            return "".join(parts)
        return [
            {"type": "text", "text": part}
            if isinstance(part, str)
            else {"type": "image", "image": next(images).open()}
            for part in parts
        ]

    chat = [{"role": m.role, "content": content(m.parts)} for m in one.messages]
    if answer is not None:
        chat.append({"role": "assistant", "content": content((answer,))})
    return chat


def processed(adapter: Adapter, one: PreferenceRow, answer: str | None) -> Any:
    as_parts = hasattr(adapter.processor, "tokenizer")
    return adapter.processor.apply_chat_template(
        as_chat(one, answer, as_parts=as_parts),
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        add_generation_prompt=answer is None,
    )


def plain_rows(group: EncodedGroup) -> list[list[int]]:
    return [torch.cat([group.prompt_ids, ids]).tolist() for ids in group.response_ids]


CASES = [
    (model_type, name)
    for model_type in MODEL_TYPES
    for name in (*CONVERSATIONS, *(WITH_IMAGES if model_type in IMAGE_TYPES else ()))
]


@pytest.mark.parametrize(("model_type", "name"), CASES)
def test_ids_and_pixels_are_those_of_the_models_own_processor(
    checkpoint: Checkpoint, model_type: str, name: str
) -> None:
    adapter = load_tiny(checkpoint(model_type)).adapter
    one = row_for({**CONVERSATIONS, **WITH_IMAGES}[name])
    group = adapter.encode(one)
    for number, (ids, answer) in enumerate(zip(plain_rows(group), ANSWERS, strict=True)):
        expected = processed(adapter, one, answer)
        assert ids == expected["input_ids"][0].tolist()
        own = {"input_ids", "attention_mask", "token_type_ids", *group.token_extras}
        assert set(group.image_extras) == set(expected) - own
        for key, tensor in group.image_extras.items():
            assert torch.equal(tensor, expected[key]), key
        for key, parts in group.token_extras.items():
            whole = torch.cat([parts[0], parts[1 + number]])
            assert whole.tolist() == expected[key][0].tolist(), key


def test_the_comparison_with_the_processor_sees_another_answer(checkpoint: Checkpoint) -> None:
    adapter = load_tiny(checkpoint("llava")).adapter
    one = row_for(WITH_IMAGES["one image"])
    ids = plain_rows(adapter.encode(one))[0]
    assert ids != processed(adapter, one, ANSWERS[1])["input_ids"][0].tolist()


@pytest.mark.parametrize(("model_type", "name"), CASES)
def test_the_prompt_alone_is_the_processors_generation_prompt(
    checkpoint: Checkpoint, model_type: str, name: str
) -> None:
    adapter = load_tiny(checkpoint(model_type)).adapter
    one = row_for({**CONVERSATIONS, **WITH_IMAGES}[name])
    group = adapter.encode_prompt(one)
    assert group.prompt_ids.tolist() == processed(adapter, one, None)["input_ids"][0].tolist()
    assert group.response_ids == ()
    assert group.pairs == ()
    assert torch.equal(group.prompt_ids, adapter.encode(one).prompt_ids)


@pytest.mark.parametrize("model_type", IMAGE_TYPES)
@pytest.mark.parametrize("name", WITH_IMAGES)
def test_image_tokens_equal_the_features_that_fill_them(
    checkpoint: Checkpoint, model_type: str, name: str
) -> None:
    loaded = load_tiny(checkpoint(model_type))
    group = loaded.adapter.encode(row_for(WITH_IMAGES[name]))
    model: Any = loaded.model
    features = model.model.get_image_features(**group.image_extras).pooler_output
    assert group.image_tokens == sum(part.shape[0] for part in features) > 0
    assert int((group.prompt_ids == group.image_token_id).sum()) == group.image_tokens


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_the_scored_tokens_are_exactly_the_answer_and_the_end_of_its_turn(
    checkpoint: Checkpoint, model_type: str
) -> None:
    loaded = load_tiny(checkpoint(model_type))
    one = row_for(CONVERSATIONS["turns"])
    group = loaded.adapter.encode(one)
    processor: Any = loaded.adapter.processor
    tokenizer = getattr(processor, "tokenizer", processor)
    for ids, answer in zip(group.response_ids, ANSWERS, strict=True):
        assert tokenizer.decode(ids) == f"{answer}<|im_end|>\n"
        assert loaded.adapter.decode(ids.tolist()) == answer
    batch = batch_of(loaded, [one])
    scored = batch.token_inputs["input_ids"][batch.segment == 1]
    assert torch.equal(scored, torch.cat(group.response_ids))
    assert torch.equal(batch.target_ids, torch.cat(group.response_ids))
    assert torch.equal(batch.token_inputs["input_ids"][batch.row, batch.position + 1], scored)


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_forward_inputs_are_taken_by_the_model_and_hold_nothing_else(
    checkpoint: Checkpoint, model_type: str
) -> None:
    loaded = load_tiny(checkpoint(model_type))
    rows = [row_for(CONVERSATIONS["single"])]
    if model_type in IMAGE_TYPES:
        rows.append(row_for(WITH_IMAGES["three images over two turns"]))
    batch = batch_of(loaded, rows)
    own = "mm_token_type_ids" if model_type in QWEN_TYPES else "position_ids"
    allowed = {"input_ids", "attention_mask", own, *batch.image_inputs}
    assert set(loaded.adapter.forward_inputs(batch)) == allowed
    with torch.no_grad():
        logps = compute_logps(logp_model_of(loaded), loaded.adapter, batch)
    assert logps.shape == batch.target_ids.shape
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
    assert bool(group.image_extras) == (model_type in IMAGE_TYPES)
    batch = collate([group], pad_token_id=loaded.adapter.pad_token_id)
    assert batch.num_pairs == 1
    assert batch.pair_weight.tolist() == [0.0]
    assert batch.target_weight.tolist() == [0.0]
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
"""The template of LLaVA 1.5: an answer ends with a blank and no token of its own."""


def with_template(folder: Path, template: str | None, **options: Any) -> LoadedModel:
    loaded = load_tiny(folder, **options)
    processor: Any = loaded.adapter.processor
    processor.chat_template = template
    if hasattr(processor, "tokenizer"):
        processor.tokenizer.chat_template = template
    return loaded


def test_a_template_without_an_end_token_gets_one(checkpoint: Checkpoint) -> None:
    adapter = with_template(checkpoint("llava"), LLAVA_15).adapter
    one = row_for(WITH_IMAGES["one image"])
    group = adapter.encode(one)
    tokenizer: Any = adapter.processor.tokenizer
    for ids, response, answer in zip(plain_rows(group), group.response_ids, ANSWERS, strict=True):
        own = processed(adapter, one, answer)["input_ids"][0].tolist()
        assert ids[-1] == tokenizer.eos_token_id
        assert ids[:-1] == own[: len(ids) - 1]
        assert tokenizer.decode(own[len(ids) - 1 :]).strip() == ""
        assert tokenizer.decode(response).strip() == f"{answer}<|im_end|>"


LLAMA_3 = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{{ message['content'] + '<|eot|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def test_a_turn_that_ends_with_an_unnamed_special_token_gets_no_second_end(
    checkpoint: Checkpoint,
) -> None:
    from transformers import AddedToken

    adapter = with_template(checkpoint("llama"), LLAMA_3).adapter
    tokenizer: Any = adapter.processor
    tokenizer.add_tokens([AddedToken("<|eot|>", special=True)])
    assert tokenizer.convert_tokens_to_ids("<|eot|>") not in tokenizer.all_special_ids
    one = row_for(CONVERSATIONS["single"])
    for ids, answer in zip(plain_rows(adapter.encode(one)), ANSWERS, strict=True):
        assert ids == processed(adapter, one, answer)["input_ids"][0].tolist()


def test_a_special_token_at_the_start_of_an_answer_is_not_taken_for_its_end(
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
    for ids, answer in zip(plain_rows(group), (" The answer", " Two"), strict=True):
        expected = tokenizer(f"What is 3 + 4?{answer}")["input_ids"]
        assert ids == [*expected, tokenizer.eos_token_id]


def test_the_raw_style_leaves_out_a_template_that_is_there(checkpoint: Checkpoint) -> None:
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


def test_raw_prompts_keep_the_places_of_their_images(checkpoint: Checkpoint) -> None:
    loaded = load_tiny(checkpoint("llava"), prompt_style="raw")
    one = row("r", "What?", (" A", " B"), images=[make_image(1)])
    group = loaded.adapter.encode(one)
    processor: Any = loaded.adapter.processor
    expected = processor(text="<image>What?", images=[make_image(1)], return_tensors="pt")
    assert group.prompt_ids.tolist() == expected["input_ids"][0].tolist()
    assert torch.equal(group.image_extras["pixel_values"], expected["pixel_values"])


def test_a_conversation_without_a_template_is_refused(checkpoint: Checkpoint) -> None:
    adapter = with_template(checkpoint("llama"), None).adapter
    with pytest.raises(DataError, match=r"row r1, field 'prompt'.*no chat template.*Give the prom"):
        adapter.encode(row_for(CONVERSATIONS["turns"]))


def test_the_chat_style_without_a_template_is_refused(checkpoint: Checkpoint) -> None:
    adapter = with_template(checkpoint("llama"), None, prompt_style="chat").adapter
    with pytest.raises(DataError, match=r"prompt_style is 'chat' and this model has no chat templ"):
        adapter.encode(row())


# ---- the seam ----


@pytest.mark.parametrize("model_type", ["llama", "llava"])
def test_a_token_never_spans_the_seam_between_prompt_and_response(
    checkpoint: Checkpoint, model_type: str
) -> None:
    """'squ' + 'are' is one token as a text, which no model could generate after 'squ'."""
    loaded = load_tiny(checkpoint(model_type), prompt_style="raw")
    processor: Any = loaded.adapter.processor
    tokenizer = getattr(processor, "tokenizer", processor)
    images = [make_image(1)] if model_type == "llava" else []
    one = row("r", "A red squ", ("are", "id"), (2.0, 1.0), images=images)
    group = loaded.adapter.encode(one)
    alone = tokenizer("A red squ")["input_ids"]
    assert tokenizer("A red square")["input_ids"][: len(alone)] != alone  # they do merge
    assert group.prompt_ids.tolist()[-len(alone) :] == alone
    assert torch.equal(group.prompt_ids, loaded.adapter.encode_prompt(one).prompt_ids)
    for ids, text in zip(group.response_ids, ("are", "id"), strict=True):
        assert ids.tolist() == [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]


def test_an_answer_that_starts_as_the_prompt_ends_keeps_its_tokens(checkpoint: Checkpoint) -> None:
    adapter = load_tiny(checkpoint("llama")).adapter
    one = row("r", "x", ("a", "assistant\na"), (2.0, 1.0))
    for ids, answer in zip(plain_rows(adapter.encode(one)), ("a", "assistant\na"), strict=True):
        assert ids == processed(adapter, one, answer)["input_ids"][0].tolist()


def test_a_tokenizer_that_adds_a_first_token_by_itself_adds_it_once(
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
            one = row_for({**CONVERSATIONS, **WITH_IMAGES}[name], ANSWERS[:2])
            group = loaded.adapter.encode(one)
            assert group.prompt_ids.tolist().count(tokenizer.bos_token_id) == 1
            own = processed(loaded.adapter, one, ANSWERS[0])["input_ids"][0].tolist()
            ids = plain_rows(group)[0]
            assert ids[:-1] == own[: len(ids) - 1]


# ---- length ----


@pytest.mark.parametrize("model_type", ["llama", "llava_next"])
def test_max_length_cuts_answers_only_and_counts_them(
    checkpoint: Checkpoint, model_type: str
) -> None:
    one = row_for(
        WITH_IMAGES["one image"] if model_type == "llava_next" else CONVERSATIONS["turns"]
    )
    whole = load_tiny(checkpoint(model_type)).adapter.encode(one)
    prompt = whole.prompt_ids.numel()
    lengths = sorted(ids.numel() for ids in whole.response_ids)
    assert lengths[0] < lengths[1] < lengths[2]
    limit = prompt + lengths[1]
    cut = load_tiny(checkpoint(model_type), max_length=limit).adapter.encode(one)
    assert cut.cut_responses == 1
    assert torch.equal(cut.prompt_ids, whole.prompt_ids)
    assert cut.image_tokens == whole.image_tokens
    for short, ids in zip(cut.response_ids, whole.response_ids, strict=True):
        assert torch.equal(short, ids[: lengths[1]])
    tight = load_tiny(checkpoint(model_type), max_length=prompt + 1).adapter.encode(one)
    assert [ids.numel() for ids in tight.response_ids] == [1, 1, 1]
    assert tight.cut_responses == 3


def test_a_prompt_that_leaves_no_token_of_an_answer_is_refused_with_the_number_needed(
    checkpoint: Checkpoint,
) -> None:
    one = row_for(WITH_IMAGES["one image"])
    whole = load_tiny(checkpoint("llava")).adapter.encode(one)
    prompt = whole.prompt_ids.numel()
    needed = prompt + max(ids.numel() for ids in whole.response_ids)
    adapter = load_tiny(checkpoint("llava"), max_length=prompt).adapter
    with pytest.raises(DataError) as error:
        adapter.encode(one)
    message = str(error.value)
    assert message.startswith("data.jsonl row r1, field 'prompt'")
    assert f"{prompt} tokens, {whole.image_tokens} of them of images" in message
    assert f"max_length to {needed} or more" in message


# ---- placeholders ----


def test_a_placeholder_in_the_text_of_a_prompt_is_refused(checkpoint: Checkpoint) -> None:
    adapter = load_tiny(checkpoint("llava")).adapter
    one = row_for([Message("user", (SLOT, "What does <image> mean?"))])
    with pytest.raises(DataError, match=r"r1, field 'prompt'.*2 placeholders for 1 images"):
        adapter.encode(one)


def test_a_placeholder_in_an_answer_is_refused(checkpoint: Checkpoint) -> None:
    adapter = load_tiny(checkpoint("llava")).adapter
    with pytest.raises(DataError, match=r"row r1.*a response holds an image token"):
        adapter.encode(row_for(WITH_IMAGES["one image"], ("a <image>", "b")))


@pytest.mark.parametrize("model_type", TEXT_TYPES)
def test_a_text_model_refuses_images(checkpoint: Checkpoint, model_type: str) -> None:
    adapter = load_tiny(checkpoint(model_type)).adapter
    with pytest.raises(DataError, match=r"r1, field 'images'.*this model takes none"):
        adapter.encode(row_for(WITH_IMAGES["one image"]))


def test_scores_pairs_and_targets_come_with_the_group(checkpoint: Checkpoint) -> None:
    adapter = load_tiny(checkpoint("llama")).adapter
    one = row("r", "x", ("a", "b", "c"), (1.0, None, 3.0), pairs=[Pair(2, 0, 0.5)])
    group = adapter.encode(one)
    assert group.scores.dtype == torch.float64
    assert group.scores[[0, 2]].tolist() == [1.0, 3.0]
    assert group.scores[1].isnan()
    assert group.pairs == (Pair(2, 0, 0.5),)
    assert group.targets == (2,)
    assert (group.row_id, group.domain, group.source) == ("r", "text", "data")

"""Log-probs of responses against a naive full softmax in float64, for every tiny model."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import (
    IMAGE_TYPES,
    MODEL_TYPES,
    batch_of,
    encoded,
    load_tiny,
    logp_model_of,
    mixed_rows,
    relative_difference,
    row,
    tiny_checkpoint,
)
from torch import Tensor, nn

from unidpo_mm.kernels.logprobs import (
    LogitTransform,
    chunk_count,
    chunk_positions,
    sequence_logps,
    token_logps,
)
from unidpo_mm.modeling import logp_model as logp_model_module
from unidpo_mm.modeling.load import LoadedModel
from unidpo_mm.modeling.logp_model import LogpModel, compute_logps
from unidpo_mm.records import EncodedGroup, GroupBatch, Preferences, RowInfo

Checkpoint = Callable[[str], Path]

OTHER_TEXT_TYPES = (
    "bloom", "cohere", "cohere2", "falcon", "gemma2", "gemma3_text", "gpt2", "gpt_neox",
    "granite", "mistral", "mpt", "olmo2", "opt", "phi3", "qwen2", "starcoder2",
)  # fmt: skip
"""Decoders with other positions, norms or transformations of the logits."""


def naive_logps(loaded: LoadedModel, group: EncodedGroup, *, shift: int = 1) -> list[Tensor]:
    """Return the log-probs of each response, one plain row at a time, full softmax, float64."""
    model: Any = loaded.model.double()
    if hasattr(model.config.get_text_config(), "num_experts"):
        model.set_experts_implementation("eager")  # the grouped product does not support float64
    responses = []
    for ids in group.response_ids:
        row_ids = torch.cat([group.prompt_ids, ids]).unsqueeze(0)
        images = {
            name: tensor.double() if tensor.is_floating_point() else tensor
            for name, tensor in group.images.inputs.items()
        }
        types = {
            name: torch.cat([parts[0], torch.zeros_like(ids)]).unsqueeze(0)
            for name, parts in group.token_extras.items()
        }
        with torch.no_grad():
            logits = model(input_ids=row_ids, **images, **types).logits[0]
        assert logits.dtype == torch.float64
        start = group.prompt_ids.numel()
        predicting = logits[start - shift : start - shift + ids.numel()]
        responses.append(predicting.log_softmax(-1).gather(-1, ids[:, None]).squeeze(-1))
    return responses


def assert_equals_naive(folder: Path, rows: Any, *, rtol: float = 2e-5) -> None:
    loaded = load_tiny(folder)
    batch = batch_of(loaded, rows)
    with torch.no_grad():
        logps = compute_logps(logp_model_of(loaded), loaded.adapter, batch)
    assert logps.dtype == torch.float32
    groups = encoded(loaded, rows)
    expected = torch.cat([part for group in groups for part in naive_logps(loaded, group)])
    torch.testing.assert_close(logps.double(), expected, rtol=rtol, atol=2e-5)


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_response_log_probs_equal_a_naive_full_softmax(
    checkpoint: Checkpoint, model_type: str
) -> None:
    assert_equals_naive(checkpoint(model_type), mixed_rows(images=model_type in IMAGE_TYPES))


@pytest.mark.parametrize("model_type", OTHER_TEXT_TYPES)
def test_response_log_probs_of_other_decoders_equal_a_naive_full_softmax(
    tmp_path: Path, model_type: str
) -> None:
    assert_equals_naive(tiny_checkpoint(tmp_path, model_type), mixed_rows(images=False)[:2])


@pytest.mark.parametrize("model_type", ["llama", "llava"])
def test_a_shift_by_one_is_detected(checkpoint: Checkpoint, model_type: str) -> None:
    loaded = load_tiny(checkpoint(model_type))
    group = loaded.adapter.encode(mixed_rows(images=False)[0])
    right = torch.cat(naive_logps(loaded, group))
    for shift in (0, 2):
        wrong = torch.cat(naive_logps(loaded, group, shift=shift))
        assert (right - wrong).abs().max() > 1e-2


def test_sums_and_lengths_cover_the_response_only(checkpoint: Checkpoint) -> None:
    loaded = load_tiny(checkpoint("llama"))
    rows = mixed_rows(images=False)
    batch = batch_of(loaded, rows)
    with torch.no_grad():
        sequences = sequence_logps(
            compute_logps(logp_model_of(loaded), loaded.adapter, batch), batch.targets
        )
    groups = encoded(loaded, rows)
    expected = [part for group in groups for part in naive_logps(loaded, group)]
    assert sequences.sum.dtype == torch.float64
    assert sequences.length.tolist() == [len(part) for part in expected]
    torch.testing.assert_close(
        sequences.sum, torch.stack([p.sum() for p in expected]), rtol=1e-5, atol=1e-5
    )
    torch.testing.assert_close(
        sequences.mean, torch.stack([p.mean() for p in expected]), rtol=1e-5, atol=1e-5
    )


def test_tokens_are_in_a_row_per_response(checkpoint: Checkpoint) -> None:
    loaded = load_tiny(checkpoint("llama"))
    rows = mixed_rows(images=False)
    batch = batch_of(loaded, rows)
    with torch.no_grad():
        logps = compute_logps(logp_model_of(loaded), loaded.adapter, batch)
    assert sequence_logps(logps, batch.targets).tokens is None
    tokens = sequence_logps(logps, batch.targets, tokens=True).tokens
    assert tokens is not None
    expected = [part for group in encoded(loaded, rows) for part in naive_logps(loaded, group)]
    assert tokens.shape == (len(expected), max(map(len, expected)))
    for values, part in zip(tokens, expected, strict=True):
        torch.testing.assert_close(values[: len(part)], part.double(), rtol=1e-5, atol=1e-5)
        assert not values[len(part) :].any()


def test_sums_are_more_exact_than_float32_sums() -> None:
    tokens = torch.full((3000,), 0.1) * -1
    batch = single_response_batch(3000)
    assert float(sequence_logps(tokens, batch.targets).sum) == pytest.approx(
        3000 * float(tokens[0]), rel=1e-12
    )


def single_response_batch(length: int) -> GroupBatch:
    from unidpo_mm.data.collate import collate

    group = EncodedGroup(
        row=RowInfo(id="r", domain="text", source="s", where="here"),
        prompt_ids=torch.tensor([1]),
        response_ids=(torch.ones(length, dtype=torch.int64),),
        preferences=Preferences(scores=torch.tensor([1.0], dtype=torch.float64)),
    )
    return collate([group], pad_token_id=0)


# ---- chunks ----


@pytest.mark.parametrize("chunk_size", [1, 3, 7, 1000])
def test_the_chunk_size_changes_neither_values_nor_gradients(
    checkpoint: Checkpoint, chunk_size: int
) -> None:
    results = []
    for size in (chunk_size, 10_000):
        loaded = load_tiny(checkpoint("llama"))
        logp_model = logp_model_of(loaded, chunk_size=size)
        logps = compute_logps(
            logp_model, loaded.adapter, batch_of(loaded, mixed_rows(images=False))
        )
        logps.sum().backward()
        results.append((logps.detach(), [p.grad for p in logp_model.parameters()]))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-6, atol=1e-6)
    for left, right in zip(results[0][1], results[1][1], strict=True):
        torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("head_trains", "grad"), [(True, False), (True, True), (False, True)])
def test_logits_exist_for_one_chunk_of_response_positions_at_a_time(
    checkpoint: Checkpoint, head_trains: bool, grad: bool
) -> None:
    loaded = load_tiny(checkpoint("llava"))
    loaded.model.get_output_embeddings().requires_grad_(head_trains)
    logp_model = logp_model_of(loaded, chunk_size=4)
    head = loaded.model.get_output_embeddings()
    shapes: list[tuple[int, ...]] = []
    head.register_forward_hook(lambda module, args, output: shapes.append(tuple(output.shape)))
    batch = batch_of(loaded, mixed_rows(images=True))
    with torch.set_grad_enabled(grad):
        logps = compute_logps(logp_model, loaded.adapter, batch)
    if grad:
        logps.sum().backward()
    assert shapes
    assert all(len(shape) == 2 and shape[0] <= 4 for shape in shapes)
    rows = sum(shape[0] for shape in shapes)
    recomputed = grad and head_trains
    assert rows == batch.targets.ids.numel() * (1 + recomputed)  # responses, no prompts


def test_a_chunk_has_a_gigabyte_of_logits_on_a_gpu() -> None:
    assert chunk_positions(151_936) == 1728
    assert 0.9 * 2**30 < 1728 * 151_936 * 4 <= 2**30
    assert chunk_positions(32_000) > chunk_positions(151_936)
    assert chunk_positions(10**9) == 64
    assert [chunk_count(n, 512) for n in (0, 1, 512, 513)] == [1, 1, 1, 2]


@pytest.mark.parametrize("trains", [True, False])
def test_processes_call_the_head_equally_often(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch, trains: bool
) -> None:
    loaded = load_tiny(checkpoint("llama"))
    head = loaded.model.get_output_embeddings()
    head.requires_grad_(trains)
    calls: list[int] = []
    head.register_forward_hook(lambda module, args, output: calls.append(len(output)))
    batch = batch_of(loaded, mixed_rows(images=False))
    results = []
    for same in (False, True):
        logp_model = logp_model_of(loaded, chunk_size=64)
        logp_model.same_chunks = same
        monkeypatch.setattr(logp_model_module, "maximum", lambda counts: [7])  # of another process
        calls.clear()
        loaded.model.zero_grad()
        logps = compute_logps(logp_model, loaded.adapter, batch)
        logps.sum().backward()
        grads = {n: p.grad for n, p in loaded.model.named_parameters() if p.grad is not None}
        results.append((len(calls), logps.detach(), grads))
    (few, expected, grads), (seven, computed, same_grads) = results
    assert few < seven == 7 * (1 + trains)  # a head that trains runs again in the backward pass
    assert torch.equal(computed, expected)
    assert relative_difference(same_grads, grads) == 0


def test_a_head_without_visible_weights_is_run_to_see_whether_it_trains() -> None:
    weight = torch.randn(5, 3, requires_grad=True)
    hidden = torch.randn(4, 3)
    logps = token_logps(hidden, torch.arange(4), lambda rows: rows @ weight.T)
    (gradient,) = torch.autograd.grad(logps.sum(), weight)
    assert gradient.abs().sum() > 0


@pytest.mark.parametrize("chunk_size", [3, 1000])
def test_gradients_under_a_frozen_head_equal_those_under_a_trainable_one(
    checkpoint: Checkpoint, chunk_size: int
) -> None:
    results = []
    for trains in (True, False):
        loaded = load_tiny(checkpoint("llama"))
        loaded.model.get_output_embeddings().requires_grad_(trains)
        logp_model = logp_model_of(loaded, chunk_size=chunk_size)
        logps = compute_logps(
            logp_model, loaded.adapter, batch_of(loaded, mixed_rows(images=False))
        )
        (logps * torch.linspace(-1, 2, logps.numel())).sum().backward()
        grads = {name: p.grad for name, p in logp_model.named_parameters() if p.grad is not None}
        results.append((logps.detach(), grads))
    (trainable_logps, grads), (frozen_logps, below) = results
    assert torch.equal(trainable_logps, frozen_logps)
    assert grads.keys() - below.keys() == {"model.lm_head.weight"}
    assert relative_difference({name: grads[name] for name in below}, below) < 2e-6


def test_a_head_with_a_lora_adapter_trains(checkpoint: Checkpoint) -> None:
    from peft import LoraConfig, get_peft_model

    loaded = load_tiny(checkpoint("llama"))
    model: Any = get_peft_model(loaded.model, LoraConfig(r=2, target_modules=["lm_head"]))
    logp_model = LogpModel(model)
    compute_logps(
        logp_model, loaded.adapter, batch_of(loaded, mixed_rows(images=False))
    ).sum().backward()
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained
    assert all("lm_head" in name for name in trained)
    grads = [p.grad for name, p in model.named_parameters() if "lora_B" in name]
    assert all(grad is not None and grad.abs().sum() > 0 for grad in grads)


def test_token_logps_by_hand() -> None:
    """Two classes with logits 0 and ln 3: probabilities 1/4 and 3/4."""
    hidden = torch.tensor([[1.0], [1.0]])
    head = nn.Linear(1, 2, bias=False)
    head.weight.data = torch.tensor([[0.0], [float(torch.log(torch.tensor(3.0)))]])
    logps = token_logps(hidden, torch.tensor([0, 1]), head, chunk_size=1)
    torch.testing.assert_close(logps.exp(), torch.tensor([0.25, 0.75]))


def test_bf16_logits_are_normalized_in_float32() -> None:
    torch.manual_seed(1)
    head = nn.Linear(16, 5000, bias=False).to(torch.bfloat16)
    hidden = torch.randn(8, 16, dtype=torch.bfloat16)
    targets = torch.arange(8)
    logps = token_logps(hidden, targets, head)
    expected = head(hidden).double().log_softmax(-1)[torch.arange(8), targets]
    assert logps.dtype == torch.float32
    torch.testing.assert_close(logps.double(), expected, rtol=1e-6, atol=1e-6)
    rounded = head(hidden).log_softmax(-1)[torch.arange(8), targets]
    assert not torch.allclose(rounded.double(), expected, rtol=1e-6, atol=1e-6)


# ---- transformations of the logits ----


@pytest.mark.parametrize(
    ("transform", "expected"),
    [
        (LogitTransform(), [1.0, -40.0]),
        (LogitTransform(scale=0.25), [0.25, -10.0]),
        (LogitTransform(softcap=30.0), [0.99963, -26.1010]),
        (LogitTransform(scale=0.5, softcap=10.0), [0.499584, -9.64028]),
    ],
)
def test_logits_are_scaled_and_then_capped(
    transform: LogitTransform, expected: list[float]
) -> None:
    logits = transform(torch.tensor([1.0, -40.0]))
    assert logits.tolist() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("model_type", "settings"),
    [
        ("gemma2", {"final_logit_softcapping": 2.0}),
        ("granite", {"logits_scaling": 8.0}),
        ("cohere", {"logit_scale": 0.1}),
    ],
)
def test_softcaps_and_scales_of_a_configuration_reach_the_log_probs(
    tmp_path: Path, model_type: str, settings: dict[str, float]
) -> None:
    from unidpo_mm.plugins import load_family

    load_family("text").tiny(tmp_path, model_type=model_type, initializer_range=0.3, **settings)
    rows = [row()]
    assert_equals_naive(tmp_path, rows)
    loaded = load_tiny(tmp_path)
    logp_model = logp_model_of(loaded)
    with torch.no_grad():
        right = compute_logps(logp_model, loaded.adapter, batch_of(loaded, rows))
        logp_model.transform = LogitTransform()
        wrong = compute_logps(logp_model, loaded.adapter, batch_of(loaded, rows))
    assert (right - wrong).abs().max() > 0.05

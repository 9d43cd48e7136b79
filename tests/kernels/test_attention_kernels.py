"""Every attention implementation shares prompts: flash attention, FlexAttention, windows, caps."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import encoded, load_tiny, logp_model_of, mixed_rows, relative_difference
from torch import Tensor, nn

from unidpo_mm.data.collate import collate
from unidpo_mm.kernels import flexible, packing, tower_attention
from unidpo_mm.kernels.backends import disable_cudnn_attention
from unidpo_mm.kernels.branch_attention import by_branch
from unidpo_mm.kernels.packing import enable_packing, masks_built
from unidpo_mm.kernels.varlen import PLAIN
from unidpo_mm.modeling.logp_model import compute_logps
from unidpo_mm.plugins import load_family

Checkpoint = Callable[[str], Path]


@pytest.fixture
def registered() -> Any:
    """Undo what a test registers with transformers."""
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    tables = [t._global_mapping for t in (ALL_ATTENTION_FUNCTIONS, ALL_MASK_ATTENTION_FUNCTIONS)]
    saved = [dict(table) for table in tables]
    packing._register.cache_clear()
    yield
    packing._register.cache_clear()
    for table, entries in zip(tables, saved, strict=True):
        table.clear()
        table.update(entries)


def logps_and_gradients(loaded: Any, layout: Any) -> tuple[Tensor, dict[str, Tensor]]:
    loaded.model.zero_grad()
    groups = encoded(loaded, mixed_rows(images=False))
    batch = collate(groups, pad_token_id=loaded.adapter.pad_token_id, layout=layout)
    logps = compute_logps(logp_model_of(loaded), loaded.adapter, batch)
    (logps * torch.linspace(-1, 2, logps.numel())).sum().backward()
    grads = {n: p.grad.clone() for n, p in loaded.model.named_parameters() if p.grad is not None}
    return logps.detach(), grads


def assert_same(left: Any, right: Any) -> None:
    torch.testing.assert_close(left[0], right[0], rtol=0, atol=1e-5)
    assert relative_difference(left[1], right[1]) < 2e-5


@pytest.mark.parametrize("window", [None, 8])
@pytest.mark.parametrize("kernel", ["flash_attention_2", "flash_attention_3"])
def test_models_with_flash_attention_share_prompts(
    tmp_path: Path, kernel: str, window: int | None, registered: None
) -> None:
    sizes = {} if window is None else {"sliding_window": window}
    model_type = "llama" if window is None else "mistral"
    loaded = load_tiny(load_family("text").tiny(tmp_path, model_type=model_type, **sizes))
    plain = logps_and_gradients(loaded, "plain")
    model: Any = loaded.model
    model.config._attn_implementation = kernel  # loading it would need the package
    assert enable_packing(model) is None
    before = masks_built()
    assert_same(logps_and_gradients(loaded, "joined"), plain)
    assert (masks_built() > before) == (window is not None)
    assert model.config._attn_implementation == kernel  # transformers reads the name
    hooks = len(model.get_decoder().layers[-1]._forward_pre_hooks)
    assert enable_packing(model) is None
    assert len(model.get_decoder().layers[-1]._forward_pre_hooks) == hooks


@pytest.mark.parametrize(("window", "masks"), [(500, 0), (8, 1)])
def test_a_window_longer_than_all_rows_needs_no_mask(
    tmp_path: Path, window: int, masks: int
) -> None:
    folder = load_family("text").tiny(tmp_path, model_type="mistral", sliding_window=window)
    loaded = load_tiny(folder)
    plain = logps_and_gradients(loaded, "plain")
    enable_packing(loaded.model)
    before = masks_built()
    assert_same(logps_and_gradients(loaded, "joined"), plain)
    assert masks_built() - before == masks


@pytest.mark.parametrize("layout", ["packed", "joined"])
@pytest.mark.parametrize("model_type", ["gemma2", "mistral"])
def test_the_reference_of_flex_attention_has_windows_and_capped_scores(
    tmp_path: Path, model_type: str, layout: str
) -> None:
    sizes: dict[str, Any] = {"sliding_window": 8, "initializer_range": 0.2}
    if model_type == "gemma2":
        sizes["attn_logit_softcapping"] = 0.5
    folder = load_family("text").tiny(tmp_path, model_type=model_type, **sizes)
    loaded = load_tiny(folder)
    loaded.model.set_attn_implementation("eager")  # type: ignore[operator]
    plain = logps_and_gradients(loaded, "plain")
    loaded.model.set_attn_implementation("flex_attention")  # type: ignore[operator]
    assert enable_packing(loaded.model) is None
    assert_same(logps_and_gradients(loaded, layout), plain)
    if model_type == "gemma2":
        without = flexible._masked
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(flexible, "_masked", lambda t, m, s, cap: without(t, m, s, None))
            wrong = logps_and_gradients(loaded, layout)
        assert (wrong[0] - plain[0]).abs().max() > 1e-4


def test_flex_attention_equals_its_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.nn.attention import flex_attention as library

    # the plain computation of the library; it would trace it even if it does not compile it
    monkeypatch.setattr(library, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True, raising=False)
    monkeypatch.setattr(flexible, "_compiled", lambda: library.flex_attention)
    segment = torch.tensor([[0, 0, 0, 1, 1, 2, 0, 0, 1, -1]])
    position = torch.tensor([[0, 1, 2, 3, 4, 3, 0, 1, 2, 0]])
    layout = packing.Packing(segment, position)
    visible = layout.mask_function(lambda row, head, query, key: key <= query)
    blocks = flexible.flex_mask(visible, 1, 10, torch.device("cpu"))
    index = torch.arange(10)
    zero = torch.zeros((), dtype=torch.long)
    mask = visible(zero, zero, index[:, None], index[None])[None, None]
    query, key, value = (torch.randn(1, heads, 10, 16) for heads in (6, 2, 2))
    for cap in (None, 2.0):
        expected = flexible._masked((query, key, value), mask, 0.3, cap)
        with torch.no_grad():
            computed = flexible._flex((query, key, value), blocks, 0.3, cap)
        torch.testing.assert_close(computed[:, :, :9], expected[:, :, :9], rtol=1e-5, atol=1e-5)


def test_capped_scores_are_refused_in_pieces() -> None:
    attend: Any = by_branch(lambda *args, **kwargs: None, "flash_attention_2")
    query = torch.randn(1, 2, 4, 8)
    with pytest.raises(ValueError, match="softcap"):
        attend(nn.Module(), *[query] * 3, torch.tensor([[0, 0, 0, 3, 1]]), softcap=30.0)


# ---- vision towers ----


@pytest.mark.parametrize("kernel", [None, PLAIN])
@pytest.mark.parametrize("model_type", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def test_towers_compute_the_same_in_one_call(
    checkpoint: Checkpoint, model_type: str, kernel: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load_tiny(checkpoint(model_type))
    groups = encoded(loaded, mixed_rows(images=True))
    batch = collate(groups, pad_token_id=loaded.adapter.pad_token_id)
    tower: Any = loaded.model.model.visual  # type: ignore[union-attr]

    def features() -> tuple[Tensor, dict[str, Tensor]]:
        tower.zero_grad()
        inputs = batch.inputs.images.inputs
        output = tower(inputs["pixel_values"], grid_thw=inputs["image_grid_thw"]).last_hidden_state
        (output * torch.linspace(-1, 2, output.numel()).view_as(output)).sum().backward()
        grads = {n: p.grad.clone() for n, p in tower.named_parameters() if p.grad is not None}
        return output.detach(), grads

    expected = features()
    calls = []

    def choose(*args: Any) -> Any:
        calls.append(args[1].shape)
        return kernel

    monkeypatch.setattr(tower_attention, "varlen_kernel", choose)
    tower_attention.use_one_call(loaded.model)
    computed = features()
    assert len(calls) == len(tower.blocks)
    torch.testing.assert_close(computed[0], expected[0], rtol=1e-5, atol=1e-5)
    assert relative_difference(computed[1], expected[1]) < 1e-5


# ---- cuDNN ----


def test_cudnn_is_excluded_on_gpus_only(monkeypatch: pytest.MonkeyPatch) -> None:
    enabled = [True]
    monkeypatch.setattr(torch.backends.cuda, "cudnn_sdp_enabled", lambda: enabled[-1])
    monkeypatch.setattr(torch.backends.cuda, "enable_cudnn_sdp", enabled.append)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    disable_cudnn_attention()
    assert enabled == [True]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    disable_cudnn_attention()
    disable_cudnn_attention()
    assert enabled == [True, False]

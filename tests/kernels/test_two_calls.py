"""Attention over shared prompts in two kernel calls equals attention in pieces."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from builders import (
    encoded,
    load_tiny,
    make_image,
    mixed_rows,
    relative_difference,
    row,
    with_inputs,
)
from support.launches import Launches, attention_calls_as_on_a_gpu, launches_of
from torch import Tensor, nn

from unidpo_mm.config import LoraOptions
from unidpo_mm.data.collate import collate
from unidpo_mm.kernels import backends, branch_attention, two_calls
from unidpo_mm.kernels.backends import compare_with_reference, varlen_kernel
from unidpo_mm.kernels.branch_attention import by_branch
from unidpo_mm.kernels.group_spans import GroupSpan
from unidpo_mm.kernels.last_layer import decoder_layers
from unidpo_mm.kernels.packing import enable_packing
from unidpo_mm.kernels.varlen import (
    FLASH_2,
    FLASH_3,
    PLAIN,
    TORCH,
    Inputs,
    Sequences,
    VarlenKernel,
)
from unidpo_mm.modeling.logp_model import LogpModel, compute_logps
from unidpo_mm.modeling.lora_layers import use_fast_lora
from unidpo_mm.modeling.parts import add_lora, keep_in_float32
from unidpo_mm.plugins import load_family
from unidpo_mm.records import MediaInputs

Checkpoint = Callable[[str], Path]

CPU = torch.device("cpu")

GROUPS = {
    "two groups, padding between and after them": [
        GroupSpan(0, 0, 0, 9, (3, 5)),
        GroupSpan(0, 19, 0, 4, (12, 1, 2)),
        GroupSpan(1, 2, 0, 7, (4,)),
    ],
    "the last layer, where prompts are not used": [
        GroupSpan(0, 0, 8, 9, (3, 5)),
        GroupSpan(1, 0, 0, 1, (6, 30)),
    ],
    "empty responses": [GroupSpan(0, 0, 0, 5, (0, 8)), GroupSpan(1, 0, 0, 6, (0, 0))],
    "no response at all": [GroupSpan(0, 0, 0, 5, (0,))],
}
WIDTH = 40


def lines(spans: list[GroupSpan]) -> Tensor:
    width = 4 + max(len(span.branches) for span in spans)
    return torch.tensor([span.as_line(width) for span in spans])


def attention(
    spans: list[GroupSpan], kernel: VarlenKernel | None, dtype: torch.dtype = torch.float64
) -> list[Tensor]:
    """Return output and gradients of attention in two rows, at the used positions."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, WIDTH, heads, 8) for heads in (6, 2, 2)]
    leaves = [torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes]
    query, key, value = (tensor.transpose(1, 2).requires_grad_() for tensor in leaves)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(branch_attention, "varlen_kernel", lambda *args: kernel)
        attend: Any = by_branch(lambda *args, **kwargs: None, "sdpa")
        output, _ = attend(nn.Module(), query, key, value, lines(spans), scaling=0.3)
    used = [output[s.row, s.first + s.unused : s.end] for s in spans]
    gradients = torch.autograd.grad(
        sum((part * torch.linspace(-1, 2, part.numel()).view_as(part)).sum() for part in used),
        (query, key, value),
    )
    return [torch.cat(used).detach(), *gradients]


@pytest.mark.parametrize("spans", GROUPS.values(), ids=GROUPS.keys())
def test_two_calls_equal_pieces(spans: list[GroupSpan]) -> None:
    for computed, expected in zip(attention(spans, PLAIN), attention(spans, None), strict=True):
        torch.testing.assert_close(computed, expected, rtol=0, atol=1e-12)


def test_padding_is_finite() -> None:
    spans = [GroupSpan(0, 3, 0, 9, (3, 5))]
    query = torch.randn(1, 2, 30, 8)
    output = two_calls.attend_in_two_calls(
        Inputs(*[query.transpose(1, 2).flatten(0, 1)] * 3), spans, 30, None, PLAIN
    )
    assert output.isfinite().all()


MISTAKES = {
    "outputs are averaged with equal weights": ("sigmoid", lambda x: torch.full_like(x, 0.5)),
    "the backward pass gets the log-sum-exp of one part": ("logaddexp", lambda a, b: b),
}


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES.keys())
def test_a_wrong_merge_is_detected(mistake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    spans = GROUPS["two groups, padding between and after them"]
    expected = attention(spans, None)
    monkeypatch.setattr(torch, *mistake)
    computed = attention(spans, PLAIN)
    worst = [float((x - y).abs().max()) for x, y in zip(computed, expected, strict=True)]
    assert max(worst) > 1e-2
    assert "differs from the reference" in str(
        compare_with_reference(PLAIN, CPU, torch.bfloat16, 32)
    )


# ---- in models ----


def logps_and_gradients(
    folder: Path, layout: Any, kernel: VarlenKernel | None, dtype: torch.dtype
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return log-probs and gradients of a LoRA adapter, with checkpointed layers."""
    loaded = load_tiny(folder)
    torch.manual_seed(0)
    model = add_lora(loaded.model, loaded.family, LoraOptions(r=2))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.1)
    model.to(dtype)
    enable_packing(loaded.model)
    logp_model = LogpModel(model).train()
    logp_model.activation_checkpointing_enable()
    images = loaded.family.name != "text"
    groups = encoded(loaded, mixed_rows(images=images))
    batch = collate(groups, pad_token_id=loaded.adapter.pad_token_id, layout=layout)
    pixels = {
        name: tensor.to(dtype) if tensor.is_floating_point() else tensor
        for name, tensor in batch.inputs.images.inputs.items()
    }
    batch = with_inputs(batch, media={"image": MediaInputs(pixels)}) if images else batch
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(branch_attention, "varlen_kernel", lambda *args: kernel)
        logps = compute_logps(logp_model, loaded.adapter, batch)
        (logps * torch.linspace(-1, 2, logps.numel())).sum().backward()
    grads = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    assert len(grads) >= 14
    return logps.detach(), grads


@pytest.mark.parametrize("model_type", ["llama", "qwen3", "llava", "qwen2_vl"])
def test_a_model_with_lora_and_checkpointing_computes_the_same(
    checkpoint: Checkpoint, model_type: str
) -> None:
    folder, dtype = checkpoint(model_type), torch.float64
    expected, gradients = logps_and_gradients(folder, "joined", None, dtype)
    calls: list[int] = []

    def counted(*args: Any) -> Any:
        calls.append(len(args[0].queries))
        return PLAIN.forward(*args)

    kernel = VarlenKernel("counted", counted, PLAIN.backward)
    computed, computed_gradients = logps_and_gradients(folder, "joined", kernel, dtype)
    assert len(calls) > 4  # two calls in each of two layers, and again in checkpointed ones
    torch.testing.assert_close(computed, expected, rtol=0, atol=1e-11)
    assert relative_difference(computed_gradients, gradients) < 1e-11


@pytest.mark.parametrize("model_type", ["llama", "qwen3", "llava", "qwen2_vl"])
def test_two_calls_in_float32_are_about_as_exact_as_pieces(
    checkpoint: Checkpoint, model_type: str
) -> None:
    """Rounding moves the gradients of both by 5e-6 to 2e-5, compared with float64."""
    folder = checkpoint(model_type)
    exact_logps, exact = logps_and_gradients(folder, "joined", None, torch.float64)
    errors = {}
    for name, kernel in (("pieces", None), ("two calls", PLAIN)):
        logps, gradients = logps_and_gradients(folder, "joined", kernel, torch.float32)
        torch.testing.assert_close(logps.double(), exact_logps, rtol=1e-6, atol=2e-6)
        in_double = {name: gradient.double() for name, gradient in gradients.items()}
        errors[name] = relative_difference(in_double, exact)
    assert errors["two calls"] < 3 * errors["pieces"], errors


@pytest.mark.parametrize("layout", ["packed", "joined"])
def test_a_model_in_float32_computes_the_same_up_to_rounding(tmp_path: Path, layout: str) -> None:
    folder = load_family("text").tiny(tmp_path, model_type="llama")
    text: Any = load_tiny(folder).model.config
    assert text.num_key_value_heads < text.num_attention_heads
    expected, gradients = logps_and_gradients(folder, layout, None, torch.float32)
    computed, computed_gradients = logps_and_gradients(folder, layout, PLAIN, torch.float32)
    torch.testing.assert_close(computed, expected, rtol=1e-6, atol=1e-6)
    assert relative_difference(computed_gradients, gradients) < 1e-6


def test_a_wrong_merge_changes_the_gradients_of_a_model(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, dtype = checkpoint("llama"), torch.float32
    expected, gradients = logps_and_gradients(folder, "joined", None, dtype)
    monkeypatch.setattr(torch, "logaddexp", lambda a, b: b)
    computed, computed_gradients = logps_and_gradients(folder, "joined", PLAIN, dtype)
    torch.testing.assert_close(computed, expected, rtol=1e-5, atol=1e-5)
    assert relative_difference(computed_gradients, gradients) > 1e-3


# ---- the number of launches ----


@pytest.mark.parametrize("responses", [2, 6])
def test_the_number_of_launches_does_not_depend_on_the_batch(responses: int) -> None:
    spans = [GroupSpan(0, 40 * i, 0, 10, (5,) * responses) for i in range(8)]
    tensors = [torch.randn(1, heads, 320, 8).requires_grad_() for heads in (6, 2, 2)]
    launches = Launches()
    with attention_calls_as_on_a_gpu(launches):
        attend: Any = by_branch(lambda *args, **kwargs: None, "sdpa")
        attend(nn.Module(), *tensors, lines(spans))  # makes the plan, which all layers share
        launches.counts.clear()
        output, _ = attend(nn.Module(), *tensors, lines(spans))
        forward = launches.total
        launches.counts.clear()
        output.sum().backward()
    assert forward <= 30
    assert launches.total <= 45


@pytest.mark.parametrize(
    ("model_type", "lora", "bf16", "limit"),
    [
        ("llama", False, False, 46),
        ("llama", True, False, 60),
        ("llama", True, True, 81),  # autocast converts the 14 matrices of the adapter
        ("llava", False, True, 53),
        ("llava", True, False, 60),
        ("qwen2_5_vl", True, False, 60),
        ("qwen3_vl", True, False, 72),  # queries and keys are normalized, too
        ("idefics3", True, False, 60),
    ],
)
def test_launches_of_a_layer(
    checkpoint: Checkpoint, model_type: str, lora: bool, bf16: bool, limit: int
) -> None:
    loaded = load_tiny(checkpoint(model_type), dtype="bfloat16" if bf16 else "float32")
    model: Any = loaded.model
    if lora:
        model = add_lora(model, loaded.family, LoraOptions(r=4))
        use_fast_lora(model)
        keep_in_float32(model)
    enable_packing(loaded.model)
    images = [] if model_type == "llama" else [make_image()]
    responses = [f"It is {number}" for number in range(6)]
    rows = [
        row(f"r{n}", "What is it?", responses, [float(n) for n in range(6)], images=images)
        for n in range(8)
    ]
    pad = loaded.adapter.pad_token_id
    batch = collate(encoded(loaded, rows), pad_token_id=pad, layout="joined")
    launches, (first, *_) = Launches(), decoder_layers(loaded.model)
    with (
        attention_calls_as_on_a_gpu(launches),
        launches_of(first, launches) as layer,
        torch.no_grad(),
    ):
        for _ in range(2):  # the first layer of the first pass makes the plan
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                compute_logps(LogpModel(model).eval(), loaded.adapter, batch)
    counts = layer[-1]
    assert counts["varlen"] == 2
    assert counts.total() == limit, counts


# ---- the choice of the kernel ----


def test_cpus_compute_attention_in_pieces() -> None:
    tensors = [torch.randn(1, 4, 9, 64, dtype=torch.bfloat16)] * 3
    assert varlen_kernel("sdpa", *tensors) is None


def test_a_kernel_is_not_used_if_it_differs_or_fails() -> None:
    def shifted(*args: Any) -> Any:
        output, lse = PLAIN.forward(*args)
        return output, lse + 1

    wrong = VarlenKernel("wrong", shifted, PLAIN.backward)
    assert compare_with_reference(PLAIN, CPU, torch.bfloat16, 64) is None
    reason = compare_with_reference(wrong, CPU, torch.bfloat16, 64)
    assert reason is not None
    assert "the gradient of" in reason or "the output" in reason
    assert "NotImplementedError" in str(compare_with_reference(TORCH, CPU, torch.bfloat16, 64))


@pytest.mark.parametrize(
    ("works", "chosen"), [((FLASH_2, TORCH), FLASH_2), ((TORCH,), TORCH), ((), None)]
)
def test_the_first_kernel_that_works_is_chosen(
    monkeypatch: pytest.MonkeyPatch, works: tuple[VarlenKernel, ...], chosen: VarlenKernel | None
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(backends, "_is_installed", lambda kernel: True)
    monkeypatch.setattr(
        backends, "compare_with_reference", lambda kernel, *args: None if kernel in works else "no"
    )
    choose: Any = backends._first_that_works.__wrapped__
    assert choose("flash_attention_2", 0, torch.bfloat16, 128) is chosen
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert choose("flash_attention_2", 0, torch.bfloat16, 128) is None


# ---- the arguments of kernels that need a GPU: the same functions, computed by the reference ----


@pytest.fixture
def torch_on_cpu() -> Iterator[None]:
    """Register an implementation for CPUs of PyTorch's flash attention, with the same schema."""

    def forward(
        query: Any, key: Any, value: Any, cu_q: Any, cu_k: Any, max_q: Any, max_k: Any,
        dropout: float, causal: bool, debug: bool, *, scale: Any = None, **others: Any,
    ) -> Any:  # fmt: skip
        assert cu_q.dtype == cu_k.dtype == torch.int32
        assert dropout == 0
        output, lse = PLAIN.forward(
            Inputs(query, key, value), Sequences(cu_q, cu_k, max_q, max_k, causal), scale
        )
        return output, lse, torch.empty(2), torch.empty(0), torch.empty(0)

    def backward(
        grad: Any, query: Any, key: Any, value: Any, out: Any, lse: Any, cu_q: Any, cu_k: Any,
        max_q: Any, max_k: Any, dropout: float, causal: bool, rng: Any, unused: Any, *,
        scale: Any = None, **others: Any,
    ) -> Any:  # fmt: skip
        assert lse.is_contiguous()
        sequences = Sequences(cu_q, cu_k, max_q, max_k, causal)
        return PLAIN.backward(grad, Inputs(query, key, value), out, lse, sequences, scale)

    library = torch.library.Library("aten", "IMPL", "CPU")
    library.impl("_flash_attention_forward", forward)
    library.impl("_flash_attention_backward", backward)
    yield
    library._destroy()


def flash_2_module() -> ModuleType:
    """Return a module with the functions of flash-attn 2.8, computed by the reference."""
    module = ModuleType(FLASH_2.module)

    def _flash_attn_varlen_forward(
        q: Tensor, k: Tensor, v: Tensor, cu_seqlens_q: Tensor, cu_seqlens_k: Tensor,
        max_seqlen_q: int, max_seqlen_k: int, dropout_p: float, softmax_scale: float,
        causal: bool, window_size_left: int = -1, window_size_right: int = -1,
        softcap: float = 0.0, alibi_slopes: Any = None, return_softmax: bool = False,
        block_table: Any = None, leftpad_k: Any = None, seqused_k: Any = None,
    ) -> Any:  # fmt: skip
        sequences = Sequences(cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, causal)
        return *PLAIN.forward(Inputs(q, k, v), sequences, softmax_scale), None, None

    def _flash_attn_varlen_backward(
        dout: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, softmax_lse: Tensor,
        dq: Tensor, dk: Tensor, dv: Tensor, cu_seqlens_q: Tensor, cu_seqlens_k: Tensor,
        max_seqlen_q: int, max_seqlen_k: int, dropout_p: float, softmax_scale: float,
        causal: bool, window_size_left: int, window_size_right: int, softcap: float,
        alibi_slopes: Any, deterministic: bool, rng_state: Any = None,
    ) -> Any:  # fmt: skip
        sequences = Sequences(cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, causal)
        results = PLAIN.backward(dout, Inputs(q, k, v), out, softmax_lse, sequences, softmax_scale)
        for target, result in zip((dq, dk, dv), results, strict=True):
            target.copy_(result)

    vars(module).update(
        _flash_attn_varlen_forward=_flash_attn_varlen_forward,
        _flash_attn_varlen_backward=_flash_attn_varlen_backward,
    )
    return module


def flash_3_module() -> ModuleType:
    """Return a module with the functions of flash-attn 3, computed by the reference."""
    module = ModuleType(FLASH_3.module)

    def _flash_attn_forward(
        q: Tensor, k: Tensor, v: Tensor, k_new: Any = None, v_new: Any = None, qv: Any = None,
        out_: Any = None, cu_seqlens_q: Any = None, cu_seqlens_k: Any = None,
        cu_seqlens_k_new: Any = None, seqused_q: Any = None, seqused_k: Any = None,
        max_seqlen_q: Any = None, max_seqlen_k: Any = None, page_table: Any = None,
        kv_batch_idx: Any = None, leftpad_k: Any = None, rotary_cos: Any = None,
        rotary_sin: Any = None, seqlens_rotary: Any = None, q_descale: Any = None,
        k_descale: Any = None, v_descale: Any = None, softmax_scale: Any = None,
        causal: bool = False, window_size_left: int = -1, window_size_right: int = -1,
    ) -> Any:  # fmt: skip
        sequences = Sequences(cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, causal)
        return *PLAIN.forward(Inputs(q, k, v), sequences, softmax_scale), None, None

    def _flash_attn_backward(
        dout: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, softmax_lse: Tensor,
        cu_seqlens_q: Any = None, cu_seqlens_k: Any = None, sequed_q: Any = None,
        sequed_k: Any = None, max_seqlen_q: Any = None, max_seqlen_k: Any = None,
        dq: Any = None, dk: Any = None, dv: Any = None, softmax_scale: Any = None,
        is_causal: bool = False, window_size_left: int = -1, window_size_right: int = -1,
        softcap: float = 0.0, deterministic: bool = False, sm_margin: int = 0,
    ) -> Any:  # fmt: skip
        sequences = Sequences(cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, is_causal)
        results = PLAIN.backward(dout, Inputs(q, k, v), out, softmax_lse, sequences, softmax_scale)
        for target, result in zip((dq, dk, dv), results, strict=True):
            target.copy_(result)

    vars(module).update(
        _flash_attn_forward=_flash_attn_forward, _flash_attn_backward=_flash_attn_backward
    )
    return module


def test_the_flash_attention_of_pytorch_gets_the_right_arguments(torch_on_cpu: None) -> None:
    assert compare_with_reference(TORCH, CPU, torch.bfloat16, 64) is None


@pytest.mark.parametrize(
    ("kernel", "module"), [(FLASH_2, flash_2_module), (FLASH_3, flash_3_module)]
)
def test_packages_get_the_right_arguments(
    kernel: VarlenKernel, module: Callable[[], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not backends._is_installed(kernel)
    assert "ModuleNotFoundError" in str(compare_with_reference(kernel, CPU, torch.bfloat16, 64))
    interface = module()
    monkeypatch.setitem(sys.modules, kernel.module, interface)
    package, _, name = kernel.module.rpartition(".")
    if package:
        monkeypatch.setitem(sys.modules, package, ModuleType(package))
        setattr(sys.modules[package], name, interface)
    assert compare_with_reference(kernel, CPU, torch.bfloat16, 64) is None


def test_queries_and_values_of_autocast_have_one_format(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda kind: True)
    monkeypatch.setattr(torch, "get_autocast_dtype", lambda kind: torch.bfloat16)

    class OnGpu:
        device = torch.device("cuda")

        def __init__(self, dtype: torch.dtype) -> None:
            self.dtype = dtype

        def to(self, dtype: torch.dtype) -> "OnGpu":
            return OnGpu(dtype)

    tensors: Any = (OnGpu(torch.float32), OnGpu(torch.float32), OnGpu(torch.bfloat16))
    formats = [tensor.dtype for tensor in branch_attention.in_one_format(*tensors)]
    assert formats == [torch.bfloat16] * 3

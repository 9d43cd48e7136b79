"""The choice of the kernel for attention over shared prompts.

On GPUs, a layer takes two calls of a variable-length kernel (`two_calls.py`), if there is one for
its number format and the size of its heads. Everywhere else, and on CPUs in particular, attention
is computed piece by piece (`branch_attention.py`), which is also the reference.

Before a kernel is used for the first time, its results for a small example are compared with those
of the reference, values and gradients. So a version of a package with other conventions costs
speed, not correctness.
"""

import logging
from collections.abc import Callable, Sequence
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

from .group_spans import GroupSpan
from .short_groups import attend_together, used_positions
from .two_calls import attend_in_two_calls
from .varlen import FLASH_2, FLASH_3, TORCH, Inputs, VarlenKernel

__all__ = ["compare_with_reference", "disable_cudnn_attention", "varlen_kernel"]

logger = logging.getLogger(__name__)

KERNELS = {
    "sdpa": (TORCH,),
    "flash_attention_2": (FLASH_2, TORCH),
    "flash_attention_3": (FLASH_3, TORCH),
}
"""Name of an attention implementation -> its kernels, in the order of preference."""

HALF_PRECISION = (torch.bfloat16, torch.float16)

MAX_HEAD_SIZE = 256
MIN_CAPABILITY = (8, 0)
"""The first generation of NVIDIA GPUs that the kernels run on, Ampere."""

EXAMPLE = (GroupSpan(0, 0, 0, 40, (9, 70, 0, 25)), GroupSpan(0, 144, 0, 130, (3,)))
"""The groups of the example that a kernel is compared on; 11 tokens follow that are padding."""
EXAMPLE_TOKENS = 288

TOLERANCE = {torch.bfloat16: 3e-2, torch.float16: 4e-3}
"""Maximum relative difference (L2) from the reference in float32; else 1e-5."""


def disable_cudnn_attention() -> None:
    """Exclude cuDNN from `scaled_dot_product_attention`, for all models of this process.

    On recent GPUs, PyTorch prefers cuDNN, which prepares a plan for every new combination of
    lengths. This takes longer than the attention itself, and the lengths of training batches hardly
    ever repeat. The other kernels do not depend on lengths.
    """
    if torch.cuda.is_available() and torch.backends.cuda.cudnn_sdp_enabled():
        torch.backends.cuda.enable_cudnn_sdp(False)
        logger.info("scaled_dot_product_attention runs without cuDNN, since lengths vary")


def varlen_kernel(name: str, queries: Tensor, keys: Tensor, values: Tensor) -> VarlenKernel | None:
    """Return the kernel for tensors [..., D]; `None` to compute attention in pieces.

    Args:
        name: The attention implementation of the model, by its name in transformers.
        queries: The queries, in the number format that attention computes in.
        keys: The keys.
        values: The values.
    """
    size = queries.shape[-1]
    if (
        not queries.is_cuda
        or queries.dtype not in HALF_PRECISION
        or not queries.dtype == keys.dtype == values.dtype
        or values.shape[-1] != size
        or size % 8
        or size > MAX_HEAD_SIZE
    ):
        return None
    index = queries.device.index or 0
    return _first_that_works(name, index, queries.dtype, size)


@cache
def _first_that_works(
    name: str, device: int, dtype: torch.dtype, head_size: int
) -> VarlenKernel | None:
    if torch.cuda.get_device_capability(device) < MIN_CAPABILITY:
        return None
    for kernel in KERNELS.get(name, ()):
        if not _is_installed(kernel):
            continue
        reason = compare_with_reference(kernel, torch.device("cuda", device), dtype, head_size)
        if reason is None:
            logger.info("attention over shared prompts: two calls of %s", kernel.name)
            return kernel
        logger.warning("%s is not used for attention over shared prompts (%s)", kernel.name, reason)
    logger.warning("attention over shared prompts is computed in pieces, which is slower")
    return None


def _is_installed(kernel: VarlenKernel) -> bool:
    try:
        return not kernel.module or find_spec(kernel.module) is not None
    except ModuleNotFoundError:  # the package that the module is in
        return False


def compare_with_reference(
    kernel: VarlenKernel, device: torch.device, dtype: torch.dtype, head_size: int
) -> str | None:
    """Return why a kernel cannot be used on a device; `None` if it computes what it should."""

    def in_two_calls(*tensors: Tensor) -> Tensor:
        output = attend_in_two_calls(Inputs(*tensors), EXAMPLE, EXAMPLE_TOKENS, None, kernel)
        return output[used_positions(EXAMPLE, EXAMPLE_TOKENS).to(device)]

    def together(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        return attend_together(queries, keys, values, EXAMPLE, EXAMPLE_TOKENS, None)

    generator = torch.Generator().manual_seed(0)
    shapes = [(EXAMPLE_TOKENS, heads, head_size) for heads in (4, 2, 2)]
    inputs = [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]
    try:
        computed = _output_and_gradients(in_two_calls, [t.to(device) for t in inputs])
    except Exception as error:  # a kernel may raise anything; the reference works
        return f"{type(error).__name__}: {error}"
    expected = _output_and_gradients(together, [t.float() for t in inputs])
    names = ("the output", "the gradient of queries", "that of keys", "that of values")
    for what, result, right in zip(names, computed, expected, strict=True):
        difference = float((result.cpu().float() - right).norm() / right.norm())
        if not difference <= TOLERANCE.get(dtype, 1e-5):
            return f"{what} differs from the reference by {difference:.2g}"
    return None


def _output_and_gradients(attend: Callable[..., Tensor], inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return the output of an example, and the gradients of queries, keys and values."""
    # it may run inside a model's forward pass, in any mode, and must not change what that keeps
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.autocast(inputs[0].device.type, enabled=False),
        torch.autograd.graph.saved_tensors_hooks(_unchanged, _unchanged),
    ):
        leaves = [tensor.detach().clone().requires_grad_() for tensor in inputs]
        output = attend(*leaves)
        weight = torch.linspace(-1, 2, output.numel(), device=output.device).view_as(output)
        gradients = torch.autograd.grad(output, leaves, weight.to(output.dtype))
    return [output.detach(), *gradients]


def _unchanged(tensor: Tensor) -> Tensor:
    return tensor

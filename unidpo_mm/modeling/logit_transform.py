"""Detection of what a model does to its logits after the output head.

Some models scale or cap their logits. A configuration may describe that, and the class of a
vision-language model may still not do it, because only its text model reads these settings. So the
model is observed: base model and head are replaced for one call, the head by one that returns
known numbers, and the logits of the model show what became of them. No weight is used.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..kernels.logprobs import LogitTransform

__all__ = ["observed_transform"]

PROBE = torch.linspace(-40, 40, 9)
"""The logits of the replaced head."""


class _BaseOutput:
    """The output of the replaced base model: hidden states, and nothing else."""

    last_hidden_state = torch.zeros(1, 1, 1)

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)
        return

    def __getitem__(self, index: int) -> Tensor:
        return (self.last_hidden_state,)[index]


def observed_transform(model: Any, base: nn.Module, head: nn.Module) -> LogitTransform:
    """Return what a model does to its logits.

    Args:
        model: A transformers model, without PEFT around it.
        base: Its base model.
        head: Its output head.

    Returns:
        The transformation; the one that the configuration describes if the model cannot be
        observed, because it does not call base and head as modules.
    """
    described = _described(model.config)
    logits = _observed(model, base, head)
    if logits is None:
        return described
    factor = float(logits[-1] / PROBE[-1])
    candidates = (
        described,
        LogitTransform(),
        LogitTransform(scale=described.scale),
        LogitTransform(softcap=described.softcap),
        LogitTransform(scale=factor),
    )
    for candidate in candidates:
        if torch.allclose(candidate(PROBE), logits, rtol=1e-3, atol=1e-3):
            return candidate
    return described


def _described(config: Any) -> LogitTransform:
    """Return the transformation that a configuration describes.

    The settings of transformers are `logit_scale`, a factor, `logits_scaling`, a divisor, and
    `final_logit_softcapping`, a cap.
    """
    text = config.get_text_config()
    scale = float(getattr(text, "logit_scale", None) or 1.0)
    scale /= float(getattr(text, "logits_scaling", None) or 1.0)
    return LogitTransform(scale, getattr(text, "final_logit_softcapping", None))


@torch.no_grad()
def _observed(model: Any, base: nn.Module, head: nn.Module) -> Tensor | None:
    """Return what becomes of `PROBE`; `None` if the call fails or the logits have another shape."""
    with ExitStack() as stack:
        stack.enter_context(_replaced(base, lambda *args, **kwargs: _BaseOutput()))
        stack.enter_context(_replaced(head, lambda *args, **kwargs: PROBE.clone().view(1, 1, -1)))
        try:
            ids = torch.zeros(1, 1, dtype=torch.int64)
            logits: Tensor = model.forward(input_ids=ids, use_cache=False).logits
        except Exception:  # a model of another structure may raise anything
            return None
    flat = logits.detach().cpu().float().flatten()
    return flat if flat.shape == PROBE.shape else None


@contextmanager
def _replaced(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Replace the forward function of a module inside the block."""
    previous = vars(module).get("forward")
    module.forward = forward
    try:
        yield
    finally:
        del module.forward
        if previous is not None:
            module.forward = previous

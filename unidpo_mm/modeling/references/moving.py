"""A reference that moves towards the policy during training (TR-DPO, https://arxiv.org/abs/2404.09656).

With a fixed reference, the policy may move so far away that log-ratios say little about quality.
TR-DPO replaces the reference from time to time by the policy, or by an average of both. Here the
reference is a copy of the LoRA adapter in training, so moving it costs neither time nor memory. An
average is that of the matrices of both LoRA adapters, as in TRL.
"""

from pathlib import Path

import torch
from torch import Tensor

from ...adapter import Adapter
from ...errors import ModelError, Problem
from ..logp_model import LogpModel
from ..peft_models import active_adapter, adapter_tensors, copy_adapter, is_zero
from .kinds import FrozenLora

__all__ = ["REFERENCE_FILE", "MovingLora"]

REFERENCE_FILE = "reference_lora.safetensors"
"""The weights of the reference in a checkpoint."""


class MovingLora(FrozenLora):
    """The policy with an earlier state of its LoRA adapter.

    Args:
        logp_model: The policy, with a PEFT model inside.
        adapter: Turns batches into forward inputs.
        steps: Number of optimizer steps after which the reference moves.
        alpha: Share of the policy in the new reference, in (0, 1].
    """

    def __init__(
        self, logp_model: LogpModel, adapter: Adapter, *, steps: int, alpha: float
    ) -> None:
        starts_at_base = is_zero(logp_model.model)
        super().__init__(logp_model, adapter, copy_adapter(logp_model.model))
        self.steps, self.alpha = steps, alpha
        self.starts_at_base = starts_at_base

    @torch.no_grad()
    def move(self) -> None:
        """Move the reference towards the policy."""
        policy = self._weights(active_adapter(self.peft_model))
        for key, tensor in self._weights(self.name).items():
            tensor.lerp_(policy[key].to(tensor), self.alpha)

    def save(self, directory: Path) -> None:
        """Write the weights of the reference into a checkpoint."""
        from safetensors.torch import save_file

        weights = {key: t.detach().cpu() for key, t in self._weights(self.name).items()}
        save_file(weights, directory / REFERENCE_FILE)

    @torch.no_grad()
    def load(self, directory: Path) -> None:
        """Read the weights of the reference from a checkpoint.

        Raises:
            ModelError: If the checkpoint has none.
        """
        from safetensors.torch import load_file

        path = directory / REFERENCE_FILE
        if not path.is_file():
            problem = f"'{directory}' has no {REFERENCE_FILE}: its reference did not move"
            remedy = "Choose a checkpoint of this run, or start from scratch"
            raise ModelError(Problem("train.reference_sync_steps", problem, remedy))
        weights = load_file(path)
        for key, tensor in self._weights(self.name).items():
            tensor.copy_(weights[key])

    def _weights(self, name: str) -> dict[str, Tensor]:
        return {key: t for adapter, key, t in adapter_tensors(self.peft_model) if adapter == name}

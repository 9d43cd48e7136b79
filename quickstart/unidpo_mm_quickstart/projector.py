"""Prepares the projector: the only new weights of the model, and cheap to teach without the LM.

Two steps, both on frozen features. `whiten_projector` chooses a start whose inputs are white and
whose outputs are as large as word embeddings; Hugging Face's projector has no norm layer, so both
are folded into its two linear layers. `fit_projector` then turns images towards the embeddings
of the words that name them, which takes seconds since no language model is run.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional
from transformers import LlavaForConditionalGeneration, LlavaProcessor

BATCH = 64
"""Images per pass of the tower, and per step of the alignment."""
RIDGE = 1e-2
"""Added to the features' variances, as a share of their mean: weak directions stay weak."""


@torch.no_grad()
def tower_features(
    model: LlavaForConditionalGeneration, processor: LlavaProcessor, images: Sequence[Path]
) -> Tensor:
    """What the tower hands to the projector.

    Returns:
        [N, L, D]: N images, L image tokens, D the tower's width.
    """
    layer = model.config.vision_feature_layer
    features = []
    for start in range(0, len(images), BATCH):
        opened = [Image.open(file).convert("RGB") for file in images[start : start + BATCH]]
        pixels = processor.image_processor(images=opened, return_tensors="pt")["pixel_values"]
        hidden = model.model.vision_tower(pixels, output_hidden_states=True).hidden_states
        features.append(hidden[layer])
    return torch.cat(features)


@torch.no_grad()
def whiten_projector(
    model: LlavaForConditionalGeneration,
    processor: LlavaProcessor,
    images: Sequence[Path],
    *,
    seed: int = 0,
) -> None:
    """Re-initialize the projector in place so that it starts in a healthy range.

    Args:
        model: the assembled model; only its projector changes.
        processor: gives the images their pixels.
        images: training images, whose features are measured.
        seed: of the random directions.
    """
    features_ND = tower_features(model, processor, images).flatten(0, 1)
    first, second = projector_layers(model)
    generator = torch.Generator().manual_seed(seed)
    mean_D = features_ND.mean(0)
    variance_D, basis_DD = torch.linalg.eigh(torch.cov(features_ND.T))
    scale_D = (variance_D + RIDGE * variance_D.mean()).rsqrt()
    whitening_DD = basis_DD @ torch.diag(scale_D) @ basis_DD.T
    directions_HD = torch.randn(first.weight.shape, generator=generator)
    first.weight.copy_(functional.normalize(directions_HD, dim=1) @ whitening_DD)
    first.bias.copy_(-first.weight @ mean_D)

    inner_NH = functional.gelu(functional.linear(features_ND, first.weight, first.bias))
    second.weight.copy_(torch.randn(second.weight.shape, generator=generator))
    outputs_NH = inner_NH @ second.weight.T
    embeddings_VH = cast(Tensor, model.get_input_embeddings().weight)
    second.weight.mul_(embeddings_VH.std() / outputs_NH.std())
    second.bias.copy_(-second.weight @ inner_NH.mean(0))


def fit_projector(
    model: LlavaForConditionalGeneration,
    features_NLD: Tensor,
    targets_NK: Tensor,
    words: Sequence[int],
    *,
    steps: int = 100,
    learning_rate: float = 1e-3,
    temperature: float = 0.05,
    seed: int = 0,
) -> list[float]:
    """Align the projector, in place, with the embeddings of K candidate words.

    The mean projected token of an image is compared with every candidate by cosine, and the
    cross-entropy of these similarities against the image's words is minimised.

    Args:
        model: the model; only its projector changes.
        features_NLD: what the tower gave for N images.
        targets_NK: the share of each word in each image's content, rows summing to one.
        words: token ids of the K candidates.
        steps: optimizer steps of one batch each.
        learning_rate: AdamW's peak rate, decayed linearly.
        temperature: divides the cosines.
        seed: of the batches' order.

    Returns:
        The loss of each step.
    """
    projector = model.model.multi_modal_projector
    embeddings_VH = cast(Tensor, model.get_input_embeddings().weight)
    words_KH = functional.normalize(embeddings_VH[list(words)].detach(), dim=1)
    optimizer = torch.optim.AdamW(projector.parameters(), lr=learning_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, total_iters=steps)
    generator = torch.Generator().manual_seed(seed)
    losses = []
    for _ in range(steps):
        chosen = torch.randint(len(features_NLD), (BATCH,), generator=generator)
        means_NH = projector(features_NLD[chosen]).mean(1)
        cosines_NK = functional.normalize(means_NH, dim=1) @ words_KH.T
        loss = functional.cross_entropy(cosines_NK / temperature, targets_NK[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return losses


def projector_layers(
    model: LlavaForConditionalGeneration,
) -> tuple[torch.nn.Linear, torch.nn.Linear]:
    """The two linear layers of the projector."""
    projector = model.model.multi_modal_projector
    return projector.linear_1, projector.linear_2

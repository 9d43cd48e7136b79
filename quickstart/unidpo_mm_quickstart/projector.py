"""Initialize and align the projector, which has the only new weights of the model.

Both steps use frozen features of the vision tower. `whiten_projector` initializes the projector so
that it whitens its inputs and its outputs have the scale of word embeddings. Hugging Face's
projector has no normalization layer, so both are folded into its two linear layers. `fit_projector`
then moves the output for each image token towards the embedding of the word for what it shows. This
takes seconds, because the language model is not run.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from .images import KINDS, Canvas

BATCH = 64
"""Images per forward pass of the tower, and per step of the alignment."""
RIDGE = 1.0
"""Added to the variances, as a fraction of their mean, so that noise is not amplified."""
BACKGROUND = "white"
"""The word for an image token that shows no object."""


def prepare_projector(
    model: LlavaForConditionalGeneration,
    processor: LlavaProcessor,
    canvases: Sequence[Canvas],
    *,
    seed: int = 0,
) -> None:
    """Initialize and align the projector, in place.

    Args:
        model: The assembled model; only its projector changes.
        processor: Its processor.
        canvases: The training images and what they show.
        seed: Seed of the random directions and of the batches.
    """
    features = tower_features(model, processor, [canvas.file for canvas in canvases])
    whiten_projector(model, features, seed=seed)
    names = [*KINDS, BACKGROUND]
    words = [processor.tokenizer.encode(name, add_special_tokens=False)[0] for name in names]
    targets = torch.stack([token_targets(canvas, features.shape[1], names) for canvas in canvases])
    fit_projector(model, features, targets, words, seed=seed)


def token_targets(canvas: Canvas, count: int, names: Sequence[str]) -> Tensor:
    """Return what each image token shows, [L, K]: the share of each name; rows sum to 1.

    Args:
        canvas: The image.
        count: Number of its tokens: one for the whole image, then patches in rows, twice as many
            in a row as rows.
        names: The kinds, and last the name of the background.
    """
    rows = math.isqrt((count - 1) // 2)
    centers = [(number + 0.5) / (2 * rows) for number in range(2 * rows)]
    patches = [canvas.kinds_at(x) or names[-1:] for x in centers] * rows
    targets = torch.zeros(count, len(names))
    for row, kinds in zip(targets, [canvas.kinds, *patches], strict=True):
        for kind in kinds:
            row[names.index(kind)] = 1 / len(kinds)
    return targets


@torch.no_grad()
def tower_features(
    model: LlavaForConditionalGeneration, processor: LlavaProcessor, images: Sequence[Path]
) -> Tensor:
    """Compute the features that the tower passes to the projector.

    Returns:
        Tensor [N, L, D] for N images, L image tokens and the tower's hidden size D.
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
    features_NLD: Tensor,
    *,
    seed: int = 0,
) -> None:
    """Initialize the projector in place, with whitened inputs and outputs as large as embeddings.

    Args:
        model: The assembled model; only its projector changes.
        features_NLD: Features of N training images, from `tower_features`.
        seed: Seed of the random directions.
    """
    features_ND = features_NLD.flatten(0, 1)
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
    targets_NLK: Tensor,
    words: Sequence[int],
    *,
    steps: int = 100,
    learning_rate: float = 1e-3,
    temperature: float = 0.05,
    seed: int = 0,
) -> list[float]:
    """Align the projector, in place, with the embeddings of K candidate words.

    The loss is the cross-entropy between the words for what an image token shows and the cosine
    similarities of the projected token with all candidates.

    Args:
        model: The model; only its projector changes.
        features_NLD: Features of N images, from `tower_features`.
        targets_NLK: Fraction of each word in what a token shows; each row sums to 1.
        words: Token ids of the K candidates.
        steps: Number of optimizer steps, with one batch each.
        learning_rate: Initial learning rate of AdamW, which decays linearly.
        temperature: Divisor of the cosine similarities.
        seed: Seed of the batches.

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
        indices = torch.randint(len(features_NLD), (BATCH,), generator=generator)
        outputs_NLH = projector(features_NLD[indices])
        cosines_NLK = functional.normalize(outputs_NLH, dim=2) @ words_KH.T
        logits_NLK = cosines_NLK / temperature
        loss = functional.cross_entropy(
            logits_NLK.flatten(0, 1), targets_NLK[indices].flatten(0, 1)
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return losses


def projector_layers(
    model: LlavaForConditionalGeneration,
) -> tuple[torch.nn.Linear, torch.nn.Linear]:
    """Return the two linear layers of the projector."""
    projector = model.model.multi_modal_projector
    return projector.linear_1, projector.linear_2

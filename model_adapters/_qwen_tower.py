"""Arguments of Qwen's vision towers that follow from the sizes of images.

From the grid of each image the tower derives positions, windows and the ends of the sequences that
attend to each other. On a GPU it would copy the grids back to the host several times, and the ends
in every layer. transformers accepts all of it as arguments, under the names used here.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from unidpo_mm.records import EncoderInputs, MediaKind

__all__ = ["tower_inputs"]

GRIDS: Mapping[MediaKind, str] = {"image": "image_grid_thw", "video": "video_grid_thw"}


def tower_inputs(config: Any, kind: MediaKind, inputs: Mapping[str, Tensor]) -> EncoderInputs:
    """Return the arguments of the tower for the images or the videos of a batch.

    Args:
        config: The configuration of the tower.
        kind: The kind of media.
        inputs: The tensors of the batch, on the CPU.
    """
    from transformers import vision_utils

    grid = inputs.get(GRIDS[kind])
    if grid is None:
        return EncoderInputs()
    merge = config.spatial_merge_size
    ends = vision_utils.get_vision_cu_seqlens(grid)
    tensors = {"position_ids": vision_utils.get_vision_position_ids(grid, merge)}
    lengths = {"cu_seqlens": ends}
    if getattr(config, "window_size", None):
        tensors["window_index"], lengths["cu_window_seqlens"] = (
            vision_utils.get_vision_window_index(grid, merge, config.window_size, config.patch_size)
        )
    if getattr(config, "num_position_embeddings", None):
        indices, weights = vision_utils.get_vision_interpolation_indices_and_weights(
            grid,
            int(config.num_position_embeddings**0.5),
            mode="bilinear",
            align_corners=True,
            spatial_merge_size=merge,
        )
        tensors |= {"interp_indices": indices, "interp_weights": weights}
    return EncoderInputs(
        tensors={f"{kind}_{name}": tensor for name, tensor in tensors.items()},
        ends={f"{kind}_{name}": tuple(tensor.tolist()) for name, tensor in lengths.items()},
        grids={GRIDS[kind]: tuple(map(tuple, grid.tolist()))},
    )

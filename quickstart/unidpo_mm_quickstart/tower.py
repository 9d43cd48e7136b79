"""The vision tower: DINOv2-small's weights read out of an ONNX graph into `Dinov2Model`.

An exporter keeps the names of biases, norms and scales, but turns each linear layer into a MatMul
with an anonymous, transposed constant followed by an Add of the named bias. So every weight is
found through its bias. The position table was cut in two by constant folding.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import Dinov2Config, Dinov2Model

if TYPE_CHECKING:
    from onnx import ModelProto

PREFIX = "backbone."
PATCH_SIZE = 14
HIDDEN_SIZE = 384

Arrays = dict[str, np.ndarray]


def tower_config() -> Dinov2Config:
    """DINOv2-small: 12 layers of width 384 over patches of 14 px, position table for 518 px."""
    return Dinov2Config(
        hidden_size=HIDDEN_SIZE,
        num_hidden_layers=12,
        num_attention_heads=6,
        patch_size=PATCH_SIZE,
        image_size=518,
    )


def load_tower(onnx_file: Path) -> Dinov2Model:
    """Build the tower in float32, eval mode.

    Args:
        onnx_file: the graph; its decoder (a saliency head) is not used.

    Returns:
        A `Dinov2Model` whose every parameter comes from the file, except the mask token.

    Raises:
        ValueError: the graph is not this tower.
    """
    import onnx

    state = {name: torch.from_numpy(array) for name, array in read_state(onnx.load(onnx_file))}
    # Through from_pretrained, which knows the published checkpoint's names of every version.
    load: Any = Dinov2Model.from_pretrained  # its types do not know output_loading_info
    model, found = load(
        None, config=tower_config(), state_dict=state, dtype=torch.float32, output_loading_info=True
    )
    # Anything missing would be random noise.
    if found["missing_keys"] or found["unexpected_keys"]:
        raise ValueError(f"{onnx_file} is not the expected tower: {found}")
    tower: Dinov2Model = model.eval()
    return tower


def read_state(graph_file: "ModelProto") -> list[tuple[str, np.ndarray]]:
    """Name every array of the backbone as `Dinov2Model` does."""
    from onnx import numpy_helper

    graph = graph_file.graph
    arrays = {item.name: np.array(numpy_helper.to_array(item)) for item in graph.initializer}
    state = {
        name.removeprefix(PREFIX): array
        for name, array in arrays.items()
        if name.startswith(PREFIX)
    }
    made_by = {output: node for node in graph.node for output in node.output}
    for node in graph.node:
        biases = [name for name in node.input if name.startswith(PREFIX) and name.endswith(".bias")]
        if node.op_type != "Add" or not biases:
            continue
        product = next((made_by[name] for name in node.input if name in made_by), None)
        if product is not None and product.op_type == "MatMul":
            weight = next(arrays[name] for name in product.input if name in arrays)
            name = biases[0].removeprefix(PREFIX).removesuffix("bias") + "weight"
            state[name] = np.ascontiguousarray(weight.T)
    state["embeddings.position_embeddings"] = position_table(arrays)
    # Only pre-training used the mask token, so the exporter dropped it.
    state["embeddings.mask_token"] = np.zeros((1, HIDDEN_SIZE), dtype=np.float32)
    return sorted(state.items())


def position_table(arrays: Arrays) -> np.ndarray:
    """Join the class token's row and the 37 x 37 patch rows, [1, 1370, 384]."""
    anonymous = {
        array.shape: array for name, array in arrays.items() if not name.startswith(PREFIX)
    }
    class_row, patch_rows = anonymous[(1, 1, HIDDEN_SIZE)], anonymous[(1, 37 * 37, HIDDEN_SIZE)]
    return np.concatenate([class_row, patch_rows], axis=1)

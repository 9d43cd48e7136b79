"""Load the vision tower: DINOv2-small's weights from an ONNX graph into `Dinov2Model`.

The exporter kept the names of biases, norms and scales, but turned each linear layer into a MatMul
with an anonymous, transposed constant, followed by an Add of the named bias. So each weight is
identified by its bias. Constant folding has split the position table in two.
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
    """Return the configuration of DINOv2-small, with a position table for 518 px."""
    return Dinov2Config(
        hidden_size=HIDDEN_SIZE,
        num_hidden_layers=12,
        num_attention_heads=6,
        patch_size=PATCH_SIZE,
        image_size=518,
    )


def load_tower(onnx_file: Path) -> Dinov2Model:
    """Load the tower in float32 and evaluation mode.

    Args:
        onnx_file: The graph; its decoder (a saliency head) is not used.

    Returns:
        The tower; all its parameters come from the file, except the unused mask token.

    Raises:
        ValueError: If the graph is not this tower.
    """
    import onnx

    state = {name: torch.from_numpy(array) for name, array in read_state(onnx.load(onnx_file))}
    # from_pretrained maps the names of the published checkpoint to those of any version
    load: Any = Dinov2Model.from_pretrained  # output_loading_info is missing in its types
    model, loading_info = load(
        None, config=tower_config(), state_dict=state, dtype=torch.float32, output_loading_info=True
    )
    # A missing parameter would be random
    if loading_info["missing_keys"] or loading_info["unexpected_keys"]:
        raise ValueError(f"{onnx_file} is not the expected tower: {loading_info}")
    tower: Dinov2Model = model.eval()
    return tower


def read_state(graph_file: "ModelProto") -> list[tuple[str, np.ndarray]]:
    """Return the arrays of the backbone under the names of `Dinov2Model`."""
    from onnx import numpy_helper

    graph = graph_file.graph
    arrays = {item.name: np.array(numpy_helper.to_array(item)) for item in graph.initializer}
    state = {
        name.removeprefix(PREFIX): array
        for name, array in arrays.items()
        if name.startswith(PREFIX)
    }
    producers = {output: node for node in graph.node for output in node.output}
    for node in graph.node:
        biases = [name for name in node.input if name.startswith(PREFIX) and name.endswith(".bias")]
        if node.op_type != "Add" or not biases:
            continue
        product = next((producers[name] for name in node.input if name in producers), None)
        if product is not None and product.op_type == "MatMul":
            weight = next(arrays[name] for name in product.input if name in arrays)
            name = biases[0].removeprefix(PREFIX).removesuffix("bias") + "weight"
            state[name] = np.ascontiguousarray(weight.T)
    state["embeddings.position_embeddings"] = position_table(arrays)
    # The exporter dropped the mask token, which is only used in pre-training
    state["embeddings.mask_token"] = np.zeros((1, HIDDEN_SIZE), dtype=np.float32)
    return sorted(state.items())


def position_table(arrays: Arrays) -> np.ndarray:
    """Join the rows of the class token and the 37 x 37 patches to [1, 1370, 384]."""
    anonymous = {
        array.shape: array for name, array in arrays.items() if not name.startswith(PREFIX)
    }
    class_row, patch_rows = anonymous[(1, 1, HIDDEN_SIZE)], anonymous[(1, 37 * 37, HIDDEN_SIZE)]
    return np.concatenate([class_row, patch_rows], axis=1)

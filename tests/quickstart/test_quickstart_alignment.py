"""The targets of the alignment say what each image token shows; a GGUF file is parsed once."""

from pathlib import Path

import gguf
import numpy as np
import torch
from unidpo_mm_quickstart.images import Canvas
from unidpo_mm_quickstart.projector import token_targets
from unidpo_mm_quickstart.vlm import parsed_once

NAMES = ["face", "flag", "white"]


def targets(*kinds: str) -> torch.Tensor:
    canvas = Canvas(id="c", file=Path("c.png"), kinds=kinds, concepts=())
    return token_targets(canvas, 9, NAMES)


def test_the_token_of_the_whole_image_shows_all_kinds_in_equal_shares():
    assert targets("face")[0].tolist() == [1, 0, 0]
    assert targets("face", "flag")[0].tolist() == [0.5, 0.5, 0]


def test_patches_of_one_centered_object_show_it_and_both_sides_are_background():
    names = targets("flag")[1:].argmax(1).view(2, 4)
    assert names.tolist() == [[2, 1, 1, 2], [2, 1, 1, 2]]


def test_patches_of_two_objects_side_by_side_show_each_at_its_place():
    patches = targets("face", "flag")[1:].view(2, 4, 3)
    assert patches.max(2).values.eq(1).all()
    assert patches.argmax(2).tolist() == [[0, 0, 1, 1], [0, 0, 1, 1]]


def test_every_token_has_shares_that_sum_to_one():
    for kinds in (("face",), ("flag",), ("flag", "face")):
        torch.testing.assert_close(targets(*kinds).sum(1), torch.ones(9))


def test_a_gguf_file_is_parsed_once_within_the_context_only(tmp_path: Path):
    file = str(tmp_path / "tiny.gguf")
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_tensor("weight", np.ones((2, 32), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    reader = gguf.GGUFReader
    with parsed_once():
        assert gguf.GGUFReader(file) is gguf.GGUFReader(file)
    assert gguf.GGUFReader is reader
    assert gguf.GGUFReader(file) is not gguf.GGUFReader(file)

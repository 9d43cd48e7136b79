"""A pair has the same loss and gradient in every batch and with every padding."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import (
    IMAGE_TYPES,
    MODEL_TYPES,
    batch_of,
    build_reference,
    load_tiny,
    logp_model_of,
    mixed_rows,
    with_inputs,
)
from torch import Tensor

from unidpo_mm.adapter import Adapter
from unidpo_mm.modeling.load import LoadedModel
from unidpo_mm.modeling.logp_model import LogpModel
from unidpo_mm.modeling.references.cached import gate_margin
from unidpo_mm.modeling.references.kinds import FrozenCopy
from unidpo_mm.records import GroupBatch, MediaInputs, PreferenceRow
from unidpo_mm.training.configured_loss import ConfiguredLoss, configure_loss
from unidpo_mm.training.step import preference_step

Checkpoint = Callable[[str], Path]
BAR = 1e-5
Result = tuple[dict[str, list[Tensor]], Tensor]


def settings_of(name: str = "uni_dpo", **parameters: Any) -> ConfiguredLoss:
    return configure_loss(name, {"tau_good": 2.5, "nll_lambda": 0.2, **parameters})


class Bench:
    """A policy that differs from its reference, so that no term is trivial."""

    def __init__(self, folder: Path) -> None:
        self.loaded: LoadedModel = load_tiny(folder)
        self.adapter: Adapter = self.loaded.adapter
        self.logp_model: LogpModel = logp_model_of(self.loaded)
        self.reference = FrozenCopy(logp_model_of(load_tiny(folder)), self.adapter)
        torch.manual_seed(7)
        with torch.no_grad():
            for parameter in self.logp_model.parameters():
                parameter.add_(0.02 * torch.randn_like(parameter))

    def run(self, batches: Sequence[GroupBatch], **settings: Any) -> Result:
        """Return the losses of each row and the flat gradient of the sum of all losses."""
        self.logp_model.zero_grad()
        losses: dict[str, list[Tensor]] = {}
        for batch in batches:
            output = preference_step(
                self.logp_model,
                batch,
                adapter=self.adapter,
                settings=settings_of(**settings),
                reference=self.reference,
            )
            output.loss_sum.backward()
            for name, loss in zip(batch.pairs.row_ids, output.loss.per_unit.detach(), strict=True):
                losses.setdefault(name, []).append(loss)
        grads = [p.grad.flatten() for p in self.logp_model.parameters() if p.grad is not None]
        return losses, torch.cat(grads)


def assert_same(left: Result, right: Result, bar: float = BAR) -> None:
    assert left[0].keys() == right[0].keys()
    for name, losses in left[0].items():
        torch.testing.assert_close(
            torch.stack(losses), torch.stack(right[0][name]), rtol=bar, atol=bar, msg=name
        )
    distance = (left[1] - right[1]).norm() / left[1].norm()
    assert distance < 2 * bar, float(distance)


@pytest.fixture(scope="module")
def bench(checkpoint: Checkpoint) -> Callable[[str], Bench]:
    benches: dict[str, Bench] = {}
    return lambda kind: benches.setdefault(kind, Bench(checkpoint(kind)))


def rows_for(model_type: str) -> list[PreferenceRow]:
    return mixed_rows(images=model_type in IMAGE_TYPES)


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_a_batch_equals_its_rows_one_by_one(bench: Callable[[str], Bench], model_type: str) -> None:
    it = bench(model_type)
    rows = rows_for(model_type)
    together = it.run([batch_of(it.loaded, rows)])
    alone = it.run([batch_of(it.loaded, [row]) for row in rows])
    assert_same(together, alone)


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_left_padding_equals_right_padding(bench: Callable[[str], Bench], model_type: str) -> None:
    it = bench(model_type)
    rows = rows_for(model_type)
    assert_same(
        it.run([batch_of(it.loaded, rows, padding_side="left")]),
        it.run([batch_of(it.loaded, rows, padding_side="right")]),
    )


@pytest.mark.parametrize("model_type", IMAGE_TYPES)
def test_a_batch_of_several_domains_equals_one_batch_per_domain(
    bench: Callable[[str], Bench], model_type: str
) -> None:
    it = bench(model_type)
    rows = mixed_rows(images=True)
    mixed = it.run([batch_of(it.loaded, rows[3:] + rows[:3])])
    separate = it.run(
        [
            batch_of(it.loaded, [row for row in rows if row.domain == domain])
            for domain in ("text", "math", "multimodal")
        ]
    )
    assert_same(mixed, separate)


@pytest.mark.parametrize("model_type", IMAGE_TYPES)
def test_the_order_of_rows_and_their_images_does_not_matter(
    bench: Callable[[str], Bench], model_type: str
) -> None:
    it = bench(model_type)
    rows = mixed_rows(images=True)
    assert_same(it.run([batch_of(it.loaded, rows)]), it.run([batch_of(it.loaded, rows[::-1])]))


def test_the_comparison_detects_a_wrong_image(bench: Callable[[str], Bench]) -> None:
    it = bench("llava")
    batch = batch_of(it.loaded, mixed_rows(images=True))
    pixels = batch.inputs.images.inputs["pixel_values"].roll(1, 0)
    wrong = with_inputs(batch, media={"image": MediaInputs({"pixel_values": pixels})})
    with pytest.raises(AssertionError):
        assert_same(it.run([batch]), it.run([wrong]))


def test_the_comparison_detects_wrong_positions(bench: Callable[[str], Bench]) -> None:
    it = bench("llama")
    batch = batch_of(it.loaded, mixed_rows(images=False), padding_side="left")
    position = batch.inputs.row_position
    columns = torch.arange(position.shape[1])
    doubled = with_inputs(batch, row_position=columns.expand_as(position) * 2)
    with pytest.raises(AssertionError):
        assert_same(it.run([batch]), it.run([doubled]))


def test_the_comparison_detects_attention_to_padding(bench: Callable[[str], Bench]) -> None:
    it = bench("llama")
    batch = batch_of(it.loaded, mixed_rows(images=False), padding_side="left")
    inputs = {
        **batch.inputs.tokens,
        "attention_mask": torch.ones_like(batch.inputs.tokens["attention_mask"]),
    }
    with pytest.raises(AssertionError):
        assert_same(it.run([batch]), it.run([with_inputs(batch, tokens=inputs)]))


@pytest.mark.parametrize("name", ["dpo", "simpo"])
def test_other_losses_do_not_depend_on_their_batch(
    bench: Callable[[str], Bench], name: str
) -> None:
    it = bench("llava")
    rows = mixed_rows(images=True)
    unset = {"tau_good": None, "nll_lambda": None}
    assert_same(
        it.run([batch_of(it.loaded, rows)], name=name, **unset),
        it.run([batch_of(it.loaded, [row]) for row in rows], name=name, **unset),
    )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("model_type", ["qwen3", "llava_onevision"])
def test_the_gate_is_closed_for_every_pair_before_the_first_step(
    checkpoint: Checkpoint, model_type: str, dtype: str
) -> None:
    loaded = load_tiny(checkpoint(model_type), dtype=dtype)
    logp_model = logp_model_of(loaded).train()
    reference = build_reference("frozen_copy", logp_model, loaded.adapter)
    batch = batch_of(loaded, rows_for(model_type))
    margin = gate_margin(getattr(torch, dtype), apart=False)
    output = preference_step(
        logp_model,
        batch,
        adapter=loaded.adapter,
        settings=settings_of(tau_good=-100.0).with_gate_margin(margin),
        reference=reference,
    )
    assert output.loss.terms["nll_gate"].tolist() == [0.0] * len(batch.pairs)
    assert output.loss.chosen_rewards is not None
    assert output.loss.chosen_rewards.abs().max() <= 2 * margin  # beta is 2


def test_the_gate_opens_if_a_good_response_loses_likelihood(
    bench: Callable[[str], Bench],
) -> None:
    it = bench("llama")
    batch = batch_of(it.loaded, mixed_rows(images=False))
    output = preference_step(
        it.logp_model,
        batch,
        adapter=it.adapter,
        settings=settings_of(tau_good=-100.0),
        reference=it.reference,
    )
    lost = output.pairs.policy_chosen.sum < output.pairs.reference_chosen.sum
    assert 0 < lost.sum() < len(lost)
    assert torch.equal(output.loss.terms["nll_gate"], lost.double())

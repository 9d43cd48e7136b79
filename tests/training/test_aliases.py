"""Names of TRL and of the official code set the right fields."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from trainers import config

from unidpo_mm import UniDPOConfig
from unidpo_mm.config.loss_aliases import OFFICIAL_NAMES, resolve_loss
from unidpo_mm.errors import RecipeError
from unidpo_mm.losses.dpo import DPOLossConfig
from unidpo_mm.training.configured_loss import configured_loss


def settings_of(tmp_path: Path, **options: Any) -> Any:
    return configured_loss(config(tmp_path, **options))


def test_official_names_reach_the_loss(tmp_path: Path) -> None:
    settings = settings_of(
        tmp_path,
        uni_dpo_qual_eta=0.5,
        uni_dpo_perf_gamma=2.0,
        uni_dpo_tau_ref=0.25,
        uni_dpo_nll_lambda=0.125,
        uni_dpo_tau_good=3.2,
        dpo_length_norm=False,
    )
    loss = settings.config
    assert (loss.eta, loss.gamma, loss.tau_ref) == (0.5, 2.0, 0.25)
    assert (loss.nll_lambda, loss.tau_good, loss.length_norm) == (0.125, 3.2, False)


@pytest.mark.parametrize("alias", sorted(OFFICIAL_NAMES))
def test_every_alias_sets_its_parameter_also_after_a_copy(tmp_path: Path, alias: str) -> None:
    value = False if OFFICIAL_NAMES[alias] == "length_norm" else 1.5
    args = config(tmp_path, **{alias: value})
    for same in (args, dataclasses.replace(args, learning_rate=1e-4)):
        assert resolve_loss(same) == ("uni_dpo", {OFFICIAL_NAMES[alias]: value})


def test_one_loss_has_several_spellings(tmp_path: Path) -> None:
    spellings: list[dict[str, Any]] = [
        {"loss": {"name": "dpo", "beta": 0.3}},
        {"loss": "dpo", "beta": 0.3},
        {"loss": DPOLossConfig(beta=0.3)},
        {"loss_type": "sigmoid", "loss_kwargs": {"beta": 0.3}},
    ]
    losses = [settings_of(tmp_path, **options) for options in spellings]
    assert all(item.loss.name == "dpo" and item.config == losses[0].config for item in losses)


@pytest.mark.parametrize(
    ("options", "where"),
    [
        ({"loss": {"name": "dpo", "beta": 0.3}, "beta": 0.2}, "beta"),
        ({"loss": "dpo", "loss_type": "hinge"}, "loss_type"),
        ({"loss": 7}, "loss"),
        ({"loss_weights": [1.0]}, "loss_weights"),
    ],
)
def test_contradictory_losses_are_refused(
    tmp_path: Path, options: dict[str, Any], where: str
) -> None:
    with pytest.raises(RecipeError) as refused:
        config(tmp_path, **options)
    assert refused.value.problems[0].where == where


def test_conflicting_names_and_aliases_are_reported_together(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        config(
            tmp_path, eta=0.7, uni_dpo_qual_eta=0.5, dpo_length_norm=True,
            dpo_average_log_prob=False,
        )  # fmt: skip
    message = str(caught.value)
    assert "uni_dpo_qual_eta: it is 0.5, but eta, which means the same, is 0.7" in message
    assert "dpo_average_log_prob" in message


def test_sync_ref_model_moves_the_reference(tmp_path: Path) -> None:
    args = config(tmp_path, sync_ref_model=True, ref_model_sync_steps=7)
    assert (args.reference_sync_steps, args.reference_sync_alpha) == (7, 0.6)
    assert config(tmp_path, ref_model_sync_steps=7).reference_sync_steps is None


def test_precompute_ref_log_probs_means_a_cached_reference(tmp_path: Path) -> None:
    assert config(tmp_path, precompute_ref_log_probs=True).reference == "cached"


def test_former_sizes_in_pixels_keep_their_unit(tmp_path: Path) -> None:
    args = config(tmp_path, image_max_pixels=5000, image_min_pixels=100)
    assert (args.image_min_size, args.image_max_size) == ("100 pixels", "5000 pixels")
    same = dataclasses.replace(args, learning_rate=1e-4)
    assert same.image_max_size == "5000 pixels"
    with pytest.raises(RecipeError, match="image_max_pixels: it is the former name of 'image_max_"):
        config(tmp_path, image_max_pixels=5000, image_max_size=4)


def test_a_name_and_its_alias_may_agree(tmp_path: Path) -> None:
    assert settings_of(tmp_path, eta=0.5, uni_dpo_qual_eta=0.5).config.eta == 0.5


@pytest.mark.parametrize(
    ("options", "name", "length_norm"),
    [
        ("sigmoid", "dpo", False),
        ("sigmoid_norm", "dpo", True),
        (["sigmoid"], "dpo", False),
        ("hinge", "hinge", False),
        ("ipo", "ipo", True),
        ("robust", "robust", False),
        ("bco_pair", "bco", False),
    ],
    ids=str,
)
def test_trl_loss_names_are_accepted(
    tmp_path: Path, options: Any, name: str, length_norm: bool
) -> None:
    settings = settings_of(tmp_path, loss_type=options)
    assert settings.loss.name == name
    assert settings.config.length_norm is length_norm


def test_a_weighted_list_is_a_mixture_with_one_beta(tmp_path: Path) -> None:
    settings = settings_of(
        tmp_path,
        loss_type=["sigmoid", "bco_pair", "sft"],
        loss_weights=[0.8, 0.2, 1.0],
        beta=0.25,
    )
    assert settings.loss.name == "mpo"
    parameters_by_loss = {
        loss.name: (parameters, weight) for loss, parameters, weight in settings.config.parts()
    }
    assert {name: weight for name, (_, weight) in parameters_by_loss.items()} == {
        "dpo": 0.8, "bco": 0.2, "sft": 1.0,
    }  # fmt: skip
    assert parameters_by_loss["dpo"][0].beta == parameters_by_loss["bco"][0].beta == 0.25
    assert parameters_by_loss["bco"][0].shift == 0.0  # TRL has no shift


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0]}, "1 weight for 2 losses"),
        ({"loss_type": ["sigmoid", "sigmoid_norm"]}, "duplicate loss in"),
        ({"loss_type": "sigmoid", "loss_weights": [1.0, 2.0]}, "2 weights for 1 loss"),
        ({"loss_type": []}, "it is empty"),
    ],
    ids=["weights", "twice", "weights of one", "empty"],
)
def test_invalid_lists_of_losses_are_refused(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        config(tmp_path, **options)


def test_a_single_weighted_loss_is_a_mixture(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, loss_type="sigmoid", loss_weights=[0.5], beta=0.3)
    ((loss, parameters, weight),) = settings.config.parts()
    assert (loss.name, parameters.beta, weight) == ("dpo", 0.3, 0.5)


def test_a_common_beta_combines_with_parameters_of_single_losses(tmp_path: Path) -> None:
    settings = settings_of(
        tmp_path, loss_type=["sigmoid", "simpo", "sft"], beta=0.5,
        loss_kwargs={"parameters": {"dpo": {"length_norm": True}, "simpo": {"beta": 3.0}}},
    )  # fmt: skip
    parameters_by_loss = {loss.name: parameters for loss, parameters, _ in settings.config.parts()}
    assert (parameters_by_loss["dpo"].beta, parameters_by_loss["dpo"].length_norm) == (0.5, True)
    assert parameters_by_loss["simpo"].beta == 3.0


def test_settings_can_be_parsed_from_a_command_line_as_in_trl() -> None:
    from transformers import HfArgumentParser

    words = "--output_dir out --use_cpu True --loss_type hinge --beta 0.2 --length_norm true"
    (args,) = HfArgumentParser(UniDPOConfig).parse_args_into_dataclasses(words.split())
    loss = configured_loss(args)
    assert (loss.loss.name, loss.config.beta, loss.config.length_norm) == ("hinge", 0.2, True)


def test_trls_names_of_losses_of_labeled_responses(tmp_path: Path) -> None:
    assert settings_of(tmp_path, loss_type="kto").config.kl == "batch_mean"
    assert settings_of(tmp_path, loss_type="apo_zero_unpaired").config.kl == "none"

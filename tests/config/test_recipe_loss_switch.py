"""An override that switches the loss drops parameters that the new loss does not have."""

import logging
from pathlib import Path

import pytest

from unidpo_mm.config import aliases, load_recipe
from unidpo_mm.config.checks.recipe import check_loss
from unidpo_mm.errors import RecipeError

TEXT = """\
model: {name_or_path: a/b}
data: {sources: [{path: c/d, loss: {beta: 1.0, eta: 0.5}}]}
loss: {name: uni_dpo, beta: 2.0, tau_good: 3.2, gamma: 1.0}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    aliases.warn_once.cache_clear()
    (tmp_path / "r.yaml").write_text(TEXT)
    return tmp_path / "r.yaml"


def load(path: Path, *overrides: str):
    return load_recipe(path, overrides, checks=[check_loss])


def test_parameters_of_the_other_loss_are_dropped_with_a_warning(path: Path, caplog):
    with caplog.at_level(logging.WARNING):
        recipe = load(path, "loss.name=dpo", "loss.label_smoothing=0.1")
    assert recipe.loss.parameters == {"beta": 2.0, "label_smoothing": 0.1}
    assert recipe.data.sources[0].loss == {"beta": 1.0}
    assert caplog.messages == [
        "loss.name=dpo: dropped loss.tau_good, loss.gamma, data.sources.0.loss.eta, which only "
        "'uni_dpo' has"
    ]


def test_parameters_that_are_overrides_are_checked(path: Path):
    with pytest.raises(RecipeError, match="no parameter 'gamma'"):
        load(path, "loss.name=dpo", "loss.gamma=2.0")
    with pytest.raises(RecipeError, match="no parameter 'gamma'"):
        load(path, "loss={name: dpo, gamma: 2.0}")


def test_a_file_with_a_parameter_that_its_loss_lacks_is_refused(path: Path, caplog):
    path.write_text(TEXT.replace("name: uni_dpo", "name: dpo"))
    with pytest.raises(RecipeError, match="no parameter 'tau_good'"):
        load(path)
    with pytest.raises(RecipeError, match="no parameter 'tau_good'"):
        load(path, "loss.name=dpo")
    assert caplog.messages == []


def test_an_unknown_loss_drops_nothing(path: Path, caplog):
    with pytest.raises(RecipeError, match="unknown loss 'dpoo'"):
        load(path, "loss.name=dpoo")
    assert caplog.messages == []

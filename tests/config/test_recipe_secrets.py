"""Access tokens and passwords are masked in everything that is written or printed."""

import copy
import pickle

import pytest
import yaml

from unidpo_mm import UniDPOConfig
from unidpo_mm.config import Recipe, dump_recipe, load_recipe
from unidpo_mm.config.checks.packages import check_secrets
from unidpo_mm.errors import RecipeError
from unidpo_mm.secrets import MASK, is_secret_key, mask_secrets, mask_text

SECRET = "s3cr3t-value"


@pytest.mark.parametrize(
    "key",
    "token hub_token train.hub_token model.init_kwargs.token api_key apiKey OPENAI_API_KEY "
    "password aws_secret_access_key push_to_hub_token Authorization client_secret".split(),
)
def test_keys_of_secrets(key: str):
    assert is_secret_key(key)


@pytest.mark.parametrize(
    "key",
    "image_token pad_token eos_token_id eval_max_new_tokens tokenizer key keys monkey "
    "average_tokens_across_devices include_num_input_tokens_seen name_or_path".split(),
)
def test_keys_that_are_not_secret(key: str):
    assert not is_secret_key(key)


def test_values_are_masked_at_every_level():
    values = {
        "token": SECRET,
        "inner": [{"api_key": SECRET, "url": f"https://me:{SECRET}@host/v1?x=1"}],
        "credentials": {"user": SECRET},
        "pad_token": "<pad>",
        "flag_token": True,
        "text": f"https://host/?api_key={SECRET}&x=1",
    }
    masked = mask_secrets(values)
    assert SECRET not in str(masked)
    assert masked["inner"][0]["url"] == f"https://{MASK}@host/v1?x=1"
    assert masked["text"] == f"https://host/?api_key={MASK}&x=1"
    assert (masked["pad_token"], masked["flag_token"]) == ("<pad>", True)
    assert values["token"] == SECRET


def test_texts_are_masked():
    assert mask_text(f"override 'train.hub_token={SECRET}'") == f"override 'train.hub_token={MASK}'"
    assert mask_text("unexpected token: x; hub_token: x") == "unexpected token: x; hub_token: ***"
    assert mask_text("http://host:80/a@b seed=1") == "http://host:80/a@b seed=1"
    assert mask_text("hf_" + "a" * 30) == MASK


def secret_recipe() -> Recipe:
    return Recipe.model_validate(
        {
            "model": {"name_or_path": "a/b", "init_kwargs": {"token": SECRET}},
            "data": {"sources": [{"path": f"https://me:{SECRET}@host/data.jsonl"}]},
            "train": {"hub_token": SECRET, "seed": 3},
        }
    )


def test_a_written_recipe_has_no_secrets_and_a_check_reports_them_missing():
    written = dump_recipe(secret_recipe())
    assert SECRET not in written
    again = Recipe.model_validate(yaml.safe_load(written))
    assert again.train.arguments == {"hub_token": MASK, "seed": 3}
    places = [problem.where for problem in check_secrets(again)]
    assert places == ["model.init_kwargs.token", "train.hub_token"]
    assert not check_secrets(secret_recipe())


def test_messages_do_not_quote_secrets(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("model: {name_or_path: a/b}\ndata: {sources: [{path: c/d}]}\n")
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, [f"run.hub_token={SECRET}", f"model.dtype.token={SECRET}"])
    assert SECRET not in str(caught.value)
    assert "hub_token" in str(caught.value)


def test_settings_that_are_saved_or_tracked_hold_no_token(tmp_path):
    args = UniDPOConfig(
        output_dir=str(tmp_path),
        use_cpu=True,
        hub_token=SECRET,
        model_init_kwargs={"token": SECRET, "revision": "main"},
    )
    saved = pickle.dumps(args)
    assert SECRET.encode() not in saved
    loaded = pickle.loads(saved)
    assert (loaded.hub_token, loaded.model_init_kwargs) == (None, {"revision": "main"})
    assert loaded.learning_rate == args.learning_rate
    assert SECRET not in args.to_json_string()
    for copied in (copy.copy(args), copy.deepcopy(args)):
        assert copied.hub_token == SECRET
        assert copied.model_init_kwargs == args.model_init_kwargs

"""The format is frozen: adding or removing a key, or changing a default, changes this list."""

from pydantic import BaseModel

from unidpo_mm.config import (
    DataSection,
    ImagesSection,
    LoraOptions,
    LossSection,
    ModelSection,
    Recipe,
    RunSection,
    ScoreOptions,
    SourceLoss,
    SourceOptions,
    TrainSection,
)

FORMAT: dict[type[BaseModel], dict[str, object]] = {
    ModelSection: {
        "name_or_path": ...,
        "base_name_or_path": None,
        "adapter": None,
        "dtype": "auto",
        "layout": "auto",
        "freeze": None,
        "lora": None,
        "attn_implementation": None,
        "prompt_style": "auto",
        "chat_template_kwargs": {},
        "image_min_pixels": None,
        "image_max_pixels": None,
        "trust_remote_code": False,
        "init_kwargs": {},
    },
    LoraOptions: {
        "r": 16,
        "alpha": 32,
        "dropout": 0.0,
        "targets": "language_model",
        "modules_to_save": (),
    },
    DataSection: {
        "sources": ...,
        "eval_sources": (),
        "eval_fraction": 0.0,
        "score_scale": None,
        "max_length": None,
        "length_policy": "truncate_response",
        "images": ImagesSection(),
        "seed": 42,
        "feature_cache_gb": 0.0,
        "group_by_prompt": False,
        "pair_weighting": "pair",
        "preflight": True,
        "worker_timeout": 600.0,
    },
    SourceOptions: {
        "path": ...,
        "format": None,
        "columns": {},
        "images": None,
        "images_outside": False,
        "fetch_images": False,
        "domain": None,
        "name": None,
        "split": None,
        "subset": None,
        "scores": None,
        "reasoning": None,
        "loss": {},
    },
    ScoreOptions: {
        "scale": None,
        "judge": None,
        "missing": "error",
        "misordered": "keep",
        "ties": "keep",
        "pairs": "all",
        "min_margin": 0.0,
    },
    ImagesSection: {
        "max_pixels": 89_478_485,
        "max_skipped_fraction": 0.0,
        "fetch_private_addresses": False,
    },
    LossSection: {"name": "uni_dpo"},
    TrainSection: {
        "output_dir": "out",
        "reference": "auto",
        "reference_build": "before",
        "memory": None,
        "learning_rates": {},
        "eval_generations": 4,
        "eval_max_new_tokens": 64,
    },
    RunSection: {
        "resume": "auto",
        "allow_changes": (),
        "on_nonfinite": "stop",
        "callbacks": {},
    },
}
SOURCE_LOSS = {"beta", "eta", "gamma", "tau_ref", "nll_lambda", "tau_good"}


def described(section: type[BaseModel]) -> dict[str, object]:
    return {
        name: ... if field.is_required() else field.default
        for name, field in section.model_fields.items()
    }


def test_the_keys_and_their_defaults_are_frozen():
    assert {section: described(section) for section in FORMAT} == FORMAT
    assert SourceLoss.__optional_keys__ == SOURCE_LOSS
    assert list(Recipe.model_fields) == ["model", "data", "loss", "train", "run"]


def test_every_key_says_what_it_means():
    sections: list[type[BaseModel]] = [*FORMAT, Recipe]
    for section in sections:
        for name, field in section.model_fields.items():
            assert field.description, f"{section.__name__}.{name} has no docstring"


def test_a_section_stays_small():
    assert max(len(section.model_fields) for section in FORMAT) <= 15

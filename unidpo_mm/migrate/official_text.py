"""The official Uni-DPO code for text (and math): a YAML file in the style of alignment-handbook."""

from .draft import Draft, Origin
from .keys import TRUNCATION, Key, left_out
from .lora import LORA_KEYS, put_lora
from .losses import UNI_DPO_KEYS
from .official_steps import FILE, SHARE, complete_data, complete_loss, complete_reference

__all__ = ["ORIGIN"]

KEYS: dict[str, Key] = {
    "model_name_or_path": Key("model.name_or_path"),
    "torch_dtype": Key("model.dtype", default="float32", convert=lambda name: name or "float32"),
    "attn_implementation": Key("model.attn_implementation"),
    "trust_remote_code": Key("model.trust_remote_code"),
    "model_revision": Key("model.init_kwargs.revision", "of the weights only", quiet=True),
    **LORA_KEYS,
    "dataset_mixer": Key("data.sources", FILE, joint=True),
    "dataset_splits": Key(
        "data.sources.split", "a split for tests is evaluated on", joint=True, quiet=True
    ),
    "train_data_path": Key("data.sources", "of the math code", joint=True, quiet=True),
    "max_length": Key("data.max_length", TRUNCATION, default=512),
    "pref_loss": Key("loss.name", default="uni_dpo", joint=True),
    "loss_type": Key(
        "loss.name", "of the math code; the text code's shape of SimPO", joint=True, quiet=True
    ),
    "beta": Key("loss.beta", default=2.0, joint=True),
    **UNI_DPO_KEYS,
    "dpo_length_norm": Key("loss.length_norm", default=True, joint=True),
    "gamma_beta_ratio": Key(
        "loss.simpo_gamma",
        "the margin divided by beta there, in reward units here",
        default=0.25,
        joint=True,
    ),
    "simpo_gamma": Key("loss.simpo_gamma", default=1.0, joint=True),
    "use_ref_model": Key(
        "train.reference", "the reference is the model as it was", joint=True, quiet=True
    ),
    "ref_model": Key("train.reference", "another one: ref_model in Python", joint=True, quiet=True),
    "learning_rate": Key("train.learning_rate", default=5e-5),
    "hub_model_revision": Key("train.hub_revision"),
    **left_out(
        "only answers are cut: a prompt keeps all its tokens",
        "max_prompt_length truncation_mode truncation_side max_completion_length max_target_length",
    ),
    **left_out(
        "prompts are rendered by the chat template that comes with the checkpoint: write this one "
        "into a copy of its tokenizer",
        "chat_template tokenizer_name_or_path",
    ),
    **left_out(
        "no empty system message is put in front: write one into the prompts",
        "auto_insert_empty_system_msg",
    ),
    **left_out(
        "the end token of the tokenizer ends an answer that ends with no special token: write "
        "another one into the answers",
        "eot_token",
    ),
    **left_out(SHARE, "max_samples max_training_samples sanity_check"),
    **left_out(
        "rows are encoded when a batch needs them: see train.dataloader_num_workers",
        "preprocessing_num_workers dataset_num_proc",
    ),
    **left_out(
        "held-out prompts are answered anyway, see train.eval_generations", "generate_during_eval"
    ),
    **left_out(
        "prompt and padding are masked by their place, so there is no label and no filling to set",
        "label_pad_token_id padding_value eos_padding",
    ),
    **left_out("models are decoders", "is_encoder_decoder"),
    **left_out("it is never read there", "sft_weight margin_scale eval_data_path text_column"),
    **left_out("the losses of that code read no label smoothing", "label_smoothing"),
    **left_out("dropout is off in any case, as there", "disable_dropout"),
    **left_out("state the arguments one by one in model.init_kwargs", "model_init_kwargs"),
    **left_out("a data set on the hub is read in its default configuration", "dataset_configs"),
    **left_out("no secret is written into a recipe: log in with `wandb login`", "wandb_key"),
    **left_out(
        "nothing has to take its place",
        "base_model_revision model_code_revision ignore_bias_buffers",
    ),
}


def _complete(draft: Draft) -> None:
    complete_data(draft)
    put_lora(draft)
    complete_reference(draft)
    complete_loss(draft)


ORIGIN = Origin(
    title="the official code",
    owner="the official code's",
    sign="dataset_mixer and uni_dpo_qual_eta",
    keys=KEYS,
    complete=_complete,
)

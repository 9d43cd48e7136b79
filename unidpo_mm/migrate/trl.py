"""TRL 1.x: what `trl dpo --config` takes, as YAML or JSON."""

from .arguments import resume
from .draft import Draft, Origin
from .keys import SPLIT, TRUNCATION, Key, left_out
from .lora import LORA_KEYS, put_lora
from .trl_steps import complete_data, complete_loss

__all__ = ["ORIGIN"]

KEYS: dict[str, Key] = {
    "model_name_or_path": Key("model.name_or_path"),
    "dtype": Key("model.dtype", default="float32", convert=lambda name: name or "auto"),
    "torch_dtype": Key("model.dtype", convert=lambda name: name or "auto"),
    "attn_implementation": Key("model.attn_implementation"),
    "trust_remote_code": Key("model.trust_remote_code"),
    "model_revision": Key("model.init_kwargs.revision", "of the weights only", quiet=True),
    "model_init_kwargs": Key("model.init_kwargs", joint=True),
    **LORA_KEYS,
    "dataset_name": Key("data.sources", joint=True),
    "datasets": Key("data.sources", "path, split and data_files of each", joint=True, quiet=True),
    "dataset_train_split": Key("data.sources.split", joint=True),
    "dataset_test_split": Key(
        "data.eval_sources.split", "only where `eval_strategy` is not `no`", joint=True, quiet=True
    ),
    "test_split_size": Key("data.eval_fraction", SPLIT, joint=True),
    "max_length": Key("data.max_length", TRUNCATION, default=1024),
    "loss_type": Key(
        "loss.name",
        "sigmoid is `dpo`, sigmoid_norm `dpo` with length_norm, bco_pair `bco` with shift 0; a "
        "list is `mpo`",
        default="sigmoid",
        joint=True,
        quiet=True,
    ),
    "loss_weights": Key("loss.losses", joint=True),
    "beta": Key("loss.beta", default=0.1, joint=True),
    "label_smoothing": Key(
        "loss.label_smoothing",
        "of the losses built here only robust reads it there; here dpo has it too, as cDPO",
        default=0.0,
        joint=True,
    ),
    "use_weighting": Key(
        "loss.name",
        "true with sigmoid is `wpo`, whose weight is not divided by the policy's concentration",
        joint=True,
    ),
    "bf16": Key("train.bf16", "on by default, unless `fp16` is", joint=True, quiet=True),
    "gradient_checkpointing": Key("train.activation_checkpointing", default=True),
    "logging_steps": Key("train.logging_steps", default=10),
    "resume_from_checkpoint": Key("run.resume", convert=resume("never")),
    "precompute_ref_log_probs": Key(
        "train.reference",
        "true is `cached`, which serves images too",
        convert=lambda value: "cached" if value else "auto",
        quiet=True,
    ),
    **left_out(
        "a cached reference is computed in batches of the training's size",
        "precompute_ref_batch_size",
    ),
    **left_out(
        "the reference stays what the policy was at the start",
        "sync_ref_model ref_model_mixup_alpha ref_model_sync_steps",
    ),
    **left_out(
        "only answers are cut: a prompt keeps all its tokens",
        "truncation_mode max_prompt_length max_completion_length",
    ),
    **left_out(
        "the layout of batches is chosen at start, see model.layout",
        "padding_free pad_to_multiple_of pad_token padding_value label_pad_token_id",
    ),
    **left_out(
        "the divergence is the reverse Kullback-Leibler one, as in DPO",
        "f_divergence_type f_alpha_divergence_coef",
    ),
    **left_out("the LD-DPO weighting is not built: the loss counts every token", "ld_alpha"),
    **left_out("it is of the loss discopop, which is not built", "discopop_tau"),
    **left_out(
        "write loss_type [sigmoid, sft] with loss_weights there, as TRL 1 has it", "rpo_alpha"
    ),
    **left_out("no balance of experts is added to the loss", "router_aux_loss_coef"),
    **left_out(
        "dropout is always off in a recipe: set disable_dropout in Python to have it",
        "disable_dropout",
    ),
    **left_out("activations are computed again, not moved away", "activation_offloading"),
    **left_out(
        "rows are encoded when a batch needs them: see train.dataloader_num_workers",
        "dataset_num_proc",
    ),
    **left_out(
        "a data set is read as a whole, and on the hub in its default configuration: write the "
        "rows that are meant into a file",
        "dataset_config dataset_streaming streaming",
    ),
    **left_out("nothing has to take its place", "ignore_bias_buffers"),
    **left_out("set these variables before the command", "env"),
}


def _complete(draft: Draft) -> None:
    _init_kwargs(draft)
    draft.put("train.bf16", _bf16(draft), "bf16")
    if not put_lora(draft):
        draft.put("model.freeze", [], comment="TRL trains every part")
    draft.put("model.prompt_style", "raw", comment="TRL renders messages only, no plain text")
    complete_data(draft)
    complete_loss(draft)


def _init_kwargs(draft: Draft) -> None:
    given = draft.values.get("model_init_kwargs") or {}
    if not isinstance(given, dict):
        draft.problem("model_init_kwargs", "it is no section", "Write {name: value} there")
        return
    for key, value in given.items():
        ours = f"model.{key}" if key in ("dtype", "attn_implementation") else None
        draft.put(ours or f"model.init_kwargs.{key}", value, "model_init_kwargs")
    if not given and "model_init_kwargs" in draft.values:
        draft.leave_out("model_init_kwargs", "")


def _bf16(draft: Draft) -> object:
    stated = draft.values.get("bf16")
    return draft.values.get("fp16") is not True if stated is None else stated


ORIGIN = Origin(
    title="TRL", owner="TRL's", sign="dataset_name and loss_type", keys=KEYS, complete=_complete
)

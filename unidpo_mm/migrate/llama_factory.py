"""LLaMA-Factory: `stage: dpo`, and the keys that the official multimodal code adds to it."""

from .arguments import resume
from .draft import Draft, Origin
from .factory_data import complete_data
from .factory_loss import check_stage, complete_loss
from .factory_model import PIXELS, attention, complete_model
from .keys import SPLIT, TRUNCATION, Key, left_out, quantised
from .losses import UNI_DPO_KEYS

__all__ = ["ORIGIN"]

KEYS: dict[str, Key] = {
    "model_name_or_path": Key("model.name_or_path"),
    "trust_remote_code": Key("model.trust_remote_code"),
    "model_revision": Key("model.init_kwargs.revision", "of the weights only", quiet=True),
    "flash_attn": Key("model.attn_implementation", convert=attention),
    "image_max_pixels": Key("model.image_max_pixels", PIXELS, default=768 * 768, joint=True),
    "image_min_pixels": Key("model.image_min_pixels", PIXELS, default=32 * 32, joint=True),
    "stage": Key("loss", "only `dpo` is preference training from pairs", joint=True, quiet=True),
    "finetuning_type": Key("model.lora", "`full` has none", default="lora", joint=True, quiet=True),
    "lora_rank": Key("model.lora.r", default=8, joint=True),
    "lora_alpha": Key("model.lora.alpha", "twice the rank", joint=True, quiet=True),
    "lora_dropout": Key("model.lora.dropout", joint=True),
    "lora_target": Key(
        "model.lora.targets",
        "`all` is the linear layers of the language model, unless another part trains",
        default="all",
        joint=True,
        quiet=True,
    ),
    "additional_target": Key("model.lora.modules_to_save", joint=True),
    "freeze_vision_tower": Key("model.freeze", default=True, joint=True),
    "freeze_multi_modal_projector": Key("model.freeze", default=True, joint=True),
    "freeze_language_model": Key("model.freeze", default=False, joint=True),
    "train_mm_proj_only": Key("model.freeze", "all but the projector", joint=True, quiet=True),
    "template": Key(
        "model.prompt_style",
        "prompts are rendered by the chat template that comes with the checkpoint, never by one "
        "of the framework: compare the two for a base model",
        joint=True,
    ),
    "dataset": Key("data.sources", "read from dataset_info.json where that is found", joint=True),
    "dataset_dir": Key("data.sources.path", default="data", joint=True),
    "media_dir": Key("data.sources.images", joint=True),
    "eval_dataset": Key("data.eval_sources", joint=True),
    "val_size": Key("data.eval_fraction", SPLIT, joint=True),
    "cutoff_len": Key("data.max_length", TRUNCATION, default=2048),
    "pref_loss": Key("loss.name", default="sigmoid", joint=True),
    "pref_beta": Key("loss.beta", default=0.1, joint=True),
    "dpo_label_smoothing": Key("loss.label_smoothing", default=0.0, joint=True),
    "simpo_gamma": Key(
        "loss.simpo_gamma", "reward units in both", default=0.5, joint=True, quiet=True
    ),
    "pref_ftx": Key(
        "loss.losses.sft", "`loss.sft_weight` for uni_dpo", default=0.0, joint=True, quiet=True
    ),
    "pref_bco_weight": Key(
        "loss.losses.bco",
        "the shift is the mean reward of the micro-batch; there it is a running mean",
        default=0.0,
        joint=True,
    ),
    **UNI_DPO_KEYS,
    "dpo_average_log_prob": Key(
        "loss.length_norm",
        "on by default in the official code, for plain DPO too; not there upstream",
        joint=True,
        quiet=True,
    ),
    "bf16": Key("train.bf16", "also `model.dtype`", joint=True, quiet=True),
    "fp16": Key("train.fp16", "also `model.dtype`", joint=True, quiet=True),
    "pure_bf16": Key(
        "model.dtype",
        "weights that train are bfloat16, in which small updates round away: train.bf16 keeps "
        "them in float32",
        joint=True,
    ),
    "learning_rate": Key("train.learning_rate", default=5e-5),
    "disable_gradient_checkpointing": Key(
        "train.activation_checkpointing", default=False, convert=lambda value: not value
    ),
    "resume_from_checkpoint": Key("run.resume", convert=resume("auto")),
    **left_out("checkpoints are never reentrant, which changes no number", "use_reentrant_gc"),
    **left_out(
        "a recipe has no other reference than the model as it was: give ref_model in Python",
        "ref_model ref_model_adapters ref_model_quantization_bit",
    ),
    **left_out(
        "set model.name_or_path to the adapter directory to continue it, or merge it first",
        "adapter_name_or_path adapter_folder create_new_adapter",
    ),
    **left_out(
        "only plain LoRA is built in recipes: give the trainer a peft.LoraConfig in Python",
        "use_rslora use_dora pissa_init pissa_iter pissa_convert loraplus_lr_ratio "
        "loraplus_lr_embedding use_llama_pro",
    ),
    **quantised(
        "quantization_bit quantization_method quantization_type double_quantization "
        "quantization_device_map"
    ),
    **left_out("all rows are read: make a file of as many", "max_samples"),
    **left_out(
        "the rows of all sources are mixed, every row once an epoch, in the order of data.seed",
        "streaming buffer_size mix_strategy interleave_probs disable_shuffling",
    ),
    **left_out(
        "rows are encoded when a batch needs them and nothing is cached: see "
        "train.dataloader_num_workers",
        "overwrite_cache preprocessing_num_workers preprocessing_batch_size tokenized_path "
        "data_shared_file_system",
    ),
    **left_out(
        "responses share their prompt, see model.layout, and only their tokens are learned",
        "packing neat_packing train_on_prompt mask_history ignore_pad_token_for_loss",
    ),
    **left_out("plot what train.report_to logs", "plot_loss"),
    **left_out(
        "images are understood, videos and sounds are not: leave such rows out",
        "video_max_pixels video_min_pixels video_fps video_maxlen audio_sampling_rate "
        "use_audio_in_video",
    ),
    **left_out("the LD-DPO weighting is not built: the loss counts every token", "ld_alpha"),
    **left_out(
        "the model is loaded as it is: change its config and tokenizer there",
        "rope_scaling resize_vocab add_tokens add_special_tokens use_fast_tokenizer shift_attn",
    ),
    **left_out("the variable HF_HOME says where downloads go", "cache_dir"),
    **left_out(
        "no secret is written into a recipe: log in with `hf auth login`",
        "hf_hub_token ms_hub_token om_hub_token",
    ),
    **left_out(
        "its kernels replace a plain model's loss and would do nothing here",
        "enable_liger_kernel use_unsloth use_unsloth_gc use_v1_kernels",
    ),
    **left_out(
        "it is of another stage, or of generating answers, and has no effect on this one",
        "kto_chosen_weight kto_rejected_weight predict_with_generate eval_on_each_dataset "
        "compute_accuracy max_new_tokens temperature top_p do_sample infer_backend infer_dtype",
    ),
}


def _complete(draft: Draft) -> None:
    check_stage(draft)
    complete_data(draft)
    complete_model(draft)
    complete_loss(draft)


ORIGIN = Origin(
    title="LLaMA-Factory",
    owner="LLaMA-Factory's",
    sign="stage: dpo",
    keys=KEYS,
    complete=_complete,
)

"""Check the requirements of a run besides its files: packages, GPU, network, output directory.

Each check takes a typed recipe and returns problems, as in `recipe_checks`. They run before data
are read and a model is loaded, so that a missing package is reported in seconds.
"""

import os
import warnings
from collections.abc import Iterable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ...errors import Problem, RecipeError
from ...lora_directory import is_adapter_directory
from ...plugins import CALLBACKS, OBSERVERS, Kind, load, load_loss, plugin_names, suggestion
from ...secrets import MASK, is_secret_key
from .. import Recipe
from ..numbers import leaves
from ..yaml_loader import key_name
from .launch import folder_problem
from .optimizer import one_line, optimizer_problems, scheduler_problems

__all__ = ["check_output", "check_packages", "check_secrets"]

QUANTIZATION_EXTRAS = {"bitsandbytes": "quantization", "torchao": "torchao"}
"""Library of quantized weights -> the extra that installs it."""
TRACKERS = {
    "azure_ml": "azureml-mlflow",
    "clearml": "clearml",
    "codecarbon": "codecarbon",
    "comet_ml": "comet-ml",
    "dagshub": "dagshub mlflow",
    "dvclive": "dvclive",
    "flyte": "flytekit",
    "kubeflow": "",
    "mlflow": "mlflow",
    "neptune": "neptune",
    "swanlab": "swanlab",
    "tensorboard": "tensorboard",
    "trackio": "trackio",
    "wandb": "wandb",
}
"""Value of `report_to` -> the packages to install."""


FROM_PRETRAINED = frozenset(
    "adapter_kwargs adapter_name allow_all_kernels attn_implementation cache_dir device_map dtype "
    "experts_implementation force_download generation_config gguf_file ignore_mismatched_sizes "
    "kernel_config key_mapping local_files_only max_memory offload_buffers offload_folder proxies "
    "quantization_config revision subfolder token torch_dtype trust_remote_code use_kernels "
    "use_safetensors variant weights_only code_revision".split()
)
"""Arguments of `from_pretrained` that make sense in a recipe."""

PARALLEL_ARGUMENTS = frozenset("device_mesh tp_plan tp_size distributed_config".split())
"""Arguments of `from_pretrained` that split a model over devices."""


def check_secrets(recipe: Recipe) -> list[Problem]:
    """Return a problem for each masked secret in a recipe that a run wrote."""
    return [
        Problem(where, "the value is masked", "Set it again, or remove it and set HF_TOKEN")
        for path, value in leaves(recipe.model_dump())
        if value == MASK and is_secret_key(where := key_name(path))
    ]


def check_output(recipe: Recipe) -> list[Problem]:
    """Return the problems of the output directory and of `run.resume`."""
    problems = []
    text = folder_problem(Path(recipe.train.output_dir))
    if text:
        remedy = "Choose a directory that can be created and written to, with free space"
        problems.append(Problem("train.output_dir", text, remedy))
    resume = recipe.run.resume
    if resume not in ("auto", "never"):
        path = Path(resume).expanduser()
        if not path.is_dir():
            text = f"'{resume}' is a file" if path.exists() else f"'{resume}' does not exist"
            remedy = "Use auto, never, or the directory of a checkpoint"
            problems.append(Problem("run.resume", text, remedy))
        elif not (path / "trainer_state.json").is_file():
            text = f"'{resume}' is not a checkpoint of a run: it has no trainer_state.json"
            remedy = "Use a directory checkpoint-N, or model.name_or_path to start from its weights"
            problems.append(Problem("run.resume", text, remedy))
    return problems


def check_packages(recipe: Recipe) -> list[Problem]:
    """Return a problem for each package, device or service that is needed but not available."""
    train = recipe.train.arguments
    problems = [
        *_trackers(train.get("report_to")),
        *_attention(recipe),
        *_init_kwargs(recipe),
        *_quantization(recipe),
        *_half_precision(train),
        *_metric(recipe),
        *_plugins(CALLBACKS, recipe.run.callbacks),
        *_plugins(OBSERVERS, recipe.run.observers),
    ]
    if not problems and train:
        problems += [*optimizer_problems(train), *scheduler_problems(train)]
    if not problems:
        problems += _hub(train)
    return problems


def _trackers(report_to: Any) -> Iterator[Problem]:
    names = [report_to] if isinstance(report_to, str) else list(report_to or ())
    if not names or names in (["none"], ["all"]):
        return
    from transformers.integrations.integration_utils import get_available_reporting_integrations

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        installed = set(get_available_reporting_integrations())
    if find_spec("flytekit") is not None:
        installed.add("flyte")
    for name in names:
        if name not in TRACKERS:
            text = f"unknown tracker '{name}'{suggestion(str(name), TRACKERS)}"
            remedy = f"Use one of {', '.join(TRACKERS)}, all or none"
            yield Problem("train.report_to", text, remedy)
        elif name not in installed:
            remedy = (
                f"Run pip install {TRACKERS[name]}, or set report_to to none: trainer_state.json "
                "holds every logged number"
            )
            yield Problem("train.report_to", f"'{name}' is not installed", remedy)


def _attention(recipe: Recipe) -> Iterator[Problem]:
    name = recipe.model.attn_implementation or recipe.model.init_kwargs.get("attn_implementation")
    if not isinstance(name, str) or "/" in name:
        return
    where = "model.attn_implementation"
    from transformers import AttentionInterface
    from transformers.utils.import_utils import is_kernels_available

    choices = ["eager", *AttentionInterface().valid_keys()]
    choices = [choice for choice in choices if not choice.startswith("paged|")]
    if name not in choices:
        text = f"unknown attention '{name}'{suggestion(name, choices)}"
        yield Problem(where, text, f"Use one of {', '.join(choices)}, or null")
    elif name.startswith("flash_attention") and not is_kernels_available():
        version = name.removeprefix("flash_attention_")
        from transformers import utils

        available = getattr(utils, f"is_flash_attn_{version}_available", None)
        if available is not None and not available():
            text = f"'{name}' needs a GPU and the package flash-attn, and one of them is missing"
            yield Problem(where, text, "Run pip install flash-attn, or use sdpa")


def _init_kwargs(recipe: Recipe) -> Iterator[Problem]:
    config = None
    for name in recipe.model.init_kwargs:
        where = f"model.init_kwargs.{name}"
        if name in PARALLEL_ARGUMENTS:
            text = "not supported: a model is not split over devices while it trains"
            yield Problem(where, text, "Remove it; train.fsdp shards the weights")
        elif name not in FROM_PRETRAINED:
            config = config or _config(recipe)
            if config is None or hasattr(config, name):
                continue
            near = suggestion(name, FROM_PRETRAINED)
            text = (
                f"neither from_pretrained nor the model's configuration has an argument "
                f"'{name}'{near}"
            )
            remedy = "Remove it, or choose an argument of from_pretrained such as revision"
            yield Problem(where, text, remedy)


def _quantization(recipe: Recipe) -> Iterator[Problem]:
    """Check that a LoRA adapter can be trained on quantized weights."""
    model, where = recipe.model, "model.quantization"
    if model.quantization is None:
        return
    library, bits = model.quantization.library, model.quantization.bits
    if find_spec(library) is None:
        remedy = f"Run pip install 'unidpo-mm[{QUANTIZATION_EXTRAS[library]}]', or remove it"
        yield Problem(where, f"the package '{library}' is not installed", remedy)
    if library == "torchao" and bits != 8:
        text = f"LoRA adapters cannot be trained on {bits}-bit weights of torchao"
        yield Problem(where, text, "Set bits to 8, or library to bitsandbytes")
    if model.lora is None and not is_adapter_directory(model.name_or_path):
        text = "quantized weights cannot be trained, and there is no LoRA adapter"
        yield Problem(where, text, "Add model.lora, or remove it")
    if model.lora is not None and model.lora.init != "default":
        text = f"model.lora.init is '{model.lora.init}', which changes the weights"
        yield Problem(where, text, "Set model.lora.init to default, or remove model.quantization")
    if "quantization_config" in model.init_kwargs:
        text = "model.init_kwargs.quantization_config is set as well"
        yield Problem(where, text, "Remove one of the two")
    for name in ("fsdp", "deepspeed"):
        if recipe.train.arguments.get(name):
            text = f"quantized weights cannot be sharded by {name}"
            yield Problem(where, text, f"Remove it, or train.{name}")


def _config(recipe: Recipe) -> Any:
    """Return the configuration of a local model; `None` if it cannot be read without a network."""
    from transformers import AutoConfig

    if not Path(recipe.model.name_or_path).is_dir():
        return None
    try:
        return AutoConfig.from_pretrained(
            recipe.model.name_or_path, trust_remote_code=recipe.model.trust_remote_code
        )
    except (OSError, ValueError, KeyError):  # loading the model will report it
        return None


def _half_precision(train: Mapping[str, Any]) -> Iterator[Problem]:
    if not (train.get("bf16") or train.get("fp16") or train.get("tf32")):
        return
    import torch
    from transformers.utils.import_utils import is_torch_bf16_gpu_available

    use_cpu = train.get("use_cpu") or not torch.accelerator.is_available()
    if train.get("fp16") and use_cpu:
        text = "float16 needs a GPU"
        yield Problem("train.fp16", text, "Set train.fp16=false; train.bf16 works on a CPU, too")
    if train.get("bf16") and not train.get("use_cpu") and not is_torch_bf16_gpu_available():
        text = "there is no GPU that computes in bfloat16"
        remedy = (
            "Set train.bf16=false, or train.use_cpu=true (use_cpu computes in bfloat16 on the CPU)"
        )
        yield Problem("train.bf16", text, remedy)
    if train.get("tf32") and (use_cpu or not torch.cuda.is_available()):
        text = "TF32 needs a GPU of NVIDIA's Ampere generation or later"
        yield Problem("train.tf32", text, "Remove it, or set it to false")


def _metric(recipe: Recipe) -> Iterator[Problem]:
    train = recipe.train.arguments
    metric = train.get("metric_for_best_model")
    if not isinstance(metric, str):
        if train.get("save_strategy") == "best":
            text = "save_strategy is 'best', and there is no metric to choose the best model"
            remedy = "Set it, for example to loss"
            yield Problem("train.metric_for_best_model", text, remedy)
        return
    from ...metric_names import metric_names

    has_images = recipe.train.image_preference is not None
    names = metric_names(load_loss(recipe.loss.name), image_preference=has_images)
    name = metric.removeprefix("eval_")
    if name not in names:
        text = f"no evaluation has a metric '{metric}'{suggestion(name, names)}"
        plain = [item for item in names if item.count("/") < 2 and "multimodal" not in item]
        remedy = f"Use one of {', '.join(plain)}"
        yield Problem("train.metric_for_best_model", text, remedy)


def _plugins(kind: Kind, names: Iterable[str]) -> Iterator[Problem]:
    installed = plugin_names(kind)
    for name in names:
        if name not in installed:
            try:
                load(kind, name, f"{kind.where}.{name}")
            except RecipeError as error:
                yield from error.problems


def _hub(train: Mapping[str, Any]) -> list[Problem]:
    if not train.get("push_to_hub"):
        return []
    where = "train.push_to_hub"
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        return [Problem(where, "HF_HUB_OFFLINE is set", "Unset HF_HUB_OFFLINE, or remove it")]
    from huggingface_hub import HfApi, get_token

    token = train.get("hub_token") or get_token()
    if not token:
        text = "there is no access token"
        return [Problem(where, text, "Run hf auth login, or set HF_TOKEN; or remove it")]
    try:
        HfApi(token=token).whoami()
    except Exception as error:  # no network, or an invalid token
        text = f"the hub cannot be reached with this token ({one_line(error)})"
        return [Problem(where, text, "Check network and token, or remove it and upload later")]
    return []

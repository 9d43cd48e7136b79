"""Check the environment of a process before slow imports.

If a launcher starts fewer processes than requested, or a variable that it sets has no effect, the
run would silently differ from what the user requested.
"""

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

from ...cache.directory import CACHE_VARIABLE, cache_directory
from ...errors import Problem, counted
from .. import Recipe

__all__ = ["as_only_process", "check_environment", "folder_problem", "launch_problems"]

START_SEVERAL = (
    "torchrun --nproc_per_node 2 -m unidpo_mm train RECIPE, or accelerate launch --config_file "
    "configs/accelerate/ddp_cpu.yaml -m unidpo_mm train RECIPE"
)

LAUNCH_VARIABLES = (
    "WORLD_SIZE RANK LOCAL_WORLD_SIZE LOCAL_RANK ACCELERATE_USE_FSDP ACCELERATE_USE_DEEPSPEED"
).split()
"""Variables in which a launcher describes the process group."""

MPI_SIZES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
"""Variables in which MPI sets the number of processes."""

TRUE_WORDS = ("1", "true", "yes", "y", "t", "on")
FALSE_WORDS = ("", "0", "false", "no", "n", "f", "off")

PRECISIONS = ("no", "fp16", "bf16", "fp8")

ROWS = (
    "a row of a batch would be divided among GPUs, but a prompt is computed once for all its "
    "responses, and each response has to see the whole prompt"
)

SPLITS = {
    "CP": ROWS,
    "SP": ROWS,
    "TP": "layers are not divided among GPUs; FSDP divides weights, and computes whole layers",
}
"""Part of the name of an accelerate setting -> why it is not supported."""

DEVICE = re.compile(r"^(?:-?\d+|(?:GPU|MIG)-[0-9A-Za-z/-]+)$")
"""One entry of CUDA_VISIBLE_DEVICES."""

Environment = Mapping[str, str]


def check_environment(recipe: Recipe) -> list[Problem]:
    """Return the problems of the environment for a run of a recipe."""
    env = os.environ
    return [
        *launch_problems(env),
        *_accelerate_problems(recipe, env),
        *_sharding_problems(recipe, env),
        *_device_problems(env),
        *_folder_problems(recipe, env),
    ]


def launch_problems(env: Environment | None = None) -> list[Problem]:
    """Return the problems of the variables in which a launcher describes its processes."""
    env = os.environ if env is None else env
    problems: list[Problem] = []
    numbers: dict[str, int] = {}
    for name in ("WORLD_SIZE", "RANK", "LOCAL_WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT"):
        if env.get(name, "") == "":
            continue
        try:
            numbers[name] = int(env[name])
        except ValueError:
            problems.append(_problem(name, f"'{env[name]}' is not a whole number", _unset(name)))
    if problems:
        return problems
    return [*_rank_problems(numbers), *_rendezvous_problems(numbers, env)]


@contextlib.contextmanager
def as_only_process() -> Iterator[None]:
    """Hide the launcher's variables, so that a check of arguments starts no process group."""
    hidden = {name: os.environ.pop(name) for name in LAUNCH_VARIABLES if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)


def _rank_problems(numbers: Mapping[str, int]) -> Iterator[Problem]:
    for size, rank in (("WORLD_SIZE", "RANK"), ("LOCAL_WORLD_SIZE", "LOCAL_RANK")):
        if size in numbers and numbers[size] < 1:
            yield _problem(size, f"{numbers[size]} is not a number of processes", _unset(size))
        elif size in numbers and rank in numbers and not 0 <= numbers[rank] < numbers[size]:
            count = counted(numbers[size], "process", "processes")
            text = f"{numbers[rank]} is not a rank of {count} ({size})"
            yield _problem(rank, text, f"Use a number from 0 to {numbers[size] - 1}")
    if {"LOCAL_WORLD_SIZE", "WORLD_SIZE"} <= numbers.keys() and (
        numbers["LOCAL_WORLD_SIZE"] > numbers["WORLD_SIZE"] > 0
    ):
        text = f"{numbers['LOCAL_WORLD_SIZE']} is larger than WORLD_SIZE={numbers['WORLD_SIZE']}"
        yield _problem("LOCAL_WORLD_SIZE", text, _unset("LOCAL_WORLD_SIZE"))
    if not 0 <= numbers.get("MASTER_PORT", 1) <= 65535:
        text = f"{numbers['MASTER_PORT']} is not a port"
        yield _problem("MASTER_PORT", text, "Use a number from 1 to 65535")


def _rendezvous_problems(numbers: Mapping[str, int], env: Environment) -> Iterator[Problem]:
    needed = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    if numbers.get("WORLD_SIZE", 1) > 1:
        missing = [name for name in needed if not env.get(name)]
        if missing:
            verb = "is" if len(missing) == 1 else "are"
            count = counted(numbers["WORLD_SIZE"], "process", "processes")
            text = f"{count}, but {', '.join(missing)} {verb} not set"
            remedy = f"Start with {START_SEVERAL}; or unset WORLD_SIZE for one process"
            yield _problem("WORLD_SIZE", text, remedy)
    elif numbers.get("RANK", 0) > 0 and "WORLD_SIZE" not in numbers:
        text = f"RANK is {numbers['RANK']}, but WORLD_SIZE is not set"
        yield _problem("RANK", text, f"Start with {START_SEVERAL}; or unset RANK")
    started_by_accelerate = "ACCELERATE_MIXED_PRECISION" in env and env.get("MASTER_ADDR")
    has_size = "WORLD_SIZE" in numbers or any(env.get(name) for name in MPI_SIZES)
    if started_by_accelerate and not has_size:
        text = (
            "accelerate launch should start several processes and started one: with --cpu it "
            "never starts more"
        )
        remedy = f"Use {START_SEVERAL}; or unset MASTER_ADDR and MASTER_PORT for one process"
        yield Problem("accelerate launch --num_processes", text, remedy)


def _accelerate_problems(recipe: Recipe, env: Environment) -> Iterator[Problem]:
    train = recipe.train.arguments
    for name in ("ACCELERATE_USE_CPU", "ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"):
        if env.get(name, "").lower() not in (*TRUE_WORDS, *FALSE_WORDS):
            yield _problem(name, f"'{env[name]}' is neither true nor false", _unset(name))
    precision = env.get("ACCELERATE_MIXED_PRECISION", "no").lower()
    stated = "fp16" if train.get("fp16") else "bf16" if train.get("bf16") else "no"
    if precision not in PRECISIONS:
        text = f"'{precision}' is not a precision"
        yield _problem("ACCELERATE_MIXED_PRECISION", text, f"Use one of {', '.join(PRECISIONS)}")
    elif precision == "fp8":
        text = "training in 8 bits is not supported"
        yield _problem("ACCELERATE_MIXED_PRECISION", text, "Use bf16, and train.bf16=true")
    elif precision not in ("no", stated):
        used = "float32" if stated == "no" else stated
        text = f"accelerate requests {precision} and the recipe computes in {used}"
        remedy = f"Set train.{precision}=true, or start with --mixed_precision no"
        yield _problem("ACCELERATE_MIXED_PRECISION", text, remedy)
    steps = env.get("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "")
    stated_steps = train.get("gradient_accumulation_steps", 1)
    if steps not in ("", "1", "auto", str(stated_steps)):
        text = f"accelerate requests {steps} and the recipe {stated_steps}"
        remedy = "Set train.gradient_accumulation_steps, and remove it from accelerate's config"
        yield _problem("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", text, remedy)
    if env.get("ACCELERATE_DYNAMO_BACKEND", "no").lower() not in ("no", ""):
        text = "models are not compiled: micro-batches change their shape"
        remedy = "Remove dynamo_config from accelerate's config"
        yield _problem("ACCELERATE_DYNAMO_BACKEND", text, remedy)
    if _is_true(env, "ACCELERATE_USE_MEGATRON_LM"):
        text = "not supported: weights are sharded by FSDP or DeepSpeed only"
        yield _problem("ACCELERATE_USE_MEGATRON_LM", text, "Use configs/accelerate/fsdp2.yaml")
    if _is_true(env, "ACCELERATE_USE_PARALLELISM_CONFIG"):
        yield from _parallelism_problems(env)


def _parallelism_problems(env: Environment) -> Iterator[Problem]:
    """Yield a problem for each way of splitting that would give wrong numbers.

    Hybrid sharding, the only other one, divides weights within groups of processes.
    """
    for kind, reason in SPLITS.items():
        name = f"PARALLELISM_CONFIG_{kind}_SIZE"
        if env.get(name, "1") not in ("", "0", "1"):
            remedy = f"Remove {name.lower()} from accelerate's config; see docs/many_devices.md"
            yield _problem(name, f"{env[name]} is not supported: {reason}", remedy)


def _sharding_problems(recipe: Recipe, env: Environment) -> Iterator[Problem]:
    """Yield a problem if FSDP or DeepSpeed is requested and cannot be used."""
    for name in ("FSDP", "DeepSpeed"):
        variable = f"ACCELERATE_USE_{name.upper()}"
        where = f"train.{name.lower()}"
        if not recipe.train.arguments.get(name.lower()):
            where = f"environment variable {variable}"
            if not _is_true(env, variable):
                continue
        if name == "DeepSpeed" and find_spec("deepspeed") is None:
            remedy = "Run pip install deepspeed, or use configs/accelerate/fsdp2.yaml"
            yield Problem(where, "the package deepspeed is not installed", remedy)
        elif name == "FSDP" and env.get("WORLD_SIZE", "1") in ("", "1"):
            text = f"{name} is requested and this is the only process"
            remedy = (
                "Start with accelerate launch --config_file configs/accelerate/fsdp2.yaml -m "
                "unidpo_mm train RECIPE, or remove it"
            )
            yield Problem(where, text, remedy)
        elif _on_cpu(recipe, env) and not (name == "DeepSpeed" and _on_gloo(recipe, env)):
            text = f"{name} is requested and the run uses the CPU, where weights are not sharded"
            remedy = "Remove it to train data-parallel on the CPU, or use GPUs"
            yield Problem(where, text, remedy)


def _device_problems(env: Environment) -> Iterator[Problem]:
    devices = env.get("CUDA_VISIBLE_DEVICES", "")
    entries = [entry.strip() for entry in devices.split(",")] if devices.strip() else []
    wrong = [entry for entry in entries if not DEVICE.match(entry)]
    if wrong:
        text = f"'{devices}' is not a list of devices"
        yield _problem("CUDA_VISIBLE_DEVICES", text, "Use numbers separated by commas, as in 0,1")
    elif len(set(entries)) < len(entries):
        text = f"'{devices}' lists a device twice"
        yield _problem("CUDA_VISIBLE_DEVICES", text, "List each device once")
    elif entries and entries[0] != "-1" and Path("/dev/nvidiactl").exists():
        import torch

        if torch.version.cuda and not torch.cuda.is_available():
            text = f"none of the devices '{devices}' can be used"
            remedy = "Use numbers that nvidia-smi lists, or -1 to train on the CPU"
            yield _problem("CUDA_VISIBLE_DEVICES", text, remedy)
    threads = env.get("OMP_NUM_THREADS", "")
    if threads and not re.fullmatch(r"[1-9]\d*(?:,[1-9]\d*)*", threads.strip()):
        text = f"'{threads}' is not a number of threads"
        yield _problem("OMP_NUM_THREADS", text, "Use a number of at least 1, or unset it")


def _folder_problems(recipe: Recipe, env: Environment) -> Iterator[Problem]:
    sources = (*recipe.data.sources, *recipe.data.eval_sources)
    names = [recipe.model.name_or_path, *(source.path for source in sources)]
    offline = _is_true(env, "HF_HUB_OFFLINE") or all(Path(name).exists() for name in names)
    for name in ("TMPDIR", CACHE_VARIABLE, "HF_HOME", "HF_HUB_CACHE", "HF_DATASETS_CACHE"):
        path = Path(env.get(name) or ".").expanduser()
        reads_only = name.startswith("HF_") and offline and path.is_dir()
        if not env.get(name) or reads_only:
            continue
        if text := folder_problem(path, create=name != "TMPDIR"):
            yield _problem(name, text, f"Use a directory that can be written to, or unset {name}")
    caches = (
        recipe.train.reference == "cached"
        or recipe.data.feature_cache_gb > 0
        or any(source.fetch_images for source in sources)
    )
    if caches and not env.get(CACHE_VARIABLE):
        yield from _default_cache_problem()
    endpoint = env.get("HF_ENDPOINT", "")
    if endpoint and not re.match(r"https?://[^/\s]+", endpoint):
        yield _problem("HF_ENDPOINT", "it is not an http(s) URL", "Unset it, or use a URL")


def _default_cache_problem() -> Iterator[Problem]:
    try:
        path = cache_directory()
    except RuntimeError:
        text = "the home directory cannot be determined"
        yield _problem("HOME", text, "Set HOME, or UNIDPO_MM_CACHE to a directory for caches")
        return
    text = folder_problem(path)
    if text:
        remedy = "Set UNIDPO_MM_CACHE to a directory that can be written to"
        yield _problem("HOME", f"caches cannot be kept: {text}", remedy)


def folder_problem(path: Path, *, create: bool = True) -> str:
    """Return why files cannot be written into a directory; an empty text if they can.

    Directories that are created for this check are removed again.

    Args:
        path: The directory.
        create: Whether it may be missing because a run creates it.
    """
    path = path.expanduser()
    if not create and not path.is_dir():
        state = "is not a directory" if path.exists() else "does not exist"
        return f"'{path}' {state}"
    missing = []
    place = path
    while not place.exists() and place != place.parent:
        missing.append(place)
        place = place.parent
    if not place.is_dir():
        return f"'{place}' is a file" if place == path else f"'{place}', a parent of it, is a file"
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path) as file:
            file.write(b"\0" * 4096)
            file.flush()
    except OSError as error:
        return f"'{path}' cannot be written to ({(error.strerror or str(error)).lower()})"
    finally:
        for folder in missing:
            with contextlib.suppress(OSError):
                folder.rmdir()
    return ""


def _on_cpu(recipe: Recipe, env: Environment) -> bool:
    if recipe.train.arguments.get("use_cpu") or _is_true(env, "ACCELERATE_USE_CPU"):
        return True
    import torch

    return not torch.accelerator.is_available()


def _on_gloo(recipe: Recipe, env: Environment) -> bool:
    """Return whether accelerate starts DeepSpeed with the backend that it needs on a CPU."""
    arguments = recipe.train.arguments
    on_cpu = arguments.get("use_cpu") or _is_true(env, "ACCELERATE_USE_CPU")
    started = _is_true(env, "ACCELERATE_USE_DEEPSPEED")
    return started and not on_cpu and arguments.get("ddp_backend") == "gloo"


def _is_true(env: Environment, name: str) -> bool:
    return env.get(name, "").lower() in TRUE_WORDS


def _problem(name: str, text: str, remedy: str) -> Problem:
    return Problem(f"environment variable {name}", text, remedy)


def _unset(name: str) -> str:
    return f"Correct it, or unset {name} and start with torchrun or accelerate launch"

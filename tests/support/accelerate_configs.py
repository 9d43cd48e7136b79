"""The shipped configurations of accelerate, as its launcher reads them."""

from pathlib import Path

__all__ = ["CONFIGS", "launch_environment"]

CONFIGS = Path(__file__).parents[2] / "configs" / "accelerate"

PREFIXES = ("ACCELERATE_", "FSDP_", "PARALLELISM_")


def launch_environment(name: str) -> dict[str, str]:
    """Return the variables that `accelerate launch` sets for a shipped configuration."""
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import (
        prepare_deepspeed_cmd_env,
        prepare_multi_gpu_env,
        prepare_simple_launcher_cmd_env,
    )

    words = ["--config_file", str(CONFIGS / f"{name}.yaml"), "script.py"]
    args, defaults, _ = _validate_launch_command(launch_command_parser().parse_args(words))
    if args.use_deepspeed:
        fields = ",".join(defaults.deepspeed_config)
        args.deepspeed_fields_from_accelerate_config = fields
        env = prepare_deepspeed_cmd_env(args)[1]
    elif args.multi_gpu or args.use_fsdp:
        env = prepare_multi_gpu_env(args)
    else:
        env = prepare_simple_launcher_cmd_env(args)[1]
    return {key: value for key, value in env.items() if key.startswith(PREFIXES)}

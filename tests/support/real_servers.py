"""Exported models behind real servers on the CPU: vLLM and `transformers serve`."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from builders import family_name
from peft import LoraConfig, get_peft_model
from support.commands import run_command

from unidpo_mm.plugins import load_family

START_SECONDS = 900
SIZES = {"hidden_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32}
"""vLLM's attention on a CPU needs heads of at least 32 dimensions."""


def trained(folder: Path, model_type: str, **sizes: Any) -> tuple[Path, Path]:
    """Write a tiny base model and a LoRA adapter with changed weights; return both."""
    torch.manual_seed(0)
    family = load_family(family_name(model_type))
    base = family.tiny(folder / "base", model_type=model_type, **sizes)
    auto_class = getattr(transformers, family.auto_class)
    model = auto_class.from_pretrained(base)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter.mul_(5)  # so that tokens are not equally likely
    model.save_pretrained(base)
    lora = LoraConfig(r=8, target_modules=["q_proj", "v_proj", "up_proj"], task_type="CAUSAL_LM")
    policy = get_peft_model(model, lora)
    with torch.no_grad():
        for parameter in policy.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn_like(parameter))
    policy.save_pretrained(folder / "adapter")
    return base, folder / "adapter"


def exported(adapter: Path, output: Path, *options: str) -> Path:
    result = run_command("export", str(adapter), "--output", str(output), *options)
    assert result.exit_code == 0, result.output
    return output


@contextlib.contextmanager
def served(command: list[str], environment: Mapping[str, str], log: Path) -> Iterator[str]:
    """Run a server and yield its URL once it accepts connections."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with log.open("w") as stream:
        server = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)],
            env={**os.environ, "HF_HUB_OFFLINE": "1", **environment},
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while not _is_up(port):
            assert server.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < deadline, log.read_text()[-3000:]
            time.sleep(2)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        os.killpg(server.pid, 15)
        server.wait(60)


def _is_up(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as reply:
            return reply.status == 200
    except OSError:
        return False


def vllm_command(python: Path, model: Path, name: str, *options: str) -> list[str]:
    return [
        str(python), "-m", "vllm.entrypoints.openai.api_server", "--model", str(model),
        "--served-model-name", name, "--dtype", "float32", "--max-model-len", "512",
        "--enforce-eager", *options,
    ]  # fmt: skip


VLLM_ENVIRONMENT = {"VLLM_CPU_KVCACHE_SPACE": "1", "PYTHONPATH": ""}


@contextlib.contextmanager
def transformers_serve(folder: Path) -> Iterator[str]:
    """Run `transformers serve` and yield its URL."""
    program = shutil.which("transformers", path=str(Path(sys.executable).parent))
    assert program is not None
    (folder / "hub").mkdir(exist_ok=True)  # its list of models fails without such a directory
    environment = {"HF_HUB_CACHE": str(folder / "hub")}
    with served([program, "serve"], environment, folder / "log") as url:
        yield url

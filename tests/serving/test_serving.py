"""Exported models, served for real by vLLM and transformers on the CPU, answer as locally.

`make test-serving` installs vLLM into an environment of its own and the packages that `transformers
serve` needs next to this one.
"""

import base64
import contextlib
import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from builders import family_name, make_image
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from support.commands import run_command

from unidpo_mm.export.tensors import TensorFiles
from unidpo_mm.plugins import load_family

pytestmark = [pytest.mark.serving, pytest.mark.timeout(1800)]

START_SECONDS = 900
SIZES = {"hidden_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32}
"""vLLM's attention on a CPU needs heads of at least 32 dimensions."""

ENDS = re.compile(r"^[\s\ufffd]+|[\s\ufffd]+$")

QUESTIONS = [f"Which of these is number {number}?" for number in range(6)]


@pytest.fixture(scope="module")
def vllm() -> Path:
    """Return the Python of the environment with vLLM, which `make test-serving` builds."""
    python = Path(os.environ["UNIDPO_MM_SERVING"]) / "bin" / "python"
    assert python.is_file(), "run make test-serving"
    return python


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


def benchmark_data(folder: Path, *, images: bool = False) -> Path:
    """Write multiple-choice questions."""
    titles = ["index", *(["image"] if images else []), "question", "A", "B", "answer"]
    lines = ["\t".join(titles)]
    for number, question in enumerate(QUESTIONS):
        stream = io.BytesIO()
        make_image(number).save(stream, format="PNG")
        image = [base64.b64encode(stream.getvalue()).decode()] if images else []
        lines.append("\t".join([str(number), *image, question, "cat", "dog", "A"]))
    path = folder / "questions.tsv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def responses(output: Path) -> dict[str, str]:
    """Return the responses of a run without blanks and incomplete characters at both ends.

    Random tokens may end in the middle of a character, which a server may or may not write.
    """
    (file,) = [path for path in output.rglob("*.jsonl") if path.stat().st_size]
    records = map(json.loads, file.read_text(encoding="utf-8").splitlines())
    return {str(r["id"]): ENDS.sub("", r["response"]) for r in records if "response" in r}


def responses_of(data: Path, output: Path, *model: str) -> dict[str, str]:
    """Return the responses of a checkpoint or of a server to the questions."""
    result = run_command(
        "eval", "run", *model, "-b", "ai2d", "--data", str(data), "--output", str(output),
        "--max-new-tokens", "12",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    answers = responses(output)
    assert len(answers) == len(QUESTIONS)
    assert all(len(answer) > 3 for answer in answers.values())
    return answers


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


def vllm_command(python: Path, model: Path, name: str) -> list[str]:
    return [
        str(python), "-m", "vllm.entrypoints.openai.api_server", "--model", str(model),
        "--served-model-name", name, "--dtype", "float32", "--max-model-len", "512",
        "--enforce-eager",
    ]  # fmt: skip


VLLM_ENVIRONMENT = {"VLLM_CPU_KVCACHE_SPACE": "1", "PYTHONPATH": ""}


def test_vllm_serves_a_merged_text_model(vllm: Path, tmp_path: Path) -> None:
    base, adapter = trained(tmp_path, "qwen3", **SIZES)
    data = benchmark_data(tmp_path)
    merged = exported(adapter, tmp_path / "merged", "--merge")
    local = responses_of(data, tmp_path / "local", str(adapter))
    before = responses_of(data, tmp_path / "before", str(base))
    command = vllm_command(vllm, merged, "tuned")
    with served(command, VLLM_ENVIRONMENT, tmp_path / "log") as url:
        served_model = ("--endpoint", url, "--served-model", "tuned")
        answers = responses_of(data, tmp_path / "served", *served_model)
    assert answers == local
    assert answers != before


def test_vllm_serves_a_text_model_with_a_lora_adapter(vllm: Path, tmp_path: Path) -> None:
    base, adapter = trained(tmp_path, "qwen3", **SIZES)
    data = benchmark_data(tmp_path)
    lora = exported(adapter, tmp_path / "lora")
    local = responses_of(data, tmp_path / "local", str(adapter))
    before = responses_of(data, tmp_path / "before", str(base))
    command = [
        *vllm_command(vllm, base, "base"),
        "--enable-lora",
        "--lora-modules",
        f"tuned={lora}",
    ]
    with served(command, VLLM_ENVIRONMENT, tmp_path / "log") as url:
        for name, expected in (("tuned", local), ("base", before)):
            output = tmp_path / f"served-{name}"
            answers = responses_of(data, output, "--endpoint", url, "--served-model", name)
            assert answers == expected, name
    assert local != before


@pytest.mark.parametrize("model_type", ["llava", "qwen2_vl"])
def test_vllm_finds_the_modules_of_an_image_model(
    vllm: Path, tmp_path: Path, model_type: str
) -> None:
    """A key of the LoRA adapter leads to the module that has the weight of the base model."""
    base, adapter = trained(tmp_path, model_type)
    lora = exported(adapter, tmp_path / "lora")
    keys = sorted(load_file(lora / "adapter_model.safetensors"))
    weights = [
        key.removeprefix("base_model.model.").partition(".lora_")[0] + ".weight" for key in keys
    ]
    assert set(weights) <= TensorFiles(str(base)).shapes.keys()
    script = Path(__file__).parent / "vllm_names.py"
    output = subprocess.run(
        [str(vllm), str(script), model_type],
        input=json.dumps([*keys, *weights]),
        env={**os.environ, **VLLM_ENVIRONMENT},
        capture_output=True,
        text=True,
        check=False,
    )
    assert output.returncode == 0, output.stderr[-3000:]
    names = json.loads(output.stdout.splitlines()[-1])
    modules, owners = names[: len(keys)], names[len(keys) :]
    assert modules == [name.removesuffix(".weight") for name in owners]
    layers = [name for name in modules if name.startswith("language_model.model.layers.")]
    assert len(layers) >= 2 * 3 * 2  # two decoder layers, three modules, two matrices each


def test_transformers_serves_a_merged_image_model(tmp_path: Path) -> None:
    base, adapter = trained(tmp_path, "llava")
    data = benchmark_data(tmp_path, images=True)
    merged = exported(adapter, tmp_path / "merged", "--merge")
    local = responses_of(data, tmp_path / "local", str(adapter))
    before = responses_of(data, tmp_path / "before", str(base))
    program = shutil.which("transformers", path=str(Path(sys.executable).parent))
    assert program is not None
    (tmp_path / "hub").mkdir()  # its list of models fails without such a directory
    environment = {"HF_HUB_CACHE": str(tmp_path / "hub")}
    with served([program, "serve"], environment, tmp_path / "log") as url:
        served_model = ("--endpoint", url, "--served-model", str(merged))
        answers = responses_of(data, tmp_path / "served", *served_model)
    assert answers == local
    assert answers != before

"""Exported models, served for real by vLLM and transformers on the CPU, answer as locally.

`make test-serving` installs vLLM into an environment of its own and the packages that `transformers
serve` needs next to this one.
"""

import base64
import io
import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from builders import make_image
from safetensors.torch import load_file
from support.commands import run_command
from support.real_servers import (
    SIZES,
    VLLM_ENVIRONMENT,
    exported,
    served,
    trained,
    transformers_serve,
    vllm_command,
)

from unidpo_mm.modeling.tensor_files import TensorFiles

pytestmark = [pytest.mark.serving, pytest.mark.timeout(1800)]

ENDS = re.compile(r"^[\s\ufffd]+|[\s\ufffd]+$")

QUESTIONS = [f"Which of these is number {number}?" for number in range(6)]


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
    with transformers_serve(tmp_path) as url:
        served_model = ("--endpoint", url, "--served-model", str(merged))
        answers = responses_of(data, tmp_path / "served", *served_model)
    assert answers == local
    assert answers != before

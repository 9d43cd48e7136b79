"""The model card is written from the record of a run; uploads are tested up to the call."""

import json
import shutil
from pathlib import Path
from typing import Any, ClassVar

import huggingface_hub
import pytest
import yaml
from support.commands import run_command

from unidpo_mm.errors import DataError
from unidpo_mm.export.evaluation import read_evaluation
from unidpo_mm.plugins import load_family

RECIPE = """
model: {name_or_path: base, dtype: float32, lora: {r: 20}}
data:
  eval_fraction: 0.3
  score_scale: [0, 5]
  sources:
    - {path: math.jsonl, name: arithmetic, scores: {scale: [0, 10], judge: judge-7b}}
loss: {name: uni_dpo, eta: 0.6}
train:
  output_dir: out
  max_steps: 2
  per_device_train_batch_size: 2
  learning_rate: 1.0e-3
  eval_strategy: steps
  eval_steps: 1
  save_steps: 1
  logging_steps: 1
  report_to: none
  use_cpu: true
  disable_tqdm: true
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the output directory of a run with a LoRA adapter."""
    folder = tmp_path_factory.mktemp("run")
    load_family("text").tiny(folder / "base")
    rows = [
        {
            "prompt": f"What is {number} + 4?",
            "responses": [{"text": "Seven", "score": 9}, {"text": "It is blue", "score": 2}],
        }
        for number in range(8)
    ]
    (folder / "math.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "recipe.yaml").write_text(RECIPE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("UNIDPO_MM_CACHE", str(folder / "cache"))
        assert run_command("train", "recipe.yaml").exit_code == 0
    return folder / "out"


def card_of(run: Path, output: Path, *options: str) -> tuple[dict[str, Any], str]:
    """Export a run; return the metadata and the text of its card."""
    result = run_command("export", str(run), "--output", str(output), *options)
    assert result.exit_code == 0, result.output
    _, head, text = (output / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(head), text


def test_the_card_describes_data_loss_weights_and_checks(run: Path, tmp_path: Path) -> None:
    head, card = card_of(run, tmp_path / "tuned")
    assert head["library_name"] == "peft"
    assert "base_model" not in head  # a local directory means nothing elsewhere
    assert "| `arithmetic` | `math.jsonl` | scale 0 to 10 | judge-7b | 5 |" in card
    assert "5 rows for training and 3 rows held out. Scores are on the scale 0 to 5." in card
    for row in (
        "| Loss | `uni_dpo` |",
        "| `eta` | `0.6` |",
        "| Reference | the model without its LoRA adapter |",
        '| LoRA | `{"r": 20, "alpha": 32, "targets": "language_model"}` |',
        "| `learning_rate` | `0.001` |",
        "| Optimizer steps | 2 of 2 |",
        "| Mean over pairs | Step 1 | Step 2 |",
        "| Held-out rows | Step 1 | Step 2 |",
    ):
        assert row in card
    assert "null" not in card
    state = json.loads((run / "trainer_state.json").read_text())
    last = [log for log in state["log_history"] if "w_qual" in log][-1]
    assert f" | {last['w_qual']:.4g} |" in card
    assert "greedy tokens are equal" in card
    assert "--lora-modules tuned=tuned --max-lora-rank 32" in card
    assert str(run.parent) not in card


def test_a_checkpoint_has_the_card_of_its_step(run: Path, tmp_path: Path) -> None:
    head, card = card_of(run / "checkpoint-1", tmp_path / "tuned", "--merge")
    assert head["library_name"] == "transformers"
    assert "| Optimizer steps | 1 of 2 |" in card
    assert "vllm serve tuned\n" in card


def test_a_damaged_model_is_refused(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "copy")
    with (tmp_path / "copy" / "adapter_model.safetensors").open("r+b") as file:
        file.seek(-4, 2)
        file.write(b"\0\1\2\3")
    result = run_command("export", str(tmp_path / "copy"), "--output", str(tmp_path / "tuned"))
    assert result.exit_code == 2
    assert "the model is incomplete or damaged" in result.output


def test_results_are_on_the_card_with_their_intervals(run: Path, tmp_path: Path) -> None:
    compared = {
        "benchmark": "pope",
        "protocol": "vlmevalkit (1)",
        "headline": "accuracy",
        "results": [
            {
                "name": name,
                "metrics": {"accuracy": value},
                "intervals": {"accuracy": {"low": value - 2, "high": value + 2}},
            }
            for name, value in (("base", 80.0), ("tuned", 84.0))
        ],
        "contrasts": [
            {
                "name": "tuned",
                "differences": {"accuracy": 4.0},
                "intervals": {"accuracy": {"low": 1.5, "high": 6.5}},
            }
        ],
    }
    (tmp_path / "compared.json").write_text(json.dumps(compared))
    _, card = card_of(run, tmp_path / "tuned", "--evaluation", str(tmp_path / "compared.json"))
    metric = "`accuracy` (vlmevalkit (1))"
    assert f"| base | pope | {metric} | 80.0 [78.0, 82.0] |  |" in card
    assert f"| tuned | pope | {metric} | 84.0 [82.0, 86.0] | +4.0 [+1.5, +6.5] |" in card


@pytest.mark.parametrize("content", ["[]", "{}", "no JSON", '{"rows": [{"name": "a"}]}'])
def test_other_files_are_not_results(tmp_path: Path, content: str) -> None:
    (tmp_path / "file.json").write_text(content)
    with pytest.raises(DataError, match="does not contain results with intervals"):
        read_evaluation(tmp_path / "file.json")
    with pytest.raises(DataError, match="cannot be read"):
        read_evaluation(tmp_path / "absent.json")


class Hub:
    """A hub that records what it is asked to do."""

    calls: ClassVar[list[tuple[str, Any]]] = []

    def whoami(self) -> dict[str, str]:
        return {"name": "me"}

    def create_repo(self, repository: str, **options: Any) -> str:
        self.calls.append(("create", (repository, options["private"], options["exist_ok"])))
        return f"https://huggingface.co/{repository}"

    def upload_folder(self, *, repo_id: str, folder_path: Path, commit_message: str) -> None:
        names = {path.name for path in Path(folder_path).iterdir()}
        self.calls.append(("upload", (repo_id, names)))


def test_an_export_is_uploaded_to_a_private_repository(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hf_token")
    Hub.calls = []
    _, card = card_of(run, tmp_path / "tuned", "--push", "me/tuned-model")
    assert "# me/tuned-model" in card
    created, (what, (repository, files)) = Hub.calls
    assert created == ("create", ("me/tuned-model", True, True))
    assert (what, repository) == ("upload", "me/tuned-model")
    assert {"README.md", "adapter_config.json", "adapter_model.safetensors"} < files


def test_an_upload_that_cannot_work_is_refused_before_the_export(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("export", str(run), "--output", str(tmp_path / "tuned"), "--push")
    assert "is not the name of a repository" in run_command(*arguments, "a b").output
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "HF_HUB_OFFLINE is set" in run_command(*arguments, "me/tuned").output
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    assert "there is no access token" in run_command(*arguments, "me/tuned").output
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hf_token")
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: object())
    assert "the hub cannot be reached with this token" in run_command(*arguments, "me/t").output
    assert not (tmp_path / "tuned").exists()


def test_a_failed_upload_says_how_to_repeat_it(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class FullHub(Hub):
        def upload_folder(self, **options: Any) -> None:
            raise OSError("quota exceeded")

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(huggingface_hub, "HfApi", FullHub)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hf_token")
    output = tmp_path / "tuned"
    result = run_command("export", str(run), "--output", str(output), "--push", "me/tuned")
    assert result.exit_code == 2
    assert f"failed (quota exceeded). Upload it later: hf upload me/tuned {output}" in result.output
    assert (output / "README.md").is_file()

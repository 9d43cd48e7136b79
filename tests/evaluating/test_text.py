"""`eval text` equals a direct call of lm-eval, on tasks in a local directory."""

import functools
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.eval_commands import run, text_of
from support.small_benchmarks import varied_checkpoint

CHOICES = """
task: local_choice
dataset_path: json
dataset_kwargs: {{data_files: {{test: "{data}"}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{label}}}}"
metric_list: [{{metric: acc}}, {{metric: acc_norm}}]
"""
WRITTEN = """
task: local_written
dataset_path: json
dataset_kwargs: {{data_files: {{test: "{data}"}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs: {{until: ["."], max_gen_toks: 5, do_sample: false}}
metric_list: [{{metric: exact_match}}]
"""
TASKS = ["local_choice", "local_written"]


@pytest.fixture(scope="module", autouse=True)
def all_tasks() -> Iterator[Any]:
    """Let lm-eval skip its own thousands of task files; return the class that parses them."""
    from lm_eval.tasks import TaskManager

    with pytest.MonkeyPatch.context() as patch:
        included_only = functools.partial(TaskManager, include_defaults=False)
        patch.setattr("lm_eval.tasks.TaskManager", included_only)
        yield TaskManager


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tasks")
    rows = [
        {"question": f"What is {n} + {n + 1}? " * (1 + n % 2), "label": n % 3,
         "choices": ["The answer", "red", "7"], "answer": "red"}
        for n in range(9)
    ]  # fmt: skip
    data = folder / "rows.json"
    data.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    for name, text in (("choice", CHOICES), ("written", WRITTEN)):
        (folder / f"{name}.yaml").write_text(text.format(data=data))
    return folder


def by_hand(checkpoint: Path, tasks: Path, *, chat: bool) -> dict[str, Any]:
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    model = HFLM(pretrained=str(checkpoint), device="cpu", dtype="float32", batch_size=1)
    actual = simple_evaluate(
        model=model, tasks=TASKS, task_manager=TaskManager(include_path=str(tasks)),
        apply_chat_template=chat, random_seed=0, numpy_random_seed=0, torch_random_seed=0,
        fewshot_random_seed=0,
    )  # fmt: skip
    assert actual is not None
    return dict(actual)


@pytest.mark.parametrize("style", ["chat", "raw"])
def test_results_are_those_of_lm_eval_by_hand(
    style: str, tasks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    checkpoint = varied_checkpoint(tmp_path / "llama", "llama")
    done = run(
        "text", checkpoint, "--tasks", ",".join(TASKS), "--include", tasks, "--style", style,
        "--output", tmp_path / "out", "--dtype", "float32", "--batch-size", 4,
    )  # fmt: skip
    assert done.exit_code == 0, text_of(done)
    ours = json.loads((tmp_path / "out" / "llama" / "text.json").read_text())
    theirs = by_hand(checkpoint, tasks, chat=style == "chat")
    for task in TASKS:
        for name, value in theirs["results"][task].items():
            assert ours["results"][task][name] == (
                pytest.approx(value, abs=1e-9) if isinstance(value, float) else value
            )
        lines = (tmp_path / "out" / "llama" / f"samples_{task}.jsonl").read_text().splitlines()
        predictions_file = [json.loads(line) for line in lines]
        for item, other in zip(predictions_file, theirs["samples"][task], strict=True):
            assert item["target"] == str(other["target"]) or item["target"] == other["target"]
            if task == "local_written":
                assert item["resps"] == other["resps"]
            else:
                values = [float(answer[0][0]) for answer in item["resps"]]
                assert values == pytest.approx(
                    [answer[0][0] for answer in other["resps"]], abs=1e-4
                )
    assert "local_choice" in done.output
    assert ours["settings"]["style"] == style


def test_a_vision_language_model_responds_to_text_prompts(
    tasks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    checkpoint = varied_checkpoint(tmp_path / "qwen2_vl", "qwen2_vl")
    done = run("text", checkpoint, "--tasks", "local_choice", "--include", tasks, "--output",
               tmp_path / "out", "--limit", 3)  # fmt: skip
    assert done.exit_code == 0, text_of(done)


def test_responses_to_instructions_are_exported_for_other_judges(tmp_path: Path) -> None:
    checkpoint, out = varied_checkpoint(tmp_path / "llama", "llama"), tmp_path / "out"
    alpaca, arena = tmp_path / "alpaca_eval.json", tmp_path / "question.jsonl"
    alpaca.write_text(json.dumps([{"instruction": f"Do {n}", "dataset": "x"} for n in range(3)]))
    rows = [{"question_id": "q1", "turns": [{"content": "Why?"}], "cluster": "c"},
            {"uid": "q2", "prompt": "How?"}]  # fmt: skip
    arena.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    for name, data in (("alpaca_eval", alpaca), ("arena_hard", arena)):
        line = ("run", checkpoint, "-b", name, "--data", data, "--output", out)
        done = run(*line, "--max-new-tokens", 5, "--dtype", "float32")
        assert done.exit_code == 0, text_of(done)
        assert f"unidpo-mm eval export {name}" in done.output
        responses, written = out / "llama" / f"{name}.jsonl", tmp_path / f"{name}_out{data.suffix}"
        done = run("export", name, "--data", data, "--predictions", responses, "--output", written)
        assert done.exit_code == 0, text_of(done)
    answers = json.loads((tmp_path / "alpaca_eval_out.json").read_text())
    assert [item["instruction"] for item in answers] == ["Do 0", "Do 1", "Do 2"]
    assert {item["generator"] for item in answers} == {"llama"}
    first = json.loads((tmp_path / "arena_hard_out.jsonl").read_text().splitlines()[0])
    assert first["question_id"] == "q1"
    judged = run("score", "-b", "alpaca_eval", "--data", alpaca, "--predictions",
                 out / "llama" / "alpaca_eval.jsonl", "--judge", "http://127.0.0.1:9/v1",
                 "--judge-model", "J")  # fmt: skip
    assert "`unidpo-mm eval export alpaca_eval`" in text_of(judged)


def test_unknown_tasks_are_reported(tasks: Path, tmp_path: Path) -> None:
    checkpoint = varied_checkpoint(tmp_path / "llama", "llama")
    words = ("text", checkpoint, "--include", tasks, "--output", tmp_path / "out")
    assert "lm-eval has no task nothing_such" in text_of(run(*words, "--tasks", "nothing_such"))


@pytest.mark.slow
def test_the_tasks_of_lm_eval_and_of_a_directory_are_known(
    all_tasks: Any, tasks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lm_eval.tasks.TaskManager", all_tasks)
    checkpoint = varied_checkpoint(tmp_path / "llama", "llama")
    words = ("text", checkpoint, "--include", tasks, "--output", tmp_path / "out")
    done = run(*words, "--tasks", "arc_easy,local_choice,nothing_such")
    assert "lm-eval has no task nothing_such" in text_of(done)


def test_a_missing_library_is_reported_with_its_install_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = varied_checkpoint(tmp_path / "llama", "llama")
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    done = run("text", checkpoint, "--tasks", "x", "--output", tmp_path / "out")
    assert "pip install 'unidpo-mm[lm-eval]'" in text_of(done)

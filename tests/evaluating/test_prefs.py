"""`eval prefs` equals an unpadded forward pass per row; metrics are computed by hand."""

import base64
import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import LLAVA_TYPES, load_tiny, make_image
from scipy.stats import pearsonr
from support.eval_commands import run, text_of
from support.small_benchmarks import varied_checkpoint
from unidpo_mm_eval.benchmarks import load_benchmark
from unidpo_mm_eval.benchmarks._pairs import extra_pair_metrics, pair_metrics
from unidpo_mm_eval.data.samples import GradedSample
from unidpo_mm_eval.results.comparison import with_intervals
from unidpo_mm_eval.results.result import read_result

from unidpo_mm.config import SourceOptions
from unidpo_mm.data.load import load_rows
from unidpo_mm.errors import ModelError

ANSWERS = ("The answer is 7.", "Eight", "A red square!", "Hello, world! " * 4, "two circle", "12")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs of text and images: a row with three responses, and two pairs on the same image."""
    folder = tmp_path_factory.mktemp("pairs")
    for n in range(3):
        make_image(n, (40 + 16 * n, 30)).save(folder / f"{n}.png")
    rows: list[dict[str, Any]] = [
        {"prompt": "Hello " * (3 * n + 1), "chosen": ANSWERS[n], "rejected": ANSWERS[n + 1],
         "score_chosen": 4.0 - n / 2, "score_rejected": 1.0}
        for n in range(4)
    ]  # fmt: skip
    rows += [
        {"prompt": "<image>What is it?", "images": [f"{n % 3}.png"], "chosen": ANSWERS[n + 1],
         "rejected": ANSWERS[n], "score_chosen": 3.0, "score_rejected": n / 2}
        for n in range(4)
    ]  # fmt: skip
    ranked = [{"text": text, "score": float(score)} for score, text in enumerate(ANSWERS[:3])]
    rows.append({"prompt": "<image>How many?", "images": ["0.png"], "responses": ranked})
    path = folder / "pairs.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


@torch.no_grad()
def individually(folder: Path, pairs: Path) -> dict[str, tuple[list[float], list[int]]]:
    """Row -> summed log-probs and numbers of tokens, by separate forward passes."""
    loaded = load_tiny(folder)
    model: Any = loaded.model.eval()
    actual = {}
    for row in load_rows([SourceOptions(path=str(pairs))]):
        group = loaded.adapter.encode(row)
        sums = []
        for number, ids in enumerate(group.response_ids):
            full = torch.cat([group.prompt_ids, ids]).unsqueeze(0)
            extras = {
                name: torch.cat([parts[0], parts[1 + number]]).unsqueeze(0)
                for name, parts in group.token_extras.items()
            }
            logits = model(input_ids=full, **extras, **group.images.inputs).logits[0].double()
            key = logits[len(group.prompt_ids) - 1 : -1].log_softmax(-1)
            sums.append(float(key.gather(1, ids.unsqueeze(1)).sum()))
        actual[row.id] = (sums, [len(ids) for ids in group.response_ids])
    return actual


def prefer(checkpoint: Path, pairs: Path, out: Path, *options: Any) -> Any:
    words = ("prefs", checkpoint, "--data", pairs, "--output", out, "--dtype", "float32", *options)
    done = run(*words)
    assert done.exit_code == 0, text_of(done)
    return read_result(out / checkpoint.name / "preferences.json")


def records(path: Path) -> dict[str, dict[str, Any]]:
    lines = [json.loads(line) for line in path.read_text().splitlines()[1:]]
    return {line["id"]: line for line in lines}


@pytest.mark.parametrize("model_type", ["llava", "llava_onevision", "qwen2_vl", "qwen3_vl"])
def test_log_probabilities_are_those_of_the_plain_model(
    model_type: str, pairs: Path, tmp_path: Path
) -> None:
    checkpoint = varied_checkpoint(tmp_path / model_type, model_type)
    result = prefer(checkpoint, pairs, tmp_path / "out", "--batch-size", 4)
    theirs = individually(checkpoint, pairs)
    ours = records(tmp_path / "out" / model_type / "preferences.jsonl")
    assert ours.keys() == theirs.keys()
    for key, (sums, tokens) in theirs.items():
        assert ours[key]["tokens"] == tokens
        assert ours[key]["logps"] == pytest.approx(sums, abs=1e-5 * max(tokens))
    by_id = {item.id: item for item in result.per_sample}
    assert len(by_id) == 8 + 3  # three answers make three pairs
    sums, tokens = theirs["pairs:1"]
    margin = sums[0] / tokens[0] - sums[1] / tokens[1]
    assert by_id["pairs:1"].details["margin"] == pytest.approx(margin, abs=1e-5)
    assert by_id["pairs:1"].score == float(margin > 0)


def test_another_prompt_fails_the_comparison(pairs: Path, tmp_path: Path) -> None:
    checkpoint = varied_checkpoint(tmp_path / "llava", "llava")
    prefer(checkpoint, pairs, tmp_path / "out", "--style", "raw")
    ours = records(tmp_path / "out" / "llava" / "preferences.jsonl")["pairs:1"]["logps"]
    assert ours != pytest.approx(individually(checkpoint, pairs)["pairs:1"][0], abs=1e-2)


def test_rewards_are_measured_against_a_reference(pairs: Path, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    base = varied_checkpoint(tmp_path / "base", LLAVA_TYPES[0])
    torch.manual_seed(1)
    tuned = get_peft_model(load_tiny(base).model, LoraConfig(target_modules=["q_proj", "v_proj"]))
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    tuned.peft_config["default"].base_model_name_or_path = str(base)
    tuned.save_pretrained(tmp_path / "lora")
    merged = tmp_path / "merged_model"
    tuned.merge_and_unload().save_pretrained(merged)
    load_tiny(base).adapter.processor.save_pretrained(merged)
    actual = {
        how: prefer(folder, pairs, tmp_path / how, "--reference", reference)
        for how, folder, reference in (
            ("lora_off", tmp_path / "lora", "lora_off"),
            ("other", merged, base),
        )
    }
    alone = {name: individually(folder, pairs) for name, folder in (("pi", merged), ("ref", base))}
    for result in actual.values():
        for item in result.per_sample[:8]:
            gaps = [alone["pi"][item.id][0][n] - alone["ref"][item.id][0][n] for n in (0, 1)]
            assert item.details["margin"] == pytest.approx(0.1 * (gaps[0] - gaps[1]), abs=2e-4)
            assert item.details["fell"] == float(gaps[0] < 0)
        assert "chosen_fell_rate" in result.metrics
    refused = run("prefs", base, "--data", pairs, "--output", tmp_path, "--reference", "lora_off")
    assert "base has no LoRA adapter to disable" in text_of(refused)


@pytest.mark.parametrize("role", ["model", "reference"])
def test_a_model_that_sees_later_tokens_is_refused(pairs: Path, tmp_path: Path, role: str) -> None:
    causal = varied_checkpoint(tmp_path / "llava", "llava")
    other = shutil.copytree(causal, tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    config["text_config"]["is_causal"] = False
    (other / "config.json").write_text(json.dumps(config))
    words = [other] if role == "model" else [causal, "--reference", other]
    done = run("prefs", *words, "--data", pairs, "--output", tmp_path / "out")
    assert isinstance(done.exception, ModelError)
    assert "its tokens also attend to later ones" in text_of(done)


def test_two_checkpoints_are_compared_and_a_run_resumes(pairs: Path, tmp_path: Path) -> None:
    first = varied_checkpoint(tmp_path / "llava", "llava")
    second = varied_checkpoint(tmp_path / "llama", "llama")
    out = tmp_path / "out"
    text_only = tmp_path / "text.jsonl"
    text_only.write_text("".join(pairs.read_text().splitlines(keepends=True)[:4]))
    words = ("prefs", first, second, "--data", text_only, "--output", out)
    done = run(*words)
    assert done.exit_code == 0, text_of(done)
    assert "llama against llava" in done.output
    full = (out / "llava" / "preferences.jsonl").read_bytes()
    (out / "llava" / "preferences.jsonl").unlink()
    parts = out / "llava" / "preferences.parts"
    parts.mkdir()
    (parts / "0.jsonl").write_bytes(full[: len(full) - 20])
    assert run(*words).exit_code == 0
    assert (out / "llava" / "preferences.jsonl").read_bytes() == full


def made(
    key: str, chosen: float, rejected: float, *, tokens: tuple[int, int] = (3, 3), **options: Any
) -> GradedSample:
    margin = chosen - rejected
    details = {"margin": margin, "chosen_reward": chosen, "rejected_reward": rejected,
               "chosen_logp": chosen, "rejected_logp": rejected, "chosen_tokens": tokens[0],
               "rejected_tokens": tokens[1], **options.pop("details", {})}  # fmt: skip
    return GradedSample(id=key, cluster=key, score=float(margin > 0), details=details, **options)


def test_metrics_are_those_by_hand() -> None:
    scored = [
        made("a", -1.0, -2.0, tokens=(2, 5), unit="x", labels={"group": "g"},
             details={"score_margin": 1.0}),
        made("b", -3.0, -1.0, tokens=(5, 2), unit="x", labels={"group": "g"},
             details={"score_margin": 0.5}),
        made("c", -1.0, -1.0, unit="y", labels={"group": "h"}, details={"score_margin": 0.0}),
        made("d", -0.5, -4.0, tokens=(9, 2), unit="z", labels={"group": "h"},
             details={"score_margin": 3.0}),
    ]  # fmt: skip
    actual = pair_metrics(scored).values()
    assert actual["accuracy"] == 50.0  # the tie is wrong
    assert actual["accuracy_ties_half"] == 62.5
    assert actual["acc_plus"] == pytest.approx(100 / 3)
    assert actual["accuracy/chosen/shorter"] == 100.0
    assert actual["accuracy/chosen/longer"] == 50.0
    assert actual["accuracy/chosen/same"] == 0.0
    assert (actual["accuracy/group/g"], actual["macro_accuracy"]) == (50.0, 50.0)
    assert actual["mean_margin"] == pytest.approx((1 - 2 + 0 + 3.5) / 4)
    theirs = pearsonr([1, -2, 0, 3.5], [1, 0.5, 0, 3]).statistic
    assert actual["score_margin_correlation"] == pytest.approx(theirs)
    extra = extra_pair_metrics(scored)
    assert extra["median_margin"] == 0.5
    pairs = [(c, r) for c in (-1, -3, -1, -0.5) for r in (-2, -1, -1, -4)]
    auc = sum(1.0 if c > r else 0.5 if c == r else 0.0 for c, r in pairs) / len(pairs)
    assert extra["auc"] == pytest.approx(100 * auc)


def image_in(folder: Path, name: str) -> str:
    make_image(3).save(folder / name)
    return name


def test_reward_benchmarks_are_read(tmp_path: Path) -> None:
    (tmp_path / "mcq").mkdir()
    first, second = image_in(tmp_path, "mcq/a.png"), image_in(tmp_path, "b.png")
    pair = {"prompt": "Which?", "chosen": "A", "rejected": "B", "reasons": "x"}
    lines = [pair | {"id": 1, "image": first}, pair | {"id": 1, "image": second},
             pair | {"id": 2, "video": "c.mp4"}]  # fmt: skip
    data = tmp_path / "mm_reward_bench.jsonl"
    data.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    kind = load_benchmark("mm_rlhf_rewardbench")
    assert kind.pairs is not None
    actual = kind.pairs(data, None)
    assert [actual.groups[row.id]["group"] for row in actual.rows] == ["mcq", "other"]
    assert {actual.units[row.id] for row in actual.rows} == {"1"}
    assert actual.notes == ["skipped 1 rows: they have a video"]

    content = io.BytesIO()
    make_image(1).save(content, "PNG")
    image = base64.b64encode(content.getvalue()).decode()
    row = {"query": "Which?", "response": ["bad", "good"], "human_ranking": [1, 0]}
    rows = [row | {"image": image, "query_source": s} for s in ("RLAIF-V", "MathVerse", "Wild")]
    vl = tmp_path / "vl.json"
    vl.write_text(json.dumps(rows))
    kind = load_benchmark("vl_rewardbench")
    assert kind.pairs is not None
    actual = kind.pairs(vl, None)
    assert [item.responses[item.pairs[0].chosen].text for item in actual.rows] == ["good"] * 3
    groups = [actual.groups[item.id]["group"] for item in actual.rows]
    assert groups == ["hallucination", "reasoning", "general"]

    multi = tmp_path / "multi.jsonl"
    item = {"Text": "Which?", "Output1": "bad", "Output2": "good", "Better": "Output2",
           "Category": "safety/bias", "Image": second}  # fmt: skip
    multi.write_text(
        json.dumps(item) + "\n" + json.dumps(item | {"Better": "3", "Image": ""}) + "\n"
    )
    refused = run("prefs", tmp_path, "--data", multi, "--output", tmp_path, "-b",
                  "multimodal_rewardbench")  # fmt: skip
    assert "row 2, field 'Better': got '3'. Use Output1 or Output2" in text_of(refused)
    assert "row 2, field 'Image': missing" in text_of(refused)


def test_questions_and_pairs_are_distinguished(pairs: Path, tmp_path: Path) -> None:
    requests = run("prefs", tmp_path, "--data", pairs, "--output", tmp_path, "-b", "pope")
    assert "POPE consists of questions, not of pairs. Use `unidpo-mm eval run`" in text_of(requests)
    replies = tmp_path / "mine.jsonl"
    replies.write_text('{"id": "pairs:1", "response": "x"}\n')
    scored = run("score", "-b", "preferences", "--data", pairs, "--predictions", replies)
    assert "use `unidpo-mm eval prefs`" in text_of(scored)


def test_intervals_of_pairs(pairs: Path, tmp_path: Path) -> None:
    checkpoint = varied_checkpoint(tmp_path / "llava", "llava")
    actual = with_intervals(prefer(checkpoint, pairs, tmp_path / "out"), count=200)
    low, high = actual.intervals["mean_margin"].low, actual.intervals["mean_margin"].high
    assert low < actual.result.metrics["mean_margin"] < high

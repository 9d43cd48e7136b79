"""Scores of the reference toolkits on the adversarial sets; recorded in golden/toolkits.json.

``make test-toolkits`` installs the toolkits without their dependencies into a separate directory
and compares the record with their current results; running this file with that directory and
tests/ on the path writes the record. Libraries that they import but do not use for scoring are
replaced by stand-ins.
"""

import contextlib
import copy
import importlib
import importlib.abc
import importlib.machinery
import io
import json
import os
import string
import sys
import tempfile
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pandas as pd
from support.adversarial_responses import SETS, AdversarialSet

RECORD = Path(__file__).parents[1] / "scoring" / "golden" / "toolkits.json"
MODULES = (
    "vlmeval.utils.matching_util", "vlmeval.dataset.utils.yorn", "vlmeval.dataset.utils.vqa_eval",
    "vlmeval.dataset.utils.multiple_choice", "vlmeval.dataset.image_vqa", "lmms_eval.api.metrics",
    "lmms_eval.tasks.mme.utils", "lmms_eval.tasks.pope.utils", "lmms_eval.tasks.chartqa.utils",
    "lmms_eval.tasks._task_utils.vqa_eval_metric", "lmms_eval.tasks.ocrbench.utils",
    "lmms_eval.tasks.mmstar.utils", "lmms_eval.tasks.seedbench.utils",
    "lmms_eval.tasks.scienceqa.utils", "lmms_eval.tasks.mathvista.mathvista_evals",
)  # fmt: skip
Scores = dict[str, float]
Outcome = tuple[Scores, Scores]
"""Metrics by our names, and score by id."""


class StandIns(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Replaces libraries that are not installed by modules whose names are mocks."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        absent = name.partition(".")[0] in self.names
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if absent else None

    def create_module(self, spec: Any) -> Any:
        return MagicMock(name=spec.name, __path__=[], __spec__=spec, __name__=spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Do nothing: there is nothing to run."""


def import_toolkits() -> None:
    """Import the toolkits, with stand-ins for libraries that they import but do not use."""
    absent = StandIns()
    sys.meta_path.append(absent)
    for module in MODULES:
        while True:
            try:
                importlib.import_module(module)
                break
            except ModuleNotFoundError as error:
                name = str(error.name).partition(".")[0]
                if name in (*absent.names, "vlmeval", "lmms_eval"):
                    raise
                absent.names.add(name)


def table(made: AdversarialSet) -> pd.DataFrame:
    data = pd.DataFrame(made.rows).fillna("")
    data["prediction"] = [made.responses[key] for key in data["index"]]
    return data


def per_sample(data: pd.DataFrame) -> Scores:
    return {key: float(score) for key, score in zip(data["index"], data["score"], strict=True)}


def by_label(data: pd.DataFrame, metric: str, labels: tuple[str, ...]) -> Scores:
    actual = {metric: 100 * float(np.mean(data["score"]))}
    for label in (item for item in labels if item in data):
        for value, part in data.groupby(label):
            if value:
                actual[f"{metric}/{label}/{value}"] = 100 * float(np.mean(part["score"]))
    return actual


def rated(data: pd.DataFrame, rating: str) -> pd.DataFrame:
    """Return the result of one of VLMEvalKit's ratings, which read a file."""
    from vlmeval.dataset.utils import yorn

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mine.pkl"
        data.reset_index(drop=True).to_pickle(path)
        return getattr(yorn, rating)(str(path))


def extract_answer(made: AdversarialSet) -> pd.DataFrame:
    from vlmeval.dataset.utils.yorn import YOrN_Extraction

    data = table(made)
    data["extracted"] = [YOrN_Extraction(text) for text in data["prediction"]]
    data["score"] = (data["extracted"] == data["answer"]).astype(float)
    return data


def pope(made: AdversarialSet) -> Outcome:
    data = extract_answer(made)
    names = {"Overall": "f1", "acc": "accuracy", "precision": "precision", "recall": "recall"}
    actual = {}
    for _, row in rated(data, "POPE_rating").iterrows():
        end = "" if row["split"] == "Overall" else f"/{row['split']}"
        actual |= {f"{ours}{end}": float(row[theirs]) for theirs, ours in names.items()}
    return actual, per_sample(data)


def pope_lmms(made: AdversarialSet) -> Outcome:
    from lmms_eval.tasks.pope import utils

    results, scores = [], {}
    data = table(made)
    data = data.assign(category=data["category"].str.split(",")).explode("category")
    for _, row in data.iterrows():
        doc = {"answer": row["answer"], "question_id": row["index"], "category": row["category"]}
        item = utils.pope_process_results(doc, [row["prediction"]])["pope_accuracy"]
        results.append(item)
        scores[row["index"]] = float(item["score"])
    names = {"accuracy": "accuracy", "precision": "precision", "recall": "recall", "f1": "f1_score"}
    actual = {o: 100 * getattr(utils, f"pope_aggregate_{t}")(results) for o, t in names.items()}
    return actual, scores


def mme(made: AdversarialSet) -> Outcome:
    data = extract_answer(made)
    row = dict(rated(data, "MME_rating").iloc[0])
    full = ("perception", "reasoning")
    actual = {f"score/{name}": float(v) for name, v in row.items() if name not in full}
    actual |= {"perception": float(row["perception"]), "cognition": float(row["reasoning"])}
    return actual | {"total": actual["perception"] + actual["cognition"]}, per_sample(data)


def mme_lmms(made: AdversarialSet) -> Outcome:
    from lmms_eval.tasks.mme import utils

    parts: dict[str, list[Any]] = {"perception": [], "cognition": []}
    scores = {}
    for _, row in table(made).iterrows():
        doc = {
            "answer": row["answer"],
            "category": row["category"],
            "question_id": row["image_path"],
        }
        processed = utils.mme_process_results(doc, [row["prediction"]])
        for name, item in processed.items():
            part = "perception" if "percept" in name else "cognition"
            parts[part].append(item)
            scores[row["index"]] = float(item["score"])
    actual = {name: float(utils.mme_aggregate_results(rows)) for name, rows in parts.items()}
    return actual | {"total": sum(actual.values())}, scores


def hallusionbench(made: AdversarialSet) -> Outcome:
    data = extract_answer(made)
    full = rated(data, "Hallusion_rating")
    labels = {v: n for n in ("category", "l2-category") for v in set(data[n])}
    actual = {}
    for _, row in full.iterrows():
        split = row["split"]
        end = "" if split == "Overall" else f"/{labels[split]}/{split}"
        actual |= {f"{name}{end}": float(row[name]) for name in ("aAcc", "fAcc", "qAcc")}
    return actual, per_sample(data)


def amber(made: AdversarialSet) -> Outcome:
    data = extract_answer(made)
    row = dict(rated(data, "AMBER_rating").iloc[0])
    mean = float(row.pop("Avg ACC"))
    actual = {f"accuracy/dimension/{name}": float(value) for name, value in row.items()}
    return actual | {"mean_accuracy": mean}, per_sample(data)


def chosen(made: AdversarialSet) -> pd.DataFrame:
    from vlmeval.utils.matching_util import can_infer

    data, hits = table(made), []
    for _, row in data.iterrows():
        fields = {x: row[x] for x in string.ascii_uppercase if row.get(x)}
        hits.append(float(can_infer(row["prediction"], copy.copy(fields)) == row["answer"]))
    data["score"] = hits
    return data


def options(made: AdversarialSet) -> Outcome:
    data = chosen(made)
    return by_label(data, "accuracy", ("category", "l2-category", "split")), per_sample(data)


def mmbench(made: AdversarialSet) -> Outcome:
    from vlmeval.dataset.utils.multiple_choice import mcq_circular_eval

    scored = chosen(made)
    data = table(made).replace("", np.nan)  # as its reader has it
    data["prediction"] = [made.responses[key] for key in data["index"]]
    data["index"] = data["index"].astype(int)
    with tempfile.TemporaryDirectory() as folder:
        full = mcq_circular_eval(None, data.copy(), data.copy(), 1, f"{folder}/result.pkl")
    full["score"] = full["hit"].astype(float)
    actual = by_label(full, "accuracy", ("category", "l2-category"))
    base = scored[[int(key) < 1_000_000 for key in scored["index"]]]
    actual["vanilla_accuracy_all"] = 100 * float(np.mean(scored["score"]))
    actual["vanilla_accuracy_base"] = 100 * float(np.mean(base["score"]))
    return actual, per_sample(scored)


def mmstar_lmms(made: AdversarialSet) -> Outcome:
    from lmms_eval.tasks.mmstar import utils

    results, scores = [], {}
    for _, row in table(made).iterrows():
        doc = {"answer": row["answer"], "category": row["category"], "index": row["index"]}
        doc["l2_category"] = row["l2-category"]
        item = utils.mmstar_process_results(doc, [row["prediction"]])["average"]
        results.append(item)
        scores[row["index"]] = float(item["score"])
    return {"average": 100 * float(utils.mmstar_aggregate_results(results))}, scores


def seedbench_lmms(made: AdversarialSet) -> Outcome:
    from lmms_eval.tasks.seedbench.utils import seed_aggregation_result, seed_process_result

    results, scores = [], {}
    for _, row in table(made).iterrows():
        doc = {"answer": row["answer"], "data_type": "all", "question_id": row["index"]}
        item = seed_process_result(doc, [row["prediction"]])["seed_all"]
        results.append(item)
        scores[row["index"]] = float(seed_aggregation_result([item]))
    return {"accuracy": 100 * float(seed_aggregation_result(results))}, scores


def scienceqa_lmms(made: AdversarialSet) -> Outcome:
    from lmms_eval.tasks.scienceqa.utils import sqa_process_results

    scores = {}
    for _, row in table(made).iterrows():
        fields = [row[x] for x in "ABCDE" if row.get(x)]
        doc = {"choices": fields, "answer": "ABCDE".index(row["answer"])}
        actual = sqa_process_results(doc, [row["prediction"]])["exact_match"]
        scores[row["index"]] = float(actual)
    return {"accuracy": 100 * float(np.mean(list(scores.values())))}, scores


def lines(made: AdversarialSet, dataset: str, method: str, metric: str, *labels: str) -> Outcome:
    from vlmeval.dataset.utils.vqa_eval import hit_calculate, process_line

    data = table(made)
    processed = [process_line(row, method=method) for _, row in data.iterrows()]
    data["score"] = [float(hit) for hit in hit_calculate(processed, dataset)]
    return by_label(data, metric, labels), per_sample(data)


def chartqa(made: AdversarialSet) -> Outcome:
    return lines(made, "ChartQA_TEST", "relaxed_accuracy", "relaxed_accuracy", "split")


def chartqa_lmms(made: AdversarialSet) -> Outcome:
    from lmms_eval.tasks.chartqa.utils import relaxed_correctness

    data = table(made)
    data["score"] = [
        float(relaxed_correctness(row["prediction"], row["answer"])) for _, row in data.iterrows()
    ]
    return by_label(data, "relaxed_accuracy", ("split",)), per_sample(data)


def textvqa(made: AdversarialSet) -> Outcome:
    return lines(made, "TextVQA_VAL", "vqa_score", "vqa_accuracy")


def textvqa_lmms(made: AdversarialSet) -> Outcome:
    from lmms_eval.tasks._task_utils.vqa_eval_metric import EvalAIAnswerProcessor

    plain, data, scores = EvalAIAnswerProcessor(), table(made), []
    for _, row in data.iterrows():
        replies, gold = plain(row["prediction"]), [plain(item) for item in eval(row["answer"])]
        others = [gold[:n] + gold[n + 1 :] for n in range(len(gold))]
        scores.append(float(np.mean([min(1, rest.count(replies) / 3) for rest in others])))
    data["score"] = scores
    return by_label(data, "vqa_accuracy", ()), per_sample(data)


def anls(made: AdversarialSet) -> Outcome:
    return lines(made, "DocVQA_VAL", "anls", "anls")


def anls_lmms(made: AdversarialSet) -> Outcome:
    from lmms_eval.api.metrics import anls as theirs

    data = table(made)
    data["score"] = [
        float(theirs(eval(row["answer"]), [row["prediction"]])["anls"])
        for _, row in data.iterrows()
    ]
    return by_label(data, "anls", ()), per_sample(data)


def ocrbench(made: AdversarialSet) -> Outcome:
    from vlmeval.dataset.image_vqa import OCRBench

    def score(data: pd.DataFrame) -> Mapping[str, float]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "mine.xlsx"
            data.to_pickle(path.with_suffix(".pkl"))
            with contextlib.redirect_stderr(io.StringIO()):
                return OCRBench.evaluate(str(path.with_suffix(".pkl")))

    data = table(made)
    full = dict(score(data))
    scores = {
        row["index"]: float(score(data.iloc[n : n + 1])["Final Score"])
        for n, (_, row) in enumerate(data.iterrows())
    }
    actual = {"score": float(full.pop("Final Score"))}
    actual["score_norm"] = float(full.pop("Final Score Norm"))
    return actual | {f"score/{name}": float(value) for name, value in full.items()}, scores


def ocrbench_lmms(made: AdversarialSet) -> Outcome:
    from lmms_eval.tasks.ocrbench.utils import ocrbench_process_results

    scores = {}
    for _, row in table(made).iterrows():
        formula = row["category"].startswith("Handwritten Math")
        doc = {"question_type": row["category"], "answer": eval(row["answer"])}
        doc |= {"question": row["question"], "dataset": "HME100k" if formula else "other"}
        item = next(iter(ocrbench_process_results(doc, [row["prediction"]]).values()))
        scores[row["index"]] = float(item["score"])
    return {"score": sum(scores.values())}, scores


def mathvista(made: AdversarialSet) -> Outcome:
    from lmms_eval.tasks.mathvista.mathvista_evals import MathVistaEvaluator

    theirs, scores = MathVistaEvaluator.__new__(MathVistaEvaluator), {}
    for _, row in table(made).iterrows():
        fields = eval(row["choices"]) if row["choices"] else []
        digits = int(float(row["precision"] or 0))
        kind, number = row["question_type"], row["answer_type"]
        replies = theirs.normalize_extracted_answer(row["prediction"], fields, kind, number, digits)
        scores[row["index"]] = float(theirs.safe_equal(replies, row["answer"]))
    return {"accuracy": 100 * float(np.mean(list(scores.values())))}, scores


TOOLKITS: dict[tuple[str, str], Callable[[AdversarialSet], Outcome]] = {
    ("pope", "vlmevalkit"): pope,
    ("pope", "lmms"): pope_lmms,
    ("mme", "vlmevalkit"): mme,
    ("mme", "lmms"): mme_lmms,
    ("hallusionbench", "vlmevalkit"): hallusionbench,
    ("amber", "vlmevalkit"): amber,
    ("mmbench", "vlmevalkit"): mmbench,
    ("seedbench_img", "vlmevalkit"): options,
    ("seedbench_img", "lmms"): seedbench_lmms,
    ("scienceqa", "vlmevalkit"): options,
    ("scienceqa", "lmms"): scienceqa_lmms,
    ("realworldqa", "vlmevalkit"): options,
    ("ai2d", "vlmevalkit"): options,
    ("mmmu", "vlmevalkit"): options,
    ("mmstar", "vlmevalkit"): options,
    ("mmstar", "lmms"): mmstar_lmms,
    ("chartqa", "vlmevalkit"): chartqa,
    ("chartqa", "lmms"): chartqa_lmms,
    ("textvqa", "vlmevalkit"): textvqa,
    ("textvqa", "lmms"): textvqa_lmms,
    ("infovqa", "vlmevalkit"): anls,
    ("infovqa", "lmms"): anls_lmms,
    ("docvqa", "vlmevalkit"): anls,
    ("docvqa", "lmms"): anls_lmms,
    ("mathvista", "official"): mathvista,
    ("ocrbench", "vlmevalkit"): ocrbench,
    ("ocrbench", "lmms"): ocrbench_lmms,
}
"""(benchmark, protocol) -> the toolkit's result on its adversarial set."""


def record() -> dict[str, Any]:
    os.environ["PRED_FORMAT"] = "tsv"  # its scratch files, which else need a library for xlsx
    import_toolkits()
    actual: dict[str, Any] = {"versions": {n: version(n) for n in ("ms-vlmeval", "lmms-eval")}}
    for (benchmark, protocol), toolkit in TOOLKITS.items():
        metrics, scores = toolkit(SETS[benchmark]())
        actual[f"{benchmark} {protocol}"] = {"metrics": metrics, "per_sample": scores}
    return actual


if __name__ == "__main__":
    content = record()
    RECORD.parent.mkdir(exist_ok=True)
    RECORD.write_text(
        json.dumps(content, ensure_ascii=False, separators=(",", ":")) + "\n", "utf-8"
    )

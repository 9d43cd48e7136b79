"""What the kits' own functions say of the nasty sets; recorded in golden/kits.json.

The kits live in a folder of their own: ``make test-kits`` installs them without what they need and
compares the record with what they say now; ``python tests/kits.py`` with that folder on the
path writes it. Libraries that they import and their rules do not use are stand-ins here.
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
from nasty import SETS, NastySet

RECORD = Path(__file__).parent / "scoring" / "golden" / "kits.json"
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
    """Finds libraries that are not installed: modules whose names are mocks."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        absent = name.partition(".")[0] in self.names
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if absent else None

    def create_module(self, spec: Any) -> Any:
        return MagicMock(name=spec.name, __path__=[], __spec__=spec, __name__=spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Does nothing: there is nothing to run."""


def import_kits() -> None:
    """Import what is compared with, stand-ins in place of what it imports and does not use."""
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


def table(made: NastySet) -> pd.DataFrame:
    data = pd.DataFrame(made.rows).fillna("")
    data["prediction"] = [made.responses[own] for own in data["index"]]
    return data


def per_sample(data: pd.DataFrame) -> Scores:
    return {own: float(score) for own, score in zip(data["index"], data["score"], strict=True)}


def by_label(data: pd.DataFrame, metric: str, labels: tuple[str, ...]) -> Scores:
    found = {metric: 100 * float(np.mean(data["score"]))}
    for label in (one for one in labels if one in data):
        for value, part in data.groupby(label):
            if value:
                found[f"{metric}/{label}/{value}"] = 100 * float(np.mean(part["score"]))
    return found


def rated(data: pd.DataFrame, rating: str) -> pd.DataFrame:
    """Return what one of VLMEvalKit's ratings says; they read a file."""
    from vlmeval.dataset.utils import yorn

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "said.pkl"
        data.reset_index(drop=True).to_pickle(path)
        return getattr(yorn, rating)(str(path))


def extracted(made: NastySet) -> pd.DataFrame:
    from vlmeval.dataset.utils.yorn import YOrN_Extraction

    data = table(made)
    data["extracted"] = [YOrN_Extraction(text) for text in data["prediction"]]
    data["score"] = (data["extracted"] == data["answer"]).astype(float)
    return data


def pope(made: NastySet) -> Outcome:
    data = extracted(made)
    names = {"Overall": "f1", "acc": "accuracy", "precision": "precision", "recall": "recall"}
    found = {}
    for _, row in rated(data, "POPE_rating").iterrows():
        end = "" if row["split"] == "Overall" else f"/{row['split']}"
        found |= {f"{ours}{end}": float(row[theirs]) for theirs, ours in names.items()}
    return found, per_sample(data)


def pope_lmms(made: NastySet) -> Outcome:
    from lmms_eval.tasks.pope import utils

    results, scores = [], {}
    data = table(made)
    data = data.assign(category=data["category"].str.split(",")).explode("category")
    for _, row in data.iterrows():
        doc = {"answer": row["answer"], "question_id": row["index"], "category": row["category"]}
        one = utils.pope_process_results(doc, [row["prediction"]])["pope_accuracy"]
        results.append(one)
        scores[row["index"]] = float(one["score"])
    names = {"accuracy": "accuracy", "precision": "precision", "recall": "recall", "f1": "f1_score"}
    found = {o: 100 * getattr(utils, f"pope_aggregate_{t}")(results) for o, t in names.items()}
    return found, scores


def mme(made: NastySet) -> Outcome:
    data = extracted(made)
    row = dict(rated(data, "MME_rating").iloc[0])
    whole = ("perception", "reasoning")
    found = {f"score/{name}": float(v) for name, v in row.items() if name not in whole}
    found |= {"perception": float(row["perception"]), "cognition": float(row["reasoning"])}
    return found | {"total": found["perception"] + found["cognition"]}, per_sample(data)


def mme_lmms(made: NastySet) -> Outcome:
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
        for name, one in processed.items():
            part = "perception" if "percept" in name else "cognition"
            parts[part].append(one)
            scores[row["index"]] = float(one["score"])
    found = {name: float(utils.mme_aggregate_results(rows)) for name, rows in parts.items()}
    return found | {"total": sum(found.values())}, scores


def hallusionbench(made: NastySet) -> Outcome:
    data = extracted(made)
    whole = rated(data, "Hallusion_rating")
    labels = {v: n for n in ("category", "l2-category") for v in set(data[n])}
    found = {}
    for _, row in whole.iterrows():
        split = row["split"]
        end = "" if split == "Overall" else f"/{labels[split]}/{split}"
        found |= {f"{name}{end}": float(row[name]) for name in ("aAcc", "fAcc", "qAcc")}
    return found, per_sample(data)


def amber(made: NastySet) -> Outcome:
    data = extracted(made)
    row = dict(rated(data, "AMBER_rating").iloc[0])
    mean = float(row.pop("Avg ACC"))
    found = {f"accuracy/dimension/{name}": float(value) for name, value in row.items()}
    return found | {"mean_accuracy": mean}, per_sample(data)


def chosen(made: NastySet) -> pd.DataFrame:
    from vlmeval.utils.matching_util import can_infer

    data, hits = table(made), []
    for _, row in data.iterrows():
        given = {x: row[x] for x in string.ascii_uppercase if row.get(x)}
        hits.append(float(can_infer(row["prediction"], copy.copy(given)) == row["answer"]))
    data["score"] = hits
    return data


def options(made: NastySet) -> Outcome:
    data = chosen(made)
    return by_label(data, "accuracy", ("category", "l2-category", "split")), per_sample(data)


def mmbench(made: NastySet) -> Outcome:
    from vlmeval.dataset.utils.multiple_choice import mcq_circular_eval

    scored = chosen(made)
    data = table(made).replace("", np.nan)  # as its reader has it
    data["prediction"] = [made.responses[own] for own in data["index"]]
    data["index"] = data["index"].astype(int)
    with tempfile.TemporaryDirectory() as folder:
        whole = mcq_circular_eval(None, data.copy(), data.copy(), 1, f"{folder}/result.pkl")
    whole["score"] = whole["hit"].astype(float)
    found = by_label(whole, "accuracy", ("category", "l2-category"))
    base = scored[[int(own) < 1_000_000 for own in scored["index"]]]
    found["vanilla_accuracy_all"] = 100 * float(np.mean(scored["score"]))
    found["vanilla_accuracy_base"] = 100 * float(np.mean(base["score"]))
    return found, per_sample(scored)


def mmstar_lmms(made: NastySet) -> Outcome:
    from lmms_eval.tasks.mmstar import utils

    results, scores = [], {}
    for _, row in table(made).iterrows():
        doc = {"answer": row["answer"], "category": row["category"], "index": row["index"]}
        doc["l2_category"] = row["l2-category"]
        one = utils.mmstar_process_results(doc, [row["prediction"]])["average"]
        results.append(one)
        scores[row["index"]] = float(one["score"])
    return {"average": 100 * float(utils.mmstar_aggregate_results(results))}, scores


def seedbench_lmms(made: NastySet) -> Outcome:
    from lmms_eval.tasks.seedbench.utils import seed_aggregation_result, seed_process_result

    results, scores = [], {}
    for _, row in table(made).iterrows():
        doc = {"answer": row["answer"], "data_type": "all", "question_id": row["index"]}
        one = seed_process_result(doc, [row["prediction"]])["seed_all"]
        results.append(one)
        scores[row["index"]] = float(seed_aggregation_result([one]))
    return {"accuracy": 100 * float(seed_aggregation_result(results))}, scores


def scienceqa_lmms(made: NastySet) -> Outcome:
    from lmms_eval.tasks.scienceqa.utils import sqa_process_results

    scores = {}
    for _, row in table(made).iterrows():
        given = [row[x] for x in "ABCDE" if row.get(x)]
        doc = {"choices": given, "answer": "ABCDE".index(row["answer"])}
        found = sqa_process_results(doc, [row["prediction"]])["exact_match"]
        scores[row["index"]] = float(found)
    return {"accuracy": 100 * float(np.mean(list(scores.values())))}, scores


def lines(made: NastySet, dataset: str, method: str, metric: str, *labels: str) -> Outcome:
    from vlmeval.dataset.utils.vqa_eval import hit_calculate, process_line

    data = table(made)
    processed = [process_line(row, method=method) for _, row in data.iterrows()]
    data["score"] = [float(hit) for hit in hit_calculate(processed, dataset)]
    return by_label(data, metric, labels), per_sample(data)


def chartqa(made: NastySet) -> Outcome:
    return lines(made, "ChartQA_TEST", "relaxed_accuracy", "relaxed_accuracy", "split")


def chartqa_lmms(made: NastySet) -> Outcome:
    from lmms_eval.tasks.chartqa.utils import relaxed_correctness

    data = table(made)
    data["score"] = [
        float(relaxed_correctness(row["prediction"], row["answer"])) for _, row in data.iterrows()
    ]
    return by_label(data, "relaxed_accuracy", ("split",)), per_sample(data)


def textvqa(made: NastySet) -> Outcome:
    return lines(made, "TextVQA_VAL", "vqa_score", "vqa_accuracy")


def textvqa_lmms(made: NastySet) -> Outcome:
    from lmms_eval.tasks._task_utils.vqa_eval_metric import EvalAIAnswerProcessor

    plain, data, scores = EvalAIAnswerProcessor(), table(made), []
    for _, row in data.iterrows():
        said, gold = plain(row["prediction"]), [plain(one) for one in eval(row["answer"])]
        others = [gold[:n] + gold[n + 1 :] for n in range(len(gold))]
        scores.append(float(np.mean([min(1, rest.count(said) / 3) for rest in others])))
    data["score"] = scores
    return by_label(data, "vqa_accuracy", ()), per_sample(data)


def anls(made: NastySet) -> Outcome:
    return lines(made, "DocVQA_VAL", "anls", "anls")


def anls_lmms(made: NastySet) -> Outcome:
    from lmms_eval.api.metrics import anls as theirs

    data = table(made)
    data["score"] = [
        float(theirs(eval(row["answer"]), [row["prediction"]])["anls"])
        for _, row in data.iterrows()
    ]
    return by_label(data, "anls", ()), per_sample(data)


def ocrbench(made: NastySet) -> Outcome:
    from vlmeval.dataset.image_vqa import OCRBench

    def score(data: pd.DataFrame) -> Mapping[str, float]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "said.xlsx"
            data.to_pickle(path.with_suffix(".pkl"))
            with contextlib.redirect_stderr(io.StringIO()):
                return OCRBench.evaluate(str(path.with_suffix(".pkl")))

    data = table(made)
    whole = dict(score(data))
    scores = {
        row["index"]: float(score(data.iloc[n : n + 1])["Final Score"])
        for n, (_, row) in enumerate(data.iterrows())
    }
    found = {"score": float(whole.pop("Final Score"))}
    found["score_norm"] = float(whole.pop("Final Score Norm"))
    return found | {f"score/{name}": float(value) for name, value in whole.items()}, scores


def ocrbench_lmms(made: NastySet) -> Outcome:
    from lmms_eval.tasks.ocrbench.utils import ocrbench_process_results

    scores = {}
    for _, row in table(made).iterrows():
        formula = row["category"].startswith("Handwritten Math")
        doc = {"question_type": row["category"], "answer": eval(row["answer"])}
        doc |= {"question": row["question"], "dataset": "HME100k" if formula else "other"}
        one = next(iter(ocrbench_process_results(doc, [row["prediction"]]).values()))
        scores[row["index"]] = float(one["score"])
    return {"score": sum(scores.values())}, scores


def mathvista(made: NastySet) -> Outcome:
    from lmms_eval.tasks.mathvista.mathvista_evals import MathVistaEvaluator

    theirs, scores = MathVistaEvaluator.__new__(MathVistaEvaluator), {}
    for _, row in table(made).iterrows():
        given = eval(row["choices"]) if row["choices"] else []
        digits = int(float(row["precision"] or 0))
        kind, number = row["question_type"], row["answer_type"]
        said = theirs.normalize_extracted_answer(row["prediction"], given, kind, number, digits)
        scores[row["index"]] = float(theirs.safe_equal(said, row["answer"]))
    return {"accuracy": 100 * float(np.mean(list(scores.values())))}, scores


KITS: dict[tuple[str, str], Callable[[NastySet], Outcome]] = {
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
"""(benchmark, protocol) -> what the kit says of its nasty set."""


def record() -> dict[str, Any]:
    os.environ["PRED_FORMAT"] = "tsv"  # its scratch files, which else need a library for xlsx
    import_kits()
    found: dict[str, Any] = {"versions": {n: version(n) for n in ("ms-vlmeval", "lmms-eval")}}
    for (benchmark, protocol), kit in KITS.items():
        metrics, scores = kit(SETS[benchmark]())
        found[f"{benchmark} {protocol}"] = {"metrics": metrics, "per_sample": scores}
    return found


if __name__ == "__main__":
    content = record()
    RECORD.parent.mkdir(exist_ok=True)
    RECORD.write_text(
        json.dumps(content, ensure_ascii=False, separators=(",", ":")) + "\n", "utf-8"
    )

# ruff: noqa: E501, RUF001, the texts are odd on purpose
"""Benchmark data, and responses that scoring rules disagree on, generated with a fixed seed.

Every set is as its benchmark's table has it: column -> text. The responses hold what models say:
letters in every dress, refusals, punctuation that glues words together, numbers of every spelling.
"""

import base64
import csv
import io
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJg"
)
"""An image in base64, of which `image_cell` makes different ones."""


@dataclass(frozen=True)
class AdversarialSet:
    """Rows of a table, and a response to each."""

    rows: Sequence[Mapping[str, str]]
    responses: Mapping[str, str]

    def write(self, folder: Path) -> tuple[Path, Path]:
        """Write the table and the predictions, which are in another order."""
        columns = list(dict.fromkeys(name for row in self.rows for name in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, delimiter="\t", restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        data, predictions = folder / "data.tsv", folder / "mine.jsonl"
        data.write_text(text.getvalue(), encoding="utf-8")
        lines = [
            json.dumps({"id": key, "response": replies}) for key, replies in self.responses.items()
        ]
        random.Random(1).shuffle(lines)
        predictions.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        return data, predictions


def image_cell(number: int) -> str:
    return f"{PIXEL}{number:06d}=="


def red_image(colour: int) -> str:
    """Return a small red image in base64."""
    from PIL import Image

    content = io.BytesIO()
    Image.new("RGB", (4, 4), (colour, 0, 0)).save(content, "PNG")
    return base64.b64encode(content.getvalue()).decode("ascii")


YES_NO = (
    "Yes", "No", "yes.", "no!", "YES", "nO", " Yes, there is. ", "No, there isn't.", "Yes no",
    "yes and no", "", " ", "Maybe", "I cannot tell.", "yes\nno", "The answer is yes", "Answer: no",
    "**Yes**", "*no*", "'yes'", '"no"', "yes:", "no;", "(yes)", "[no]", "{yes}", "yes/no", "no-one",
    "nope", "yesterday", "know", "Not at all", "There is not a dog.", "Yes.It is", "No.It is not",
    "yes.", "３. yes", "yes，是", "no。", "はい yes", "y", "n", "Y.", "N.", "ye", "yes1,234", "no 1,234 yes",
    "1,234 yes/no", "yes?no", "yes ? no", "it's a no", "a no-brainer: yes", "no\tdoubt", "Yes yes yes",
    "no, no, no", "<yes>", "`no`", "yes@", "@yes", "yes_no", "The.no.way", "3.5 yes", "yes 3.", "-yes-",
    "The man, who is not old. Yes", "No. Yes.", "Absolutely not", "ayes", "eyes yes", "no" * 3, "N/A",
    "yes" + "." * 40 + "no", "x" + ". " * 40 + "yes",
)  # fmt: skip

OPTION_TEXTS = (
    ("cat", "dog", "bird", "fish"),
    ("None", "NA", "N/A", "null"),
    ("red", "dark red", "blue", "light blue"),
    ("A", "B", "C", "D"),
    ("a dog", "a cat", "an apple", "the bus"),
    ("yes", "no"),
    ("1", "11", "111", "1111"),
    ("007", "3", "3.0", "1e3"),
    ("above the table", "below the table", "left of the table"),
    ("Z", "zebra", "nan", "none of the above", "all of the above"),
    ("say \"hi\"", "tab\there", "line\nbreak", "comma, and; more"),
)  # fmt: skip

CHOICES = (
    "{L}", "{L}.", "({L})", "{L}. {T}", "{L}: {T}", "{T}", "The answer is {L}", "The answer is {L}.",
    "the answer is ({L}) {T}", "Answer: {L}", "**{L}**", "[{L}]", "{{{L}}}", "#{L}", "{l}", "{l}.",
    "Option {L}", "I think it is {T}.", "A {T}", "It is a {T}", "{L} or {M}", "{L} and {L}", "{L}, {M}",
    "{L} because the image shows a lot of things", "The correct answer is {L} because of that",
    "correct answer is **{L}**", "Not {M}, but {L}", "{L}{L}", "'{L}'", '"{L}"', "<{L}>", "\\boxed{{{L}}}",
    "（{L}）", "{L}。", "答案是{L}", "", " ", "Z", "z", "Z.", "none", "I don't know.",
    "Sorry, I can't help with images of people yet.", "I can't process this file. {L}",
    "I'm sorry, but without the image provided, {L}", "Cannot determine the answer",
    "Failed to obtain answer via API. {T}", "Failed to obtain answer via API {L}", "{T} {U}",
    "the answer is about {T}", "answer is {T}", "{T}" * 9, "x" * 300 + "{T}", "{L}\n\nExplanation: it is so",
    "My answer is\n{L}", "A B C D", "E", "{L})", "{L} ", "{L}:", "{L}-{T}", "{L}/{M}", "{L};{M}",
    "It has {T} but the best option is {L}", "Choose {M}? No! {L}", "I choose {L} over {M}",
)  # fmt: skip

SHORT = (
    "{A}", "{A}.", " {A} ", "{U}", "the {A}", "a {A}", "{A}\n", "The answer is {A}", "{A}!", "({A})",
    "{A}, {A}", "{A}?", "'{A}'", "{A}'s", "", " ", "{A}{A}", "{A} {A}", "{A}-", "-{A}", "{A} 1,000",
    "{A}/x", "x / {A}", "{A} .", "{A}..", "\t{A}\t", "{B}", "{B} {A}", "“{A}”", "{A}ß", "{A}x", "x{A}",
    "{A}xx", "{A}xxxx", "yx{A}",
)  # fmt: skip

ANSWERS = (
    "coca cola", "Coca-Cola", "don't stop", "dont stop", "1,000", "1000", "ten", "10", "none", "the end",
    "3.14", "3.", "U.S.A.", "what's up", "whats up", "STOP!", "a", "an apple a day", "it's", "its",
    "couldntve", "couldnt've", "ow's'at", "somebody'd", "let's go", "Straße", "1/2", "A & B", "$5", "50%",
    "half-baked", "semi - colon;", "[unclear]", "{x}", "C++", "e=mc", "<tag>", "me@home", "under_score",
    "`code`", "\"quoted\"", "two\nlines", "tab\tbed", "。", "日本", "ＡＢＣ", "0", "zero", "isnt", "yall",
)  # fmt: skip

NUMBERS = (
    "3", "3.0", "3.15", "3.1500001", "2.85", "2.8499999", "+3", "3e0", "300%", "3%", "0.03", "-3", "0",
    "0.0", "-0", "0%", "inf", "nan", "infinity", "1_000", "1000", "1,000", "$3", "3 dollars", "three",
    "2019", "2020", "1917", "Yes", "yes", "YES ", " yes", "50%%", "50%", "0.5", "50", "47.5", "52.5",
    "52.50000001", "٣", "３", "1e400", "", " ", "%", "N/A", "['3', '4']", "[3, 4]", "[red, blue]", "red",
    "Red", "red.", "[]x", "1/2", "3.", ".5", "0.475", "0.525",
)  # fmt: skip


def yes_no_rows(count: int, rng: random.Random) -> list[dict[str, str]]:
    return [
        {"index": str(n), "question": f"Is it {n}?", "answer": rng.choice(("Yes", "No"))}
        for n in range(count)
    ]


def replies(rows: Sequence[Mapping[str, str]], texts: Sequence[str]) -> dict[str, str]:
    return {row["index"]: texts[n % len(texts)] for n, row in enumerate(rows)}


def pope() -> AdversarialSet:
    rng = random.Random(11)
    rows = yes_no_rows(2 * len(YES_NO), rng)
    splits = ("random", "popular", "adversarial")
    for n, row in enumerate(rows):
        row["image"] = image_cell(n // 6) if n % 6 == 0 else rows[n - n % 6]["index"]
        row["category"] = ",".join(rng.sample(splits, rng.randint(1, 3)))
    answers = replies(rows, YES_NO)
    plain = {row["index"]: rng.choice((row["answer"], "yes", "NO ")) for row in rows[::3]}
    return AdversarialSet(rows, answers | plain)


def mme() -> AdversarialSet:
    rng = random.Random(12)
    subtasks = ("OCR", "count", "color", "code_reasoning", "text_translation")
    rows = yes_no_rows(160, rng)
    for n, row in enumerate(rows):
        pair = n // 2
        row["category"] = subtasks[pair % 5]
        row["image_path"] = f"{pair // 5:03d}.jpg"  # the same names in every subtask
        row["image"] = image_cell(pair)
    rng.shuffle(rows)
    texts = [*YES_NO, "Yes", "No", "Yes", "No"]
    answers = {r["index"]: r["answer"] if rng.random() < 0.5 else rng.choice(texts) for r in rows}
    return AdversarialSet(rows, answers)


def hallusionbench() -> AdversarialSet:
    rng = random.Random(13)
    rows = []
    for category in ("VD", "VS"):
        for kind in ("ocr", "chart", "video"):
            for number in range(3):
                for figure in range(3):
                    for question in range(2):
                        key = f"0_{category}_{kind}_{number}_{figure}_{question}"
                        rows.append(
                            {"index": key, "image": image_cell(len(rows)), "question": "Is it?",
                             "category": category, "l2-category": kind,
                             "answer": rng.choice(("Yes", "No"))}
                        )  # fmt: skip
    answers = {r["index"]: r["answer"] if rng.random() < 0.7 else rng.choice(YES_NO) for r in rows}
    return AdversarialSet(rows, answers)


def amber() -> AdversarialSet:
    rng = random.Random(14)
    kinds = (
        "discriminative-attribute-state", "discriminative-attribute-number",
        "discriminative-attribute-action", "discriminative-hallucination",
        "discriminative-relation", "relation",
    )  # fmt: skip
    rows = yes_no_rows(len(YES_NO) + 20, rng)
    for n, row in enumerate(rows):
        row |= {
            "category": kinds[n % 6],
            "image_path": f"{n // 5}.jpg",
            "image": image_cell(n // 5),
        }
    return AdversarialSet(rows, replies(rows, YES_NO))


def options(rng: random.Random, count: int) -> tuple[list[dict[str, str]], dict[str, str]]:
    rows, answers = [], {}
    for n in range(count):
        texts = OPTION_TEXTS[n % len(OPTION_TEXTS)]
        letters = "ABCDE"[: len(texts)]
        gold = rng.randrange(len(texts))
        row = {"index": str(n), "question": f"Which one is {n}?", "image": image_cell(n // 3)}
        row |= dict(zip(letters, texts, strict=True)) | {"answer": letters[gold]}
        rows.append(row)
        answers[str(n)] = choice(CHOICES[n % len(CHOICES)], row, gold, rng)
    return rows, answers


def choice(form: str, row: Mapping[str, str], gold: int, rng: random.Random) -> str:
    letters = [letter for letter in "ABCDE" if letter in row]
    predictions_file = letters[gold] if rng.random() < 0.6 else rng.choice(letters)
    other = rng.choice(letters)
    return form.format(
        L=predictions_file,
        l=predictions_file.lower(),
        M=other,
        T=row[predictions_file],
        U=row[other],
    )


def option_set(seed: int, **labels: Sequence[str]) -> AdversarialSet:
    rng = random.Random(seed)
    rows, answers = options(rng, 2 * len(CHOICES))
    for n, row in enumerate(rows):
        row |= {name.replace("_", "-"): kinds[n % len(kinds)] for name, kinds in labels.items()}
    return AdversarialSet(rows, answers)


def mmbench() -> AdversarialSet:
    rng = random.Random(15)
    rows, answers = [], {}
    for n in range(40):
        texts = OPTION_TEXTS[n % len(OPTION_TEXTS)][:4]
        letters = "ABCD"[: len(texts)]
        gold = rng.randrange(len(texts))
        careful = rng.random() < 0.6
        for copy in range(len(texts)):
            turned = [texts[(k + copy) % len(texts)] for k in range(len(texts))]
            at = (gold - copy) % len(texts)
            row = {"index": str(n + copy * 1_000_000), "question": f"Which {n}?", "hint": "Look."}
            row["image"] = str(n) if copy else image_cell(n)
            row |= dict(zip(letters, turned, strict=True)) | {"answer": letters[at]}
            row |= {"category": f"kind {n % 5}", "l2-category": f"group {n % 2}", "split": "dev"}
            rows.append(row)
            form = rng.choice(CHOICES[:6] if careful else CHOICES)
            answers[row["index"]] = (
                form.format(L=letters[at], l="x", M="A", T=turned[at], U=turned[0])
                if careful
                else choice(form, row, at, rng)
            )
    rng.shuffle(rows)
    return AdversarialSet(rows, answers)


def chartqa() -> AdversarialSet:
    rng = random.Random(16)
    rows, answers = [], {}
    for n in range(3 * len(NUMBERS)):
        gold = NUMBERS[n % len(NUMBERS)] or "3"
        row = {"index": str(n), "question": "How many?", "image": image_cell(n // 2)}
        rows.append(row | {"answer": gold, "split": ("human", "augmented")[n % 3 > 0]})
        answers[str(n)] = gold if rng.random() < 0.15 else rng.choice(NUMBERS)
    return AdversarialSet(rows, answers)


def short_answers(seed: int, answers_each: int) -> AdversarialSet:
    rng = random.Random(seed)
    rows, responses = [], {}
    for n in range(3 * len(ANSWERS)):
        item = ANSWERS[n % len(ANSWERS)]
        fields = [item if rng.random() < 0.5 else rng.choice(ANSWERS) for _ in range(answers_each)]
        row = {"index": str(n), "question": "What is written?", "image": image_cell(n // 2)}
        rows.append(row | {"answer": str(fields)})
        form = SHORT[n % len(SHORT)]
        other = rng.choice(ANSWERS)
        responses[str(n)] = form.format(A=item, U=item.upper(), B=other)
    return AdversarialSet(rows, responses)


def ocrbench() -> AdversarialSet:
    rng = random.Random(19)
    kinds = (
        "Regular Text Recognition", "Irregular Text Recognition", "Artistic Text Recognition",
        "Handwriting Recognition", "Digit String Recognition", "Non-Semantic Text Recognition",
        "Scene Text-centric VQA", "Doc-oriented VQA", "Key Information Extraction",
        "Handwritten Mathematical Expression Recognition",
    )  # fmt: skip
    formulas = (r"\frac{a}{b} + c", "x ^ 2 = 4", "A \n B", "a\tb", "X+y")
    made = short_answers(20, 2)
    rows = [dict(row) for row in made.rows]
    answers = dict(made.responses)
    for n, row in enumerate(rows):
        row["category"] = kinds[n % len(kinds)]
        if n % len(kinds) == len(kinds) - 1:
            gold = rng.choice(formulas)
            row["answer"] = str([gold])
            answers[row["index"]] = rng.choice(
                (gold, gold.replace(" ", ""), f"it is {gold} .", gold.lower(), f"${gold}$", "")
            )
    return AdversarialSet(rows, answers)


def mathvista() -> AdversarialSet:
    rng = random.Random(29)
    rows, answers = [], {}
    choices = (["3", "30", "300"], ["a cat", "a dog", "cats"], ["1.5", "2.5", "-1"], ["yes", "no"])
    texts = ("{A}", " {A} ", "({L})", "({l}) it is", "{L}", "{l}", "{A}.", "the {A}", "", "(Z)",
             "(A) or (B)", "{A} cm", "{A}0", "1e3", "nan", "inf", "-inf", "0", "2.50", "2.449", "3.0",
             "1_000", "٣", "{A}\n", "answer: {A}")  # fmt: skip
    for n in range(150):
        kind = ("option", "integer", "float", "text", "list")[n % 5]
        row = {"index": str(n), "question": "How much?", "image": image_cell(n // 2)}
        row |= {"task": ("geometry", "charts")[n % 2], "skills": "['algebra']", "choices": ""}
        row |= {"question_type": "free_form", "answer_type": kind, "precision": ""}
        letter = "A"
        if kind == "option":
            fields = choices[n // 5 % len(choices)]
            gold = rng.randrange(len(fields))
            letter, answer = "ABC"[gold], fields[gold]
            row |= {"question_type": "multi_choice", "answer_type": "text", "choices": str(fields)}
        elif kind == "float":
            digits = rng.choice((1, 2))
            answer = str(round(rng.random() * 5, digits))
            row["precision"] = f"{digits}.0"
        else:
            answer = {"integer": str(n), "text": "red", "list": "[1, 2]"}[kind]
        rows.append(row | {"answer": answer})
        form = "{A}" if rng.random() < 0.3 else rng.choice(texts)
        answers[str(n)] = form.format(A=answer, L=letter, l=letter.lower())
    return AdversarialSet(rows, answers)


SETS = {
    "pope": pope,
    "mme": mme,
    "hallusionbench": hallusionbench,
    "amber": amber,
    "mmbench": mmbench,
    "seedbench_img": lambda: option_set(21, category=("Scene", "Instance", "Count")),
    "scienceqa": lambda: option_set(22, category=("biology", "physics"), split=("test",)),
    "realworldqa": lambda: option_set(23),
    "ai2d": lambda: option_set(24),
    "mmmu": lambda: option_set(25, l2_category=("Art", "Math")),
    "mmstar": lambda: option_set(26, category=("math", "logic"), l2_category=tuple("uvwxyz")),
    "chartqa": chartqa,
    "textvqa": lambda: short_answers(17, 10),
    "infovqa": lambda: short_answers(18, 3),
    "docvqa": lambda: short_answers(28, 2),
    "ocrbench": ocrbench,
    "mathvista": mathvista,
}
"""Benchmark -> its adversarial set."""

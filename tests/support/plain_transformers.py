"""Answer questions about images with transformers alone, as a user without this project would.

Run as a script in another process; the last line of its output is JSON.
"""

import argparse
import json
import sys
from pathlib import Path

import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

OWN_PACKAGES = ("unidpo_mm", "model_adapters", "unidpo_mm_eval", "unidpo_mm_quickstart")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--processor", help="directory of the processor, if it is another one")
    parser.add_argument("--adapter", help="LoRA adapter that transformers loads")
    parser.add_argument("--peft", help="LoRA adapter that PEFT loads")
    parser.add_argument("--questions", type=Path, required=True)
    parser.add_argument("--max-new-tokens", type=int, required=True)
    options = parser.parse_args()
    model = AutoModelForImageTextToText.from_pretrained(options.model, dtype=torch.float32)
    if options.adapter:
        model.load_adapter(options.adapter)
    if options.peft:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, options.peft)
    processor = AutoProcessor.from_pretrained(options.processor or options.model)
    answers = []
    for question in map(json.loads, options.questions.read_text().splitlines()):
        image = Image.open(options.questions.parent / question["image"])
        content = [
            {"type": "image", "image": image},
            {"type": "text", "text": question["question"]},
        ]
        inputs = processor.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )
        output = model.eval().generate(
            **inputs, max_new_tokens=options.max_new_tokens, do_sample=False
        )
        answers.append(output[0, inputs["input_ids"].shape[1] :].tolist())
    imported = [name for name in sys.modules if name.split(".")[0] in OWN_PACKAGES]
    sys.stdout.write(json.dumps({"answers": answers, "imported": imported}) + "\n")


if __name__ == "__main__":
    main()

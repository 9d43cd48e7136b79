"""Map the keys of LoRA adapters as vLLM does; run by the Python of vLLM's environment.

    python vllm_names.py MODULE < KEYS

MODULE is a module of `vllm.model_executor.models`, such as ``qwen2_vl``. It is not imported, since
image models need torchvision: only its mapping of names is read. Standard input and output are a
JSON list of names; a key of a LoRA adapter becomes the name of the module that it changes.
"""

import ast
import importlib.util
import json
import sys
from pathlib import Path

from vllm.lora.utils import parse_fine_tuned_lora_name
from vllm.model_executor.models.utils import WeightsMapper

spec = importlib.util.find_spec("vllm")
source = Path(spec.origin).parent / "model_executor" / "models" / f"{sys.argv[1]}.py"
(mapping,) = [
    statement.value
    for node in ast.parse(source.read_text(encoding="utf-8")).body
    if isinstance(node, ast.ClassDef) and node.name.endswith("ForConditionalGeneration")
    for statement in node.body
    if isinstance(statement, ast.Assign)
    and ast.unparse(statement.targets[0]) == "hf_to_vllm_mapper"
]
mapper = eval(ast.unparse(mapping), {"WeightsMapper": WeightsMapper})
names = [
    parse_fine_tuned_lora_name(key, mapper)[0] if ".lora_" in key else mapper._map_name(key)
    for key in json.load(sys.stdin)
]
json.dump(names, sys.stdout)

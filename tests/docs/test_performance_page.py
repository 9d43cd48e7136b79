"""The tables of docs/performance.md equal the CSV files of the benchmarks, or the estimate."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch

from unidpo_mm.losses.uni_dpo import uni_dpo_loss

ROOT = Path(__file__).parents[2]


def program(path: str) -> ModuleType:
    """Return a module of the benchmarks, which are no package."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / "benchmarks" / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_has_the_measurements() -> None:
    module = program("results_page.py")
    (path,) = (ROOT / "benchmarks" / "results").glob("*.csv")
    _, page_tables, _ = module.split_page(module.PAGE.read_text(encoding="utf-8"))
    assert page_tables == module.tables(path), "run python benchmarks/results_page.py RESULTS.csv"


def test_the_page_has_the_results_of_gpus_or_says_that_there_are_none() -> None:
    module = program("gpu_check/page.py")
    _, text, _ = module.split_page(module.PAGE.read_text(encoding="utf-8"))
    paths = sorted(module.RESULTS.glob("*.csv"))
    assert text == module.section(paths), "run python benchmarks/gpu_check/page.py"
    assert ("arithmetic, not measured" in text) is not bool(paths)


def test_measurements_of_a_gpu_replace_the_estimate(tmp_path: Path) -> None:
    path = tmp_path / "card.csv"
    path.write_text(
        "section,case,who,quantity,value,unit,device,versions\n"
        "steps,LLaVA,ours,time,0.512345,s,a card,torch=2\n"
        "peers,all,TRL,skipped,trl is not installed,,a card,torch=2\n"
    )
    text = program("gpu_check/page.py").section([path])
    assert "Measured on a card with torch=2" in text
    assert "| LLaVA | ours | time | 0.5123 s |" in text
    assert "arithmetic" not in text


def test_the_arithmetic_agrees_with_counted_products() -> None:
    """Count the products of a small decoder with torch, forward and backward."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import AutoConfig, AutoModelForCausalLM

    module = program("gpu_check/arithmetic.py")
    decoder = module.Decoder(2, 64, 160, 4, 2, 300)
    config = AutoConfig.for_model(
        "llama",
        num_hidden_layers=2,
        hidden_size=64,
        intermediate_size=160,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=300,
    )
    # torch does not count the attention kernel of CPUs
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").model
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 50, dtype=torch.int64))
    dense = 4.0 * 2 * 64 * 50**2  # torch counts the masked half of the scores, too
    expected = 2.0 * decoder.weights * 50 + dense
    assert counter.get_total_flops() == pytest.approx(expected, rel=0.01)
    assert decoder.forward(50, ()) == pytest.approx(expected - dense / 2, rel=0.01)


def test_the_derivative_falls_as_the_page_says() -> None:
    margin = torch.tensor([0.0, 0.6, 1.0, 1.3], dtype=torch.float64, requires_grad=True)
    zero = torch.zeros(4, dtype=torch.float64)
    output = uni_dpo_loss(margin, zero, zero, zero, zero + 5, zero + 3, tau_good=9.0)
    output.per_unit.sum().backward()
    assert margin.grad is not None
    page = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    percent = [round(100 * float(value / margin.grad[0])) for value in margin.grad[1:]]
    text = " ".join(page.split())
    assert f"to {percent[0]}% of its initial value after a gain of 0.6" in text
    assert f"to {percent[1]}% after 1.0 and to {percent[2]}% after 1.3" in text

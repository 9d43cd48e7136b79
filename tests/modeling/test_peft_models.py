"""The reference of a PEFT model is the model as it was handed over, however that was done."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import batch_of, load_tiny, mixed_rows
from peft import (
    IA3Config,
    LoHaConfig,
    LoraConfig,
    PeftModel,
    PromptTuningConfig,
    VeraConfig,
    get_peft_model,
    inject_adapter_in_model,
)

from unidpo_mm.errors import ModelError
from unidpo_mm.modeling.cached_reference import FirstState, reference_fingerprint
from unidpo_mm.modeling.load import LoadedModel
from unidpo_mm.modeling.peft_models import (
    check_adapter_trains,
    check_scorable,
    is_zero,
    using_adapter,
)
from unidpo_mm.modeling.peft_saving import save_active_adapter_only
from unidpo_mm.modeling.reference import (
    FrozenCopy,
    FrozenLora,
    LoraOff,
    build_reference,
    reference_digest,
)
from unidpo_mm.modeling.scoring import ScoringModel, score

Checkpoint = Callable[[str], Path]


@pytest.fixture(scope="module")
def llama(checkpoint: Checkpoint) -> LoadedModel:
    return load_tiny(checkpoint("llama"))


def lora(**settings: Any) -> LoraConfig:
    return LoraConfig(
        **{"r": 4, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM", **settings}
    )


def adapted(loaded: LoadedModel, config: Any, **settings: Any) -> Any:
    torch.manual_seed(0)
    return get_peft_model(copy.deepcopy(loaded.model), config, **settings)


def trained(model: Any, seed: int = 0) -> Any:
    """Stands for an earlier training: every trainable weight moves."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model


def second_adapter(loaded: LoadedModel) -> Any:
    model = trained(adapted(loaded, lora()))
    model.add_adapter("second", lora(r=2))
    model.set_adapter("second")
    return trained(model, 1)


TRAINED = {
    "lora": (lambda m: trained(adapted(m, lora())), FrozenLora),
    "a name of its own": (lambda m: trained(adapted(m, lora(), adapter_name="sft")), FrozenLora),
    "second adapter": (second_adapter, FrozenLora),
    "rslora": (lambda m: trained(adapted(m, lora(use_rslora=True))), FrozenLora),
    "dora": (lambda m: trained(adapted(m, lora(use_dora=True))), FrozenLora),
    "bias of the lora": (lambda m: trained(adapted(m, lora(lora_bias=True))), FrozenLora),
    "embeddings": (
        lambda m: trained(adapted(m, lora(target_modules=["embed_tokens"]))),
        FrozenLora,
    ),
    "modules_to_save": (
        lambda m: trained(adapted(m, lora(modules_to_save=["lm_head"]))),
        FrozenLora,
    ),
    "random start": (lambda m: adapted(m, lora(init_lora_weights=False)), FrozenLora),
    "pissa": (lambda m: adapted(m, lora(init_lora_weights="pissa")), FrozenLora),
    "olora": (lambda m: adapted(m, lora(init_lora_weights="olora")), FrozenLora),
    "tokens": (
        lambda m: trained(adapted(m, lora(trainable_token_indices=list(range(4, 40))))),
        FrozenCopy,
    ),
    "biases": (lambda m: trained(adapted(m, lora(bias="all"))), FrozenCopy),
    "parameters": (
        lambda m: trained(adapted(m, lora(target_parameters=["mlp.up_proj.weight"]))),
        FrozenCopy,
    ),
    "ia3": (
        lambda m: trained(adapted(m, IA3Config(target_modules=["v_proj"], feedforward_modules=[]))),
        FrozenCopy,
    ),
    "loha": (lambda m: trained(adapted(m, LoHaConfig(r=2, target_modules=["q_proj"]))), FrozenCopy),
    "vera": (lambda m: trained(adapted(m, VeraConfig(r=2, target_modules=["q_proj"]))), FrozenCopy),
}
FRESH = {
    "lora": lora(),
    "gaussian": lora(init_lora_weights="gaussian"),
    "embeddings": lora(target_modules=["embed_tokens", "q_proj"]),
    "modules_to_save": lora(modules_to_save=["lm_head"]),
}


@pytest.mark.parametrize("name", TRAINED)
def test_the_reference_is_the_model_as_it_was_handed_over(
    llama: LoadedModel, tmp_path: Path, name: str
) -> None:
    build, kind = TRAINED[name]
    model = build(llama)
    flags = {n: p.requires_grad for n, p in model.named_parameters()}
    scorer = ScoringModel(model)
    batch = batch_of(llama, mixed_rows(pictures=False))
    with torch.no_grad():
        first = score(scorer.eval(), llama.adapter, batch)
        with using_adapter(model, None):  # the reference of old
            bare = score(scorer, llama.adapter, batch)
    assert (first - bare).abs().max() > 1e-3
    reference = build_reference("auto", scorer.train(), llama.adapter)
    assert type(reference) is kind
    assert torch.equal(reference.token_logps(scorer, batch), first)
    trained(model, 2)
    assert torch.equal(reference.token_logps(scorer, batch), first)
    with torch.no_grad():
        moved = score(scorer.eval(), llama.adapter, batch)
    assert (moved - first).abs().max() > 1e-4
    now = {n: p.requires_grad for n, p in model.named_parameters()}
    assert {n: flag for n, flag in now.items() if n in flags} == flags
    assert not any(flag for n, flag in now.items() if n not in flags)

    save_active_adapter_only(model)
    model.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    again = PeftModel.from_pretrained(copy.deepcopy(llama.model), tmp_path)
    with torch.no_grad():
        loaded = score(ScoringModel(again).eval(), llama.adapter, batch)
    assert torch.allclose(loaded, moved, atol=1e-5)


@pytest.mark.parametrize("name", FRESH)
def test_an_adapter_that_changes_nothing_is_switched_off(llama: LoadedModel, name: str) -> None:
    scorer = ScoringModel(adapted(llama, FRESH[name])).eval()
    batch = batch_of(llama, mixed_rows(pictures=False))
    reference = build_reference("auto", scorer, llama.adapter)
    assert isinstance(reference, LoraOff)
    assert reference_digest(reference) == "base"
    with torch.no_grad():
        first = score(scorer, llama.adapter, batch)
    assert torch.equal(reference.token_logps(scorer, batch), first)


def test_one_weight_that_is_not_zero_is_seen(llama: LoadedModel) -> None:
    model = adapted(llama, lora(modules_to_save=["lm_head"]))
    assert is_zero(model)
    for part in ("lora_B", "lm_head.modules_to_save"):
        weight = next(p for n, p in model.named_parameters() if part in n)
        with torch.no_grad():
            weight[0, 0] += 1e-3
            assert not is_zero(model)
            weight[0, 0] -= 1e-3
            if part == "lora_B":
                weight.zero_()


def test_a_frozen_lora_shares_the_base_model(llama: LoadedModel) -> None:
    model = trained(adapted(llama, lora()))
    before = sum(p.numel() for p in model.parameters())
    adapter = sum(p.numel() for p in model.parameters() if p.requires_grad)
    build_reference("auto", ScoringModel(model), llama.adapter)
    assert sum(p.numel() for p in model.parameters()) == before + adapter
    assert model.active_adapters == ["default"]


def test_two_runs_of_one_model_have_their_own_references(llama: LoadedModel) -> None:
    model = trained(adapted(llama, lora()))
    scorer = ScoringModel(model).eval()
    batch = batch_of(llama, mixed_rows(pictures=False))
    first = build_reference("auto", scorer, llama.adapter)
    before = first.token_logps(scorer, batch)
    trained(model, 1)
    second = build_reference("auto", scorer, llama.adapter)
    assert torch.equal(first.token_logps(scorer, batch), before)
    assert not torch.allclose(second.token_logps(scorer, batch), before)
    assert reference_digest(first) != reference_digest(second)


def test_a_chosen_lora_off_warns_where_the_lora_is_not_zero(
    llama: LoadedModel, caplog: pytest.LogCaptureFixture
) -> None:
    scorer = ScoringModel(trained(adapted(llama, lora())))
    assert isinstance(build_reference("lora_off", scorer, llama.adapter), LoraOff)
    assert "margins do not start at 0" in caplog.text


def test_lora_off_is_refused_where_the_base_model_was_changed(llama: LoadedModel) -> None:
    scorer = ScoringModel(adapted(llama, lora(init_lora_weights="pissa")))
    with pytest.raises(ModelError, match=r"'pissa' changed the base model's weights"):
        build_reference("lora_off", scorer, llama.adapter)


def test_the_cache_distinguishes_adapters(llama: LoadedModel) -> None:
    def fingerprint(model: Any, source: Any = None) -> str:
        scorer = ScoringModel(model)
        source = source or build_reference("auto", scorer, llama.adapter)
        return reference_fingerprint(source, scorer, compute_dtype=torch.float32)[0]

    plain = copy.deepcopy(llama.model)
    base = fingerprint(plain, FirstState(llama.adapter))
    assert fingerprint(adapted(llama, lora())) == base
    sft = fingerprint(trained(adapted(llama, lora())))
    assert sft == fingerprint(trained(adapted(llama, lora())))
    assert sft == fingerprint(trained(adapted(llama, lora())), FirstState(llama.adapter))
    others = {
        fingerprint(trained(adapted(llama, lora()), 1)),
        fingerprint(trained(adapted(llama, lora(lora_alpha=16)))),
        fingerprint(trained(adapted(llama, lora(modules_to_save=["lm_head"])))),
    }
    assert len({base, sft, *others}) == 5


def test_ddp_trains_beside_a_frozen_lora(llama: LoadedModel, tmp_path: Path) -> None:
    import torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel

    store = dist.FileStore(str(tmp_path / "store"), 1)
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        scorer = ScoringModel(trained(adapted(llama, lora())))
        reference = build_reference("auto", scorer, llama.adapter)
        wrapped = DistributedDataParallel(scorer)  # every trainable weight has to get a gradient
        batch = batch_of(llama, mixed_rows(pictures=False))
        for _ in range(2):
            reference.token_logps(wrapped, batch)
            score(wrapped, llama.adapter, batch).sum().backward()
        assert all(p.grad is not None for p in scorer.parameters() if p.requires_grad)
    finally:
        dist.destroy_process_group()


# ---- refusals ----


def disabled(loaded: LoadedModel) -> Any:
    model = trained(adapted(loaded, lora()))
    model.base_model.disable_adapter_layers()
    return model


def merged(loaded: LoadedModel) -> Any:
    model = trained(adapted(loaded, lora()))
    model.merge_adapter()
    return model


def two_active(loaded: LoadedModel) -> Any:
    model = second_adapter(loaded)
    model.base_model.set_adapter(["default", "second"])
    return model


def frozen(loaded: LoadedModel) -> Any:
    return adapted(loaded, lora()).requires_grad_(False)


def only_inactive(loaded: LoadedModel) -> Any:
    model = second_adapter(loaded)
    model.set_requires_grad("second", False)
    model.set_requires_grad("default", True)
    return model


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (disabled, r"'default' is disabled.*enable_adapter_layers"),
        (merged, r"'default' is merged into the base model.*unmerge_adapter"),
        (two_active, r"several adapters are active \('default', 'second'\)"),
        (frozen, r"no weight of the PEFT model is trainable.*is_trainable=True"),
        (only_inactive, r"only the adapter 'default' is trainable.*set_adapter\('default'\)"),
    ],
)
def test_an_adapter_that_would_get_no_gradients_is_refused(
    llama: LoadedModel, build: Any, message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        check_adapter_trains(build(llama))


def test_models_that_work_only_through_peft_are_refused(llama: LoadedModel) -> None:
    prompt = PromptTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM")
    with pytest.raises(ModelError, match="model: PROMPT_TUNING puts virtual tokens before"):
        check_scorable(adapted(llama, prompt), "model")
    with pytest.raises(ModelError, match="activated LoRA"):
        check_scorable(adapted(llama, lora(alora_invocation_tokens=[5, 6])), "model")
    with pytest.raises(ModelError, match="a PeftMixedModel cannot be saved"):
        check_scorable(adapted(llama, lora(), mixed=True), "model")
    inside = copy.deepcopy(llama.model)
    # as `inside.add_adapter(lora())`, which transformers 5.24 refuses with every released PEFT
    inject_adapter_in_model(lora(), inside)
    inside._hf_peft_config_loaded = True
    with pytest.raises(ModelError, match=r"loaded into the transformers model itself"):
        check_scorable(inside, "model")
    with pytest.raises(ModelError, match=r"base model of a PEFT model.*Pass the PeftModel"):
        check_scorable(adapted(llama, lora()).get_base_model(), "model")

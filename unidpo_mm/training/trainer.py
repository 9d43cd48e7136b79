"""`UniDPOTrainer`: a thin subclass of transformers' Trainer without any mathematics.

Functions do the work: `setup.py` prepares model and data, `step.py` computes the loss of a batch,
`metrics.py` adds up metrics. The training loop, gradient accumulation, clipping, schedules, saving,
resuming, `report_to`, DDP, FSDP and DeepSpeed are inherited from transformers.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import PrinterCallback, ProgressCallback, TrainerCallback
from transformers.trainer_utils import EvalLoopOutput, TrainOutput, set_seed

from ..adapter import fillers, tower_inputs
from ..config.python import UniDPOConfig
from ..data.batches import GroupBatchSampler, GroupDataset
from ..data.collate import GroupCollator
from ..data.load import rows_from_records
from ..data.workers import batch_of, explained_failures, protect_worker
from ..distributed import first_process
from ..errors import DataError, ModelError, Problem
from ..modeling.logp_model import LogpModel
from ..modeling.parts import set_learning_rates
from ..modeling.placement import place_batch
from ..modeling.references.cached import CachedReference
from ..records import GroupBatch
from .callbacks import TRAINER_CALLBACKS
from .console import ConsoleProgress
from .evaluation import (
    SAMPLES_FILE,
    evaluate_pairs,
    generate_samples,
    pick_samples,
    write_samples,
)
from .metrics import MetricSums, Throughput, policy_only_change
from .numerical_watch import NumericalWatch
from .observers import Observer
from .resuming import CheckpointedTrainer
from .run_parts import LayoutChoice, RunParts
from .setup import prepare_run
from .startup_checks import check_start, layers_to_share
from .step import StepOutput, preference_step

__all__ = ["UniDPOTrainer"]


class UniDPOTrainer(CheckpointedTrainer):
    """Preference tuning of text and vision-language models.

    Args:
        model: The name or directory of a model, or a loaded causal or image-text-to-text model.
        args: Settings; `None` for the defaults of `UniDPOConfig`.
        train_dataset: A `datasets.Dataset`, or a list of dicts or `PreferenceRow`s, with the
            columns of `unidpo_mm.data.formats`.
        eval_dataset: Held-out data of the same kind, or a dict of several such data sets, whose
            metrics are called ``eval_NAME_...``; see also `UniDPOConfig.eval_fraction`.
        processing_class: Processor or tokenizer; `None` to load that of the model.
        ref_model: The reference; `None` for the policy as it is before training.
        peft_config: A `peft.LoraConfig` or `unidpo_mm.config.LoraOptions`.
        callbacks: As in transformers.
        observers: Objects that are called with every micro-batch, see
            `unidpo_mm.training.observers`.
        **kwargs: Further arguments of transformers' Trainer, for example `optimizers`.

    Raises:
        UniDPOError: If a setting, a row or the model cannot be used; raised before training starts.
    """

    args: UniDPOConfig
    model: LogpModel
    train_dataset: GroupDataset
    eval_dataset: GroupDataset | dict[str, GroupDataset] | None

    loss_is_scaled_for_ga = True
    """Tells transformers not to divide the loss by the accumulation steps again: `compute_loss`
    already divides it by the number of units in the optimizer step."""

    def __init__(
        self,
        model: str | nn.Module,
        args: UniDPOConfig | None = None,
        *,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        ref_model: str | nn.Module | None = None,
        peft_config: Any = None,
        callbacks: list[TrainerCallback] | None = None,
        observers: Sequence[Observer] = (),
        **kwargs: Any,
    ) -> None:
        args = args or UniDPOConfig(output_dir="out")
        set_seed(args.seed)  # a new LoRA adapter is drawn before transformers sets the seed
        self.parts = prepare_run(
            model,
            args,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            ref_model=ref_model,
            peft_config=peft_config,
        )
        parts = self.parts
        super().__init__(
            model=parts.logp_model,
            args=args,
            train_dataset=GroupDataset(parts.train_rows, parts.adapter),
            eval_dataset=_evaluation_sets(parts),
            processing_class=parts.adapter.processor,
            callbacks=[*(kind(self) for kind in TRAINER_CALLBACKS), *(callbacks or [])],
            **kwargs,
        )
        self.layout = self._check_start()
        self._prepare_saving()
        self.data_collator = self.collator = self._new_collator()
        self.observers = observers
        self._set_up_measurement()
        for callback in callbacks or ():
            if hasattr(callback, "attach"):
                callback.attach(self)

    def _set_up_measurement(self) -> None:
        """Set up metrics, checks for NaN and infinity, throughput and console output."""
        args, loss = self.args, self.parts.settings.loss
        self.train_sums = MetricSums(loss, args.device)
        self.metrics_before = self.train_sums.table
        self.watch = NumericalWatch(loss.unit, args.device)
        self.units = torch.zeros(())
        self.throughput = Throughput()
        self.remove_callback(PrinterCallback if args.disable_tqdm else ProgressCallback)
        self.progress = ConsoleProgress(bar=not args.disable_tqdm)
        self.add_callback(self.progress)
        self.first_evaluation: dict[str, dict[str, float]] = {}

    def _check_start(self) -> LayoutChoice:
        """Check sharding and the log-probs of the model, and return the layout of the run."""
        _check_fsdp(self.args, self.accelerator)
        if self.place_model_on_device:
            choice = check_start(self.parts, self.args, self.args.device)
            self.shared_layers = layers_to_share(
                self.parts, self.args, choice.layout, self.args.device
            )
            return choice
        if self.is_deepspeed_enabled:
            return LayoutChoice("plain", "DeepSpeed holds the weights, so layouts are not compared")
        # FSDP shards later: now the first process still has all weights
        return first_process(lambda: check_start(self.parts, self.args, "cpu"))

    # ---- data ----

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Return micro-batches of complete groups, the same number on every process."""
        if not len(self.train_dataset):
            raise DataError(
                Problem("train_dataset", "the training set is empty", "Pass train_dataset")
            )
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        return self._loader(self.train_dataset, self.args.per_device_train_batch_size, seed=seed)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader[Any]:
        """Return micro-batches of held-out groups, in the order of the data set.

        Args:
            eval_dataset: Rows, or the name of one of the evaluation sets; `None` for the
                evaluation set of the trainer.
        """
        dataset = self.eval_dataset if eval_dataset is None else eval_dataset
        if isinstance(dataset, str) and isinstance(self.eval_dataset, dict):
            dataset = self.eval_dataset[dataset]
        if dataset is None:
            remedy = "Pass eval_dataset, or set eval_fraction"
            raise DataError(Problem("eval_dataset", "there is no evaluation set", remedy))
        if not isinstance(dataset, GroupDataset):
            dataset = GroupDataset(rows_from_records(dataset), self.parts.adapter)
        return self._loader(dataset, self.args.per_device_eval_batch_size)

    def _new_collator(self) -> GroupCollator:
        """Return the collator of the run.

        With several processes, a filler with an image, and in a run with videos one with a video,
        makes every batch use every part of the model, so that gradients are reduced over the same
        parameters on all of them.
        """
        parts, adapter = self.parts, self.parts.adapter
        several = self.accelerator.num_processes > 1
        has_videos = any(row.videos for row in (*parts.train_rows, *parts.eval_rows))
        return GroupCollator(
            pad_token_id=adapter.pad_token_id,
            padding_side=self.args.padding_side,
            layout=self.layout.layout,
            media_once=parts.logp_model.takes_features,
            tower_inputs=tower_inputs(adapter),
            keyed=parts.features is not None or isinstance(parts.reference, CachedReference),
            fillers=fillers(adapter, videos=has_videos) if several else {},
        )

    def _loader(
        self, dataset: GroupDataset, batch_size: int, *, seed: int | None = None
    ) -> DataLoader[Any]:
        """Return a loader; without a seed, groups keep the order of the data set."""
        args = self.args
        sampler = GroupBatchSampler(
            dataset,
            [len(row.pairs) or len(row.responses) for row in dataset.rows],
            batch_size,
            seed=seed,
            multiple_of=self.accelerator.num_processes,
        )
        loader = DataLoader(
            dataset,
            batch_sampler=sampler,
            collate_fn=self.collator,
            num_workers=args.dataloader_num_workers or 0,
            pin_memory=args.dataloader_pin_memory,
            persistent_workers=args.dataloader_persistent_workers,
            prefetch_factor=args.dataloader_prefetch_factor,
            timeout=args.worker_timeout if args.dataloader_num_workers else 0,
            worker_init_fn=protect_worker,
        )
        prepared: DataLoader[Any]
        if self.is_deepspeed_enabled:  # it does not allow another placement
            prepared = self.accelerator.prepare(loader)
        else:  # `compute_loss` moves the batches, once
            prepared = self.accelerator.prepare_data_loader(loader, device_placement=False)
        return prepared

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Tensor]:
        """Return the micro-batches of an optimizer step and its units, summed over processes."""
        self.throughput.start_step(self.state.global_step)
        samples, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        unit = self.parts.settings.loss.unit
        weights = [batch_of(item).units(unit).weight.sum() for item in samples]
        dtype = torch.float32 if device.type == "mps" else torch.float64
        local_units = torch.full((), float(sum(weights, torch.zeros(()))), dtype=dtype)
        self.watch.start_step()
        if self.args.on_nonfinite == "skip":
            self.metrics_before = self.train_sums.table.clone()
        total = self.accelerator.gather(local_units.to(device, non_blocking=True)).sum()
        self.throughput.count(total)
        self.units = total
        return samples, total

    # ---- the step ----

    def train(self, *args: Any, **kwargs: Any) -> TrainOutput:
        """Train, or resume; see `CheckpointedTrainer.train`."""
        with explained_failures(self.train_dataset.reading_log, self.train_dataset.rows):
            return super().train(*args, **kwargs)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Return this process's share of the mean loss of the optimizer step."""
        batch = self.place(batch_of(inputs))
        with self.accelerator.autocast():
            output = self.preference_step(model, batch)
        observers: list[Observer] = [self.watch, self.train_sums, *self.observers]
        for observer in observers:
            observer.on_step(batch, output)
        units = torch.as_tensor(
            output.weight.sum() if num_items_in_batch is None else num_items_in_batch
        )
        # accelerate averages gradients over processes, but the mean is over the units of all of
        # them: multiply by their number. A step in which all weights are 0 changes nothing.
        loss = output.loss_sum * self.accelerator.num_processes / torch.where(units > 0, units, 1)
        return (loss, output) if return_outputs else loss

    def place(self, batch: GroupBatch) -> GroupBatch:
        """Return a batch of a loader on the device of this process."""
        parts = self.parts
        return place_batch(batch, parts.logp_model, parts.adapter, self.args.device)

    def preference_step(self, model: nn.Module, batch: GroupBatch) -> StepOutput:
        """Compute the loss of each unit of a batch; see `step.preference_step`."""
        return preference_step(
            model,
            batch,
            adapter=self.parts.adapter,
            settings=self.parts.settings,
            reference=self.parts.reference,
            features=self.parts.features,
            shared_layers=self.shared_layers,
        )

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        """Run forward and backward pass of a micro-batch and return its loss.

        If `on_nonfinite` is ``skip``, a loss that is not finite counts as 0: transformers adds up
        the losses of the log, and a single NaN would never leave that sum.
        """
        loss: Tensor = super().training_step(*args, **kwargs)
        if self.args.on_nonfinite == "skip":
            loss = torch.where(torch.isfinite(loss), loss, 0.0)
        return loss

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm)  # type: ignore[no-untyped-call]
        self.watch.set_grad_norm(norm)
        return norm

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Create the optimizer, with the learning rates of `args.learning_rates`."""
        fresh = self.optimizer is None
        optimizer: torch.optim.Optimizer = super().create_optimizer(model)
        if fresh and self.args.learning_rates:
            set_learning_rates(
                optimizer, model or self.model, self.args.learning_rates, self.parts.family
            )
        return optimizer

    # ---- evaluation and logs ----

    def evaluation_loop(
        self,
        dataloader: DataLoader[Any],
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Return the metrics of all held-out pairs, and write sample responses to disk."""
        model = self._model_to_evaluate()
        dataset: Any = dataloader.dataset
        sums = MetricSums(self.parts.settings.loss, self.args.device)
        explained = explained_failures(dataset.reading_log, dataset.rows)
        with explained, self.accelerator.autocast():
            batches = map(self.place, map(batch_of, dataloader))
            evaluate_pairs(model, batches, self.preference_step, sums)
        means = sums.means()
        first = self.first_evaluation.setdefault(metric_key_prefix, means)
        means |= policy_only_change(means, first)
        self._write_samples(dataset)
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in means.items()}
        nothing: Any = None  # no predictions are kept: metrics are sums and counts
        return EvalLoopOutput(nothing, nothing, metrics, len(dataset))

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log values; with a loss, also the metrics since the last log, speed and time left."""
        if "loss" in logs:
            self.train_sums.reduce()
            means = self.train_sums.means()
            means.pop("loss", None)
            self.train_sums = MetricSums(self.parts.settings.loss, self.args.device)
            unit = self.parts.settings.loss.unit
            pace = self.throughput.measure(self.state.global_step, self.state.max_steps, unit)
            logs = {**logs, **means, **pace}
        super().log(logs, start_time)

    def _model_to_evaluate(self) -> nn.Module:
        """Return the model as accelerate prepared it; prepare it if training has not."""
        if not self.is_in_train and not self.accelerator._models:
            if self.is_fsdp_enabled or self.is_deepspeed_enabled:
                self.model_wrapped = self.accelerator.prepare(self.model)
            else:
                self.model_wrapped = self.accelerator.prepare_model(
                    self.model, evaluation_mode=True
                )
        wrapped: nn.Module = self.model_wrapped
        return wrapped

    def _write_samples(self, dataset: GroupDataset) -> None:
        rows = pick_samples(dataset.rows, self.args.eval_generations)
        if not rows:
            return
        samples = generate_samples(
            self.model,
            self.parts.adapter,
            rows,
            max_new_tokens=self.args.eval_max_new_tokens,
            device=self.args.device,
        )
        if self.is_world_process_zero():
            path = Path(self.args.output_dir or "") / SAMPLES_FILE
            write_samples(path, samples, step=self.state.global_step)
            if not self.args.disable_tqdm:
                self.progress.show_samples(samples)


def _evaluation_sets(parts: RunParts) -> Any:
    """Return one evaluation set, a dict of several, or `None`, as transformers expects it."""
    if parts.eval_sets:
        sets = parts.eval_sets.items()
        return {name: GroupDataset(rows, parts.adapter) for name, rows in sets}
    return GroupDataset(parts.eval_rows, parts.adapter) if parts.eval_rows else None


def _check_fsdp(args: UniDPOConfig, accelerator: Any) -> None:
    """Raise ModelError if `args.fsdp` is set and accelerate does not use FSDP, as on a CPU."""
    if args.fsdp and accelerator.distributed_type.value != "FSDP":
        problem = f"it is set, but accelerate uses {accelerator.distributed_type.value}"
        remedy = "Start with an FSDP configuration on GPUs, or remove fsdp"
        raise ModelError(Problem("train.fsdp", problem, remedy))

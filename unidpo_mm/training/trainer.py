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
from torch.utils.data import DataLoader, Sampler
from transformers import PrinterCallback, ProgressCallback, TrainerCallback
from transformers.trainer_utils import EvalLoopOutput, TrainOutput, set_seed

from ..config.python import UniDPOConfig
from ..data.batches import GroupDataset
from ..data.collate import COUNTS
from ..data.load import rows_from_records
from ..data.stream_batches import StreamDataset
from ..data.views import view_problems
from ..data.workers import batch_of, explained_failures
from ..errors import DataError, Problem
from ..modeling.liger import already_applied
from ..modeling.logp_model import LogpModel
from ..modeling.parts import compute_dtype, set_learning_rates
from ..modeling.placement import place_batch
from ..records import GroupBatch, PreferenceRow
from .callbacks import TRAINER_CALLBACKS
from .console import ConsoleProgress
from .evaluation import (
    SAMPLES_FILE,
    evaluate_pairs,
    generate_samples,
    pick_samples,
    write_samples,
)
from .loaders import (
    evaluation_sets,
    new_collator,
    new_loader,
    train_sampler,
    training_set,
    unit_sampler,
)
from .loss_rows import units_of
from .metrics import MetricSums, policy_only_change
from .numerical_watch import NumericalWatch
from .observers import Observer
from .preparing import PreparingTrainer
from .setup import prepare_run
from .step import StepOutput, preference_step
from .throughput import Throughput, model_flops, peak_flops

__all__ = ["UniDPOTrainer"]


class UniDPOTrainer(PreparingTrainer):
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
    train_dataset: GroupDataset | StreamDataset
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
            train_dataset=training_set(parts, args),
            eval_dataset=evaluation_sets(parts),
            processing_class=parts.adapter.processor,
            callbacks=[*(kind(self) for kind in TRAINER_CALLBACKS), *(callbacks or [])],
            **kwargs,
        )
        self._check_unprepared()
        self._prepare_saving()
        self.data_collator = self.collator = new_collator(
            parts, args, self.layout.layout, processes=self.accelerator.num_processes
        )
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
        self.throughput = self._new_throughput()
        self.remove_callback(PrinterCallback if args.disable_tqdm else ProgressCallback)
        self.progress = ConsoleProgress(bar=not args.disable_tqdm)
        self.add_callback(self.progress)
        self.first_evaluation: dict[str, dict[str, float]] = {}

    def _new_throughput(self) -> Throughput:
        """Return the meter of the speed; it knows the use of the device if its peak is known."""
        args, logp_model = self.args, self.parts.logp_model
        peak = peak_flops(args.device_peak_tflops, args.device, compute_dtype(args, logp_model))
        if peak is None:
            return Throughput()
        flops = model_flops(logp_model, self.parts.reference, self.shared_layers)
        return Throughput(flops, peak * args.world_size)

    # ---- data ----

    def get_train_dataloader(self, *, read_once: bool = False) -> DataLoader[Any]:
        """Return micro-batches of complete groups, the same number on every process.

        Args:
            read_once: Whether the loader is read a single time.
        """
        if not len(self.train_dataset):
            raise DataError(
                Problem("train_dataset", "the training set is empty", "Pass train_dataset")
            )
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        layout, processes = self.layout.layout, self.accelerator.num_processes
        sampler = train_sampler(
            self.train_dataset, self.parts, self.args, layout, seed=seed, processes=processes
        )
        return self._loader(sampler, self.train_dataset, read_once=read_once)

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
            dataset = GroupDataset(self._units_of(dataset), self.parts.adapter)
        size, processes = self.args.per_device_eval_batch_size, self.accelerator.num_processes
        sampler = unit_sampler(dataset, size, processes=processes)
        return self._loader(sampler, dataset, read_once=True)  # every evaluation makes a new one

    def _units_of(self, dataset: Any) -> Sequence[PreferenceRow]:
        """Return other rows for evaluation, with the units of the loss."""
        rows, loss = rows_from_records(dataset), self.parts.settings
        if loss.loss.unit == "response":
            return rows
        if problems := [*loss.check_rows(rows), *view_problems(rows, self.args.image_term)]:
            raise DataError(problems)
        size, others = self.args.per_device_eval_batch_size, self.parts.train_rows
        return units_of(rows, self.args, loss, max_units=size, others=others)

    def _loader(
        self,
        sampler: Sampler[list[int]],
        dataset: GroupDataset | StreamDataset,
        *,
        read_once: bool,
    ) -> DataLoader[Any]:
        """Return a loader of the micro-batches of a sampler; `compute_loss` moves them, once."""
        loader = new_loader(sampler, dataset, self.collator, self.args, read_once=read_once)
        prepared: DataLoader[Any]
        prepared = self.accelerator.prepare_data_loader(loader, device_placement=False)
        if read_once:  # accelerate would keep it, and the data that its workers hold
            self.accelerator._dataloaders.remove(prepared)
        return prepared

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Tensor]:
        """Return the micro-batches of an optimizer step and its units, summed over processes."""
        self.throughput.start_step(self.state.global_step)
        samples, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        if samples and "stream" in samples[-1]:
            self.stream_state = samples[-1]["stream"]
        unit = self.parts.settings.loss.unit
        weights = [batch_of(item).units(unit).weight.sum() for item in samples]
        units = float(sum(weights, torch.zeros(())))
        counts = [sum(item.get("counts", {}).get(name, 0) for item in samples) for name in COUNTS]
        dtype = torch.float32 if device.type == "mps" else torch.float64
        local = torch.tensor([[units, *counts]], dtype=dtype).to(device, non_blocking=True)
        self.watch.start_step()
        if self.ledger:
            self.ledger.start_step(self.state.global_step + 1, self.state.epoch or 0.0)
        if self.args.on_nonfinite == "skip":
            self.metrics_before = self.train_sums.table.clone()
        sums = self.accelerator.gather(local).sum(0)
        self.throughput.count(sums)
        total = sums[0]
        self.units = total
        return samples, total

    # ---- the step ----

    def train(self, *args: Any, **kwargs: Any) -> TrainOutput:
        """Train, or resume; see `CheckpointedTrainer.train`."""
        failures = explained_failures(self.train_dataset.reading_log, self.train_dataset.rows)
        with failures, already_applied():
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
        if self.ledger:
            observers.append(self.ledger)
        for observer in observers:
            observer.on_step(batch, output)
        self._check_last_loss()
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
            if self.ledger:
                self.ledger.flush()
            self.train_sums.reduce()
            means = self.train_sums.means()
            means.pop("loss", None)
            self.train_sums = MetricSums(self.parts.settings.loss, self.args.device)
            unit = self.parts.settings.loss.unit
            pace = self.throughput.measure(self.state.global_step, self.state.max_steps, unit)
            logs = {**logs, **means, **pace}
        super().log(logs, start_time)

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

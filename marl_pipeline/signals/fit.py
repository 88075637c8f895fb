"""Supervised signals, cross-fitted in time: every probability comes from a model whose labels ended before it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from marl_pipeline.checkpoint import Checkpointer
from marl_pipeline.config import SLSignalsParams
from marl_pipeline.data.dataset import BoolArray, Dataset, Float32Array, FloatArray, IntArray, Signals
from marl_pipeline.data.windows import Refit, expanding_refits
from marl_pipeline.errors import UserError
from marl_pipeline.progress import OnStep
from marl_pipeline.seeding import forked, stream_seed
from marl_pipeline.signals.calibration import fit_temperature, log_loss, log_softmax
from marl_pipeline.signals.labels import CLASSES, UNKNOWN, Labels, label
from marl_pipeline.signals.models import build
from marl_pipeline.signals.samples import Samples, Windows
from marl_pipeline.signals.scores import out_of_sample

CHUNK = 1024
"""Rows of every forward pass outside training, the last one padded: bits do not depend on how many are asked."""

LEAST_SAMPLES = 100
"""A fit on fewer rows, or a calibration on fewer, does not take place and its bars stay without a signal."""

MAX_GRAD_NORM = 1.0


@dataclass(frozen=True)
class FittedModel:
    """One classifier as fitted at one refit.

    Attributes:
        model: its name.
        refit: what it saw and when it is valid.
        weights: of `signals.models.build`.
        temperature: logits are divided by it.
        prior: [3] class shares of the fit sample.
        samples: rows it was fitted on.
        metrics: calibration losses before and after scaling, and the scores on the bars at which it is valid
            (`oos_...`).
    """

    model: str
    refit: Refit
    weights: dict[str, Tensor]
    temperature: float
    prior: FloatArray
    samples: int
    metrics: dict[str, float]


@dataclass(frozen=True)
class _Task:
    """What one refit of one model works with."""

    model: str
    refit: Refit
    fit: Samples
    calibration: Samples
    windows: Windows
    labels: Labels
    params: SLSignalsParams
    seed: int
    device: torch.device

    @property
    def stream(self) -> str:
        return f"signals {self.model} refit {self.refit.version}"

    def classes(self, samples: Samples) -> IntArray:
        return self.labels.classes[samples.bar, samples.symbol]


def fit_signals(
    dataset: Dataset,
    params: SLSignalsParams,
    *,
    window: int,
    embargo: int,
    seed: int,
    device: torch.device,
    on_step: OnStep,
    checkpoint: Checkpointer,
) -> tuple[Signals, tuple[FittedModel, ...]]:
    """Fits every model at bar `first_fit` and every `refit_every` bars, on all bars before less the embargo.

    The tail of each fit span (`calibration_fraction`) is left out of the fit and sets the temperature; labels of the
    fit part end before it begins. The fitted model is valid until the next takes over. Ends in the same bits
    whether or not it was interrupted.

    Raises:
        UserError: no refit has enough labelled rows.
    """
    refits = expanding_refits(params.first_fit, params.refit_every, dataset.bars, embargo)
    labels = label(dataset.panel, params.horizon, params.threshold)
    windows = Windows.of(dataset, window, device)
    probabilities = np.full((*dataset.valid.shape, len(params.models), 3), 1 / 3, dtype=np.float32)
    available = np.zeros(dataset.valid.shape, dtype=np.bool_)
    fitted: list[FittedModel] = []
    for place, model in enumerate(params.models):
        for refit in refits:
            task = _task(dataset, labels, windows, params, model, refit, seed, device)
            if task is None:
                continue
            own = _fit(task, f"{model} refit {refit.version + 1}/{len(refits)}", on_step, checkpoint)
            covered, said = predict_valid_bars(own, dataset, windows, params.dropout, device)
            rows = slice(refit.valid_bars.start, refit.valid_bars.stop)
            probabilities[rows, :, place] = said
            available[rows] = covered
            scores = out_of_sample(said, covered, labels, refit.valid_bars.start, own.prior)
            own.metrics.update({f"oos_{name}": value for name, value in scores.items()})
            if scores:
                on_step(f"{model} out of sample", refit.version + 1, len(refits), scores)
            fitted.append(own)
    if not fitted:
        raise UserError(
            f"too little history: no supervised model could be fitted on {dataset.bars} bars (sl_signals.first_fit "
            f"{params.first_fit}, {int(dataset.valid.sum())} rows to learn from); bring more bars or lower first_fit"
        )
    return Signals(params.models, probabilities, available), tuple(fitted)


def predict_valid_bars(
    fitted: FittedModel, dataset: Dataset, windows: Windows, dropout: float, device: torch.device
) -> tuple[BoolArray, Float32Array]:
    """Predicts on the bars `fitted.refit.valid_bars`.

    Returns:
        covered: [T', N], the valid rows.
        probabilities: [T', N, 3], 1/3 elsewhere.
    """
    with forked(0, "weights to be replaced", device):
        module = build(fitted.model, windows.window, windows.features, dropout).to(device)
    module.load_state_dict(fitted.weights)
    rows = slice(fitted.refit.valid_bars.start, fitted.refit.valid_bars.stop)
    covered = dataset.valid[rows]
    bar, symbol = np.nonzero(covered)
    logits = predict(module, windows, Samples(bar + rows.start, symbol), device)
    said = np.full((*covered.shape, len(CLASSES)), 1 / 3, dtype=np.float32)
    said[bar, symbol] = np.exp(log_softmax(logits / fitted.temperature))
    return covered, said


@torch.no_grad()
def predict(module: nn.Module, windows: Windows, samples: Samples, device: torch.device) -> FloatArray:
    """[B, 3] logits, in passes of `CHUNK` rows."""
    module.eval()
    padding = -len(samples) % CHUNK
    bar = torch.from_numpy(np.pad(samples.bar, (0, padding), constant_values=windows.window - 1)).to(device)
    symbol = torch.from_numpy(np.pad(samples.symbol, (0, padding))).to(device)
    chunks = zip(torch.split(bar, CHUNK), torch.split(symbol, CHUNK), strict=True)
    logits = [module(windows.ending_at(*chunk)).cpu() for chunk in chunks if len(samples)]
    stacked = torch.cat(logits)[: len(samples)] if logits else torch.zeros(0, len(CLASSES))
    return stacked.numpy().astype(np.float64)


def _task(
    dataset: Dataset,
    labels: Labels,
    windows: Windows,
    params: SLSignalsParams,
    model: str,
    refit: Refit,
    seed: int,
    device: torch.device,
) -> _Task | None:
    """The rows a refit may learn and calibrate on, or None if they are too few."""
    usable = dataset.valid & (labels.classes != UNKNOWN)
    usable[: windows.window - 1] = False
    last = max(refit.fitted_until - labels.reach, 0)  # the first bar whose label is not over
    calibration_start = max(refit.fitted_until - round(refit.fitted_until * params.calibration_fraction), 0)
    generator = np.random.default_rng(stream_seed(seed, f"signals samples refit {refit.version}"))
    fit = _rows(usable, 0, max(calibration_start - labels.reach, 0)).draw(params.max_samples, generator)
    calibration = _rows(usable, calibration_start, last).draw(max(params.max_samples // 2, LEAST_SAMPLES), generator)
    if min(len(fit), len(calibration)) < LEAST_SAMPLES:
        return None
    return _Task(model, refit, fit, calibration, windows, labels, params, seed, device)


def _rows(usable: BoolArray, start: int, stop: int) -> Samples:
    bar, symbol = np.nonzero(usable[start:stop])
    return Samples(bar + start, symbol)


def _fit(task: _Task, name: str, on_step: OnStep, checkpoint: Checkpointer) -> FittedModel:
    """Trains, epoch by epoch, then calibrates; each epoch is a place to resume from."""
    params, device = task.params, task.device
    own = checkpoint.child(f"{task.model}_{task.refit.version}")
    with forked(task.seed, f"{task.stream} weights", device):
        module = build(task.model, task.windows.window, task.windows.features, params.dropout).to(device)
    optimizer = torch.optim.AdamW(
        module.parameters(), params.learning_rate, weight_decay=params.weight_decay, fused=True
    )
    state = own.load()
    done = 0
    if state is not None:
        module.load_state_dict(state["weights"])
        optimizer.load_state_dict(state["optimizer"])
        done = state["epochs"]
    for epoch in range(done, params.epochs):
        loss = _epoch(module, optimizer, task, epoch)
        own.save({"weights": module.state_dict(), "optimizer": optimizer.state_dict(), "epochs": epoch + 1})
        on_step(name, epoch + 1, params.epochs, {"train_log_loss": loss})
    happened = task.classes(task.calibration)
    logits = predict(module, task.windows, task.calibration, device)
    temperature = fit_temperature(logits, happened)
    shares = np.bincount(task.classes(task.fit), minlength=len(CLASSES)) + 1.0
    return FittedModel(
        model=task.model,
        refit=task.refit,
        weights={key: value.detach().cpu().contiguous() for key, value in module.state_dict().items()},
        temperature=temperature,
        prior=shares / shares.sum(),
        samples=len(task.fit),
        metrics={
            "calibration_log_loss_raw": log_loss(log_softmax(logits), happened),
            "calibration_log_loss": log_loss(log_softmax(logits / temperature), happened),
        },
    )


def _epoch(module: nn.Module, optimizer: torch.optim.Optimizer, task: _Task, epoch: int) -> float:
    """One pass over the fit sample in shuffled full batches; gives the mean log loss."""
    device = task.device
    bar, symbol = (torch.from_numpy(rows).to(device) for rows in (task.fit.bar, task.fit.symbol))
    classes = torch.from_numpy(task.classes(task.fit)).to(device)
    size = min(task.params.batch_size, len(classes))
    module.train()
    losses = []
    with forked(task.seed, f"{task.stream} epoch {epoch}", device):
        order = torch.randperm(len(classes)).to(device)
        for batch in torch.split(order[: len(order) // size * size], size):
            loss = functional.cross_entropy(module(task.windows.ending_at(bar[batch], symbol[batch])), classes[batch])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(module.parameters(), MAX_GRAD_NORM)
            optimizer.step()
            losses.append(loss.detach())
    return float(torch.stack(losses).mean())

"""The training loop of one model on one fold."""

import dataclasses
import math
import os
import time

import jax
import numpy as np
from jax.sharding import Mesh

from emofuse_jax import metrics, predictions
from emofuse_jax.data.assemble import empty_batch
from emofuse_jax.data.pipeline import steps_per_epoch, train_batches
from emofuse_jax.train import checkpoint, progress
from emofuse_jax.train.calibrate import calibrated, calibrator
from emofuse_jax.train.experiment import SAME_DATA, Experiment, check_same_config, check_same_data, metadata
from emofuse_jax.train.optimizer import evaluation_params, make_optimizer
from emofuse_jax.train.saved import saved_config
from emofuse_jax.train.sharding import batch_sharding, check_rows, make_mesh, put_batch, state_sharding
from emofuse_jax.train.step import init_state, jit_train_step, make_eval_step, make_train_step
from emofuse_jax.train.warm_start import read_start
from emofuse_jax.train.writer import Writer
from emofuse_jax.types import Batch, InputSpec, TrainState


@dataclasses.dataclass
class Tracker:
    """Progress that a checkpoint carries: the best validation so far."""

    best_ua: float = -1.0
    best_step: int = 0
    since_best: int = 0

    def update(self, ua: float, step: int) -> bool:
        """Notes an epoch's validation UA; True when it is the best so far."""
        better = ua > self.best_ua
        if better:
            self.best_ua, self.best_step, self.since_best = ua, step, 0
        else:
            self.since_best += 1
        return better


def train(experiment: Experiment, workdir: str) -> Tracker:
    """Trains to the end or until validation UA stops rising; started again, it goes on bit for bit.

    Writes `checkpoints/last` and `checkpoints/best`, `metrics.jsonl` and `tensorboard/` under `workdir`.
    """
    config, first = experiment.config, jax.process_index() == 0
    mesh = make_mesh(config.mesh)
    check_rows(config.data.batch_size, "data.batch_size", mesh)
    check_rows(config.train.eval_batch_size, "train.eval_batch_size", mesh)
    per_epoch = steps_per_epoch(len(experiment.clips["train"]), config.data.batch_size)
    total = per_epoch * config.train.epochs
    # 1. Restore, or start.
    batches = make_batches(experiment)
    tx = make_optimizer(config.optimizer, total)
    state, tracker = restore_or_init(experiment, workdir, tx, mesh, batches)
    step, about = int(state.step), metadata(experiment)
    train_step, eval_step = compile_steps(experiment, tx, state, mesh, tell=first and step == 0)
    writer = Writer(workdir, resume_step=step, active=first)
    epoch, start = Totals(), step
    with progress.live_line(total, step, config.data.batch_size, config.name, active=first) as show:
        while True:
            if step > start and step % per_epoch == 0:
                # 2. Evaluate.
                state, row = close_epoch(experiment, eval_step, state, mesh, epoch, step, per_epoch)
                better = tracker.update(row["validation_ua"], step)
                epoch = Totals()
                writer.write(step, "epoch", row)
                show(step, **{k: row[k] for k in ("train_loss", "train_ua", "validation_ua")})
                # 3. Save.
                position = {
                    "step": step,
                    "data": batches.get_state(),
                    "progress": dataclasses.asdict(tracker),
                }
                for kind in ("best", "last") if better else ("last",):  # a run goes on from the last
                    checkpoint.save(workdir, kind, state, {**about, **position})
            if step >= total or 0 < config.train.patience <= tracker.since_best:
                break
            # 4. Next batch.
            batch = put_batch(next(batches), mesh)
            # 5. Step.
            state, measured = train_step(state, batch)
            step += 1
            # 6. Log.
            epoch.add(measured)
            if config.train.log_every and step % config.train.log_every == 0:
                log_step(writer, step, measured)
            show(step)
    writer.close()
    return tracker


class Totals:
    """Sums over an epoch, left on the device until its end."""

    def __init__(self):
        self.began, self.steps, self.sums = time.monotonic(), 0, None

    def add(self, measured: dict) -> None:
        """Adds one step's loss and confusion matrix."""
        values = {"loss": measured["loss"], "confusion": measured["confusion"]}
        self.sums = values if self.sums is None else jax.tree.map(lambda a, b: a + b, self.sums, values)
        self.steps += 1
        if jax.default_backend() == "cpu":  # fake CPU devices can deadlock on steps queued behind each other
            jax.block_until_ready(self.sums)


def make_batches(experiment: Experiment):
    """The iterator over training batches of this process."""
    data = experiment.config.data
    return train_batches(
        experiment.dataset,
        experiment.clips["train"],
        experiment.spec,
        batch_size=data.batch_size,
        seed=experiment.config.seed,
        process=(jax.process_index(), jax.process_count()),
        threads=data.threads,
        labels=experiment.labels,
        balanced=data.balanced,
        labelled_share=data.labelled_share,
    )


def restore_or_init(
    experiment: Experiment, workdir: str, tx, mesh: Mesh, batches
) -> tuple[TrainState, Tracker]:
    """The last checkpoint's state, with `batches` set to its position; or a fresh state."""
    config = experiment.config

    def init(key, start=({}, {})):
        return init_state(experiment.model, tx, key, experiment.statistics, start)

    key = jax.random.key(config.seed)
    shapes = jax.eval_shape(init, key)
    sharding = state_sharding(shapes, mesh, fsdp=config.mesh.fsdp)
    saved = checkpoint.read_metadata(workdir, "last", missing_ok=True)
    if saved is None:
        os.makedirs(workdir, exist_ok=True)
        quick = {"xla_backend_optimization_level": 0}  # runs once: compiling it costs more than running it
        start = read_start(experiment)
        return jax.jit(init, out_shardings=sharding, compiler_options=quick)(key, start), Tracker()
    check_same_config(workdir, saved_config(saved).to_dict(), config.to_dict())
    check_same_data(experiment, saved, (*SAME_DATA, "training_clips_sha256"))
    state = checkpoint.restore(workdir, checkpoint.abstract_like(shapes, sharding))
    batches.set_state(saved["data"])
    return state, Tracker(**saved["progress"])


def compile_steps(experiment: Experiment, tx, state: TrainState, mesh: Mesh, *, tell: bool):
    """The compiled training step and the jitted scoring step; tells parameters and FLOPs when asked."""
    config = experiment.config
    step = make_train_step(experiment.model, tx, config)
    rows = abstract_batch(experiment.spec, config.data.batch_size, mesh)
    compiled = jit_train_step(step, state, mesh, fsdp=config.mesh.fsdp).lower(state, rows).compile()
    if tell:
        progress.console.print(progress.parameter_table(state.params))
        flops = progress.compiled_flops(compiled)
        if flops:
            progress.console.print(f"compiled step: {flops / 1e9:.2f} GFLOP per device")
    return compiled, make_eval_step(experiment.model, mesh)


def abstract_batch(spec: InputSpec, size: int, mesh: Mesh) -> Batch:
    """Shapes, dtypes and shardings of a global batch of `size` rows."""
    sharding = batch_sharding(mesh)
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype, sharding=sharding), empty_batch(1, spec)
    )


def close_epoch(experiment, eval_step, state, mesh, epoch, step, per_epoch) -> tuple[TrainState, dict]:
    """Scores validation, after what the fusion sets from it; gives the state and the epoch's row."""
    config = experiment.config
    seconds = time.monotonic() - epoch.began
    sums = jax.tree.map(np.asarray, epoch.sums)
    check_finite(step, float(sums["loss"]))
    trained = metrics.scores(sums["confusion"])
    answers = predict_validation(experiment, eval_step, state, mesh)
    if hook := calibrator(config.model.fusion.name):
        state = calibrated(state, hook, answers)
        answers = predict_validation(experiment, eval_step, state, mesh)
    scores = predictions.score(answers, intervals=False)
    row = {
        "epoch": step // per_epoch,
        "train_loss": float(sums["loss"] / epoch.steps),
        "train_ua": trained["ua"],
        "validation_loss": answers.loss,
        "validation_ua": scores["ua"],
        "validation_wa": scores["wa"],
        "clips_per_second": epoch.steps * config.data.batch_size / seconds,
    }
    return state, row


def predict_validation(experiment, eval_step, state, mesh) -> predictions.Predictions:
    """The answers of a state, averaged where it is, for the validation clips."""
    return predictions.predict_clips(
        eval_step,
        evaluation_params(state.params, state.opt_state),
        state.model_state,
        experiment.dataset,
        experiment.clips["validation"],
        experiment.spec,
        mesh,
        batch_size=experiment.config.train.eval_batch_size,
    )


def log_step(writer: Writer, step: int, measured: dict) -> None:
    """Writes one step's scalars; ValueError where the loss is not a number."""
    scalars = {name: float(value) for name, value in measured.items() if value.ndim == 0}
    check_finite(step, scalars["loss"])
    writer.write(step, "step", scalars)


def check_finite(step: int, loss: float) -> None:
    """ValueError where the loss is not a number; nothing is saved after it."""
    if not math.isfinite(loss):
        raise ValueError(f"step {step}: the loss is {loss}; a lower optimizer.learning_rate may help")

"""The training loop of one model on one fold."""

import dataclasses
import os
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from emofuse_jax.data.dataset import Dataset
from emofuse_jax.models.registry import get_calibrator
from emofuse_jax.parallel.distributed import owned
from emofuse_jax.parallel.memory import compiled_bytes, exhaustion_told
from emofuse_jax.parallel.mesh import check_rows, make_mesh, state_sharding
from emofuse_jax.parallel.preemption import Preempted, watch
from emofuse_jax.parallel.xla_options import once_options
from emofuse_jax.scoring import metrics, predict
from emofuse_jax.scoring.calibration import fit_temperature
from emofuse_jax.training import progress
from emofuse_jax.training.batch_source import Feed, make_feed
from emofuse_jax.training.checkpoint import store
from emofuse_jax.training.checkpoint.compat import saved_config
from emofuse_jax.training.early_stopping import Tracker
from emofuse_jax.training.experiment import (
    SAME_DATA,
    Experiment,
    check_same_config,
    check_same_data,
    epoch_steps,
    flatten,
    metadata,
)
from emofuse_jax.training.fusion_state import calibrated
from emofuse_jax.training.metric_writer import Writer
from emofuse_jax.training.nan_guard import NotFinite, all_finite, check_finite, explain, retold
from emofuse_jax.training.optimizer import evaluation_params, make_optimizer
from emofuse_jax.training.step import init_state, make_eval_step, make_train_step
from emofuse_jax.training.warm_start import read_start
from emofuse_jax.types import TrainState


def no_description(directory: str, dataset: Dataset) -> None:
    """Writes nothing."""


def train(
    experiment: Experiment, workdir: str, *, describe_data: Callable[[str, Dataset], None] = no_description
) -> Tracker:
    """Trains to the end or until validation UA stops rising; started again, it goes on bit for bit.

    Writes `checkpoints/last` and `checkpoints/best`, `metrics.jsonl` and `tensorboard/` under `workdir`.
    After a SIGTERM it saves and raises Preempted. ValueError where another process trains there, and where
    the loss is not a number any more: `nonfinite.json` then names the step's clips. `describe_data` is called
    with the workdir and the dataset when a run begins.
    """
    with owned(workdir), exhaustion_told():
        try:
            return run(experiment, workdir, describe_data)
        except NotFinite as error:
            failed = error.with_traceback(None)  # whose frames hold the arrays
        raise retold(failed, lambda: explained(experiment, workdir, failed.step))


def run(experiment: Experiment, workdir: str, describe_data: Callable[[str, Dataset], None]) -> Tracker:
    """`train`, alone in its workdir."""
    config, first = experiment.config, jax.process_index() == 0
    mesh = make_mesh(config.mesh)
    check_rows(config.data.batch_size, "data.batch_size", mesh)
    check_rows(config.train.eval_batch_size, "train.eval_batch_size", mesh)
    total = (per_epoch := epoch_steps(experiment)) * config.train.epochs
    # 1. Restore, or start.
    tx = make_optimizer(config.optimizer, total)
    state, tracker, epoch = restore_or_init(experiment, workdir, tx, mesh)
    saved = step = int(state.step)
    if first and step == 0:
        describe_data(workdir, experiment.dataset)
    about = metadata(experiment)
    feed = make_feed(experiment, mesh)
    program, eval_step = compile_steps(experiment, feed, tx, state, mesh, tell=first and step == 0)
    writer = Writer(workdir, resume_step=step, active=first)
    line = progress.live_line(total, step, config.data.batch_size, config.name, active=first)
    with watch() as told, line as show, exhaustion_told(lambda: compiled_bytes(program)):
        while True:
            if epoch.steps == per_epoch:
                # 2. Evaluate.
                state, row, confusion = close_epoch(experiment, feed, eval_step, state, epoch, step)
                better = tracker.update(row.get("validation_ua"), step)
                tracker.temperature = row["temperature"]
                epoch = Totals()
                writer.write_epoch(step, row, confusion, experiment.dataset.classes)
                show(step, **{k: row[k] for k in ("train_loss", "train_ua", "validation_ua") if k in row})
                # 3. Save.
                for kind in ("best", "last") if better else ("last",):  # a run goes on from the last
                    store.save(workdir, kind, state, {**about, **position(step, tracker, epoch)})
                saved = step
            if step >= total or tracker.stops(config.train.patience):
                break
            if told():
                if step > saved:  # a save over the same step would first remove it
                    check_epoch(step, state, epoch)
                    store.save(workdir, "last", state, {**about, **position(step, tracker, epoch)})
                raise Preempted(f"{workdir}: saved at step {step}")
            # 4. Next steps, on the next batches: the number of a batch is that of its step.
            count = min(feed.per_call, per_epoch - epoch.steps)
            state, measured, sums = feed.step(state, step, count)
            step += count
            # 5. Log.
            epoch.add(sums, count)
            if config.train.log_every and step % config.train.log_every < count:
                log_step(writer, step, measured)
            show(step)
    scores = {"best_step": tracker.best_step} | ({"best_ua": tracker.best_ua} if config.data.hold_out else {})
    writer.close(scores, flatten(config.to_dict()))
    return tracker


def position(step: int, tracker: Tracker, epoch: "Totals") -> dict:
    """Where a run stands, as JSON."""
    progress = dataclasses.asdict(tracker)
    return {
        "step": step,
        "temperature": tracker.temperature,
        "progress": progress,
        "epoch": epoch.saved(),
    }


class Totals:
    """Sums over an epoch, left on the device until its end."""

    def __init__(self, steps: int = 0, sums: dict | None = None):
        self.began, self.steps = time.monotonic(), steps
        self.sums = sums and {name: jnp.asarray(x, jnp.float32) for name, x in sums.items()}

    def add(self, sums: dict, count: int) -> None:
        """Adds the loss and the confusion matrix of `count` steps."""
        self.sums = sums if self.sums is None else jax.tree.map(lambda a, b: a + b, self.sums, sums)
        self.steps += count
        if jax.default_backend() == "cpu":  # fake CPU devices can deadlock on steps queued behind each other
            jax.block_until_ready(self.sums)

    def saved(self) -> dict:
        """As JSON, for `Totals(**saved)`; float32 survives it bit for bit."""
        sums = self.sums and {name: np.asarray(x).tolist() for name, x in self.sums.items()}
        return {"steps": self.steps, "sums": sums}


def restore_or_init(
    experiment: Experiment, workdir: str, tx, mesh: Mesh
) -> tuple[TrainState, Tracker, Totals]:
    """The last checkpoint's state, or a fresh one; progress, and the sums of the epoch that it stands in."""
    config = experiment.config

    def init(key, start=({}, {})):
        return init_state(experiment.model, tx, key, experiment.statistics, start)

    key = jax.random.key(config.seed)
    shapes = jax.eval_shape(init, key)
    sharding = state_sharding(shapes, mesh, fsdp=config.mesh.fsdp)
    saved = store.read_metadata(workdir, "last", missing_ok=True)
    if saved is None:
        os.makedirs(workdir, exist_ok=True)
        first = jax.jit(init, out_shardings=sharding, compiler_options=once_options(mesh))
        return first(key, read_start(experiment)), Tracker(), Totals()
    check_same_config(workdir, saved_config(saved).to_dict(), config.to_dict())
    check_same_data(experiment, saved, (*SAME_DATA, "training_clips_sha256"))
    state = store.restore(workdir, store.abstract_like(shapes, sharding))
    return state, Tracker(**saved["progress"]), Totals(**saved.get("epoch", {}))


def explained(experiment: Experiment, workdir: str, until: int) -> str:
    """Why the loss was not finite at step `until`, from the last checkpoint on."""
    config, mesh = experiment.config, make_mesh(experiment.config.mesh)
    tx = make_optimizer(config.optimizer, epoch_steps(experiment) * config.train.epochs)
    state, _, _ = restore_or_init(experiment, workdir, tx, mesh)
    return explain(experiment, state, tx, mesh, until, workdir)


def compile_steps(experiment: Experiment, feed: Feed, tx, state: TrainState, mesh: Mesh, *, tell: bool):
    """The feed's compiled training step and the jitted scoring step; tells parameters and FLOPs."""
    step = make_train_step(experiment.model, tx, experiment.config)
    compiled = feed.compile(step, state)
    if tell:
        progress.console.print(progress.parameter_table(state.params))
        flops = progress.compiled_flops(compiled)
        if flops:
            progress.console.print(f"compiled step: {flops / 1e9:.2f} GFLOP per device")
    return compiled, make_eval_step(experiment.model, mesh)


def close_epoch(
    experiment, feed, eval_step, state, epoch, step
) -> tuple[TrainState, dict, np.ndarray | None]:
    """Scores validation, where there is one; gives state, row and confusion matrix."""
    config = experiment.config
    seconds = time.monotonic() - epoch.began
    check_epoch(step, state, epoch)
    sums = jax.tree.map(np.asarray, epoch.sums)
    held, confusion = {"temperature": config.train.temperature}, None
    if config.data.hold_out:
        state, held, confusion = validate(config, feed, eval_step, state)
    row = {
        "epoch": step // epoch.steps,
        "train_loss": float(sums["loss"] / epoch.steps),
        "train_ua": metrics.compute_scores(sums["confusion"])["ua"],
        **held,
        "clips_per_second": epoch.steps * config.data.batch_size / seconds,
        "waiting": feed.waited / seconds,  # share of the time
    }
    if config.data.on_corrupt == "skip":
        row["damaged"] = len(feed.spare.skipped_clips)  # training clips left out by this process
    feed.waited = 0.0
    return state, row, confusion


def validate(config, feed: Feed, eval_step, state: TrainState) -> tuple[TrainState, dict, np.ndarray]:
    """Scores the validation clips, after what the fusion sets from them."""
    answers = predict_validation(feed, eval_step, state)
    if hook := get_calibrator(config.model.fusion.name):
        state = calibrated(state, hook, answers)
        answers = predict_validation(feed, eval_step, state)
    scores = predict.score_predictions(answers, with_intervals=False)
    found = {
        "validation_loss": answers.loss,
        "validation_ua": scores["ua"],
        "validation_wa": scores["wa"],
        "temperature": fit_temperature(answers.probabilities, answers.labels),
    }
    return state, found, np.array(scores["confusion"])


def predict_validation(feed: Feed, eval_step, state: TrainState) -> predict.Predictions:
    """The answers of a state, averaged where it is, for the validation clips."""
    params = evaluation_params(state.params, state.opt_state)
    return predict.predict(eval_step, params, state.model_state, feed.validation())


def log_step(writer: Writer, step: int, measured: dict) -> None:
    """Writes one step's scalars; ValueError where the loss is not a number."""
    scalars = {name: float(value) for name, value in measured.items() if value.ndim == 0}
    check_finite(step, scalars["loss"])
    writer.write(step, "step", scalars)


def check_epoch(step: int, state: TrainState, epoch: Totals) -> None:
    """NotFinite where a loss since the epoch's start, or a parameter, is not a number: it is not saved."""
    check_finite(step, float(epoch.sums["loss"]), all_finite(state.params))

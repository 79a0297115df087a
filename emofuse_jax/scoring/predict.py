"""Scores of a model over clips: one pass per modality, sums before ratios, intervals by speaker."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Bool, Float, Int

from emofuse_jax.data.dataset import Dataset
from emofuse_jax.data.modality_mask import keep_only_modality
from emofuse_jax.data.pipeline import ChooseSpec, eval_batches
from emofuse_jax.parallel.mesh import put_batch, to_host
from emofuse_jax.scoring import metrics
from emofuse_jax.types import Batch, Params


@dataclasses.dataclass(frozen=True)
class Predictions:
    """What a model answered for each clip, in the order of the clips."""

    clips: Int[np.ndarray, " n"]
    labels: Int[np.ndarray, " n"]
    speakers: Int[np.ndarray, " n"]
    probabilities: Float[np.ndarray, "n c"]
    loss: float
    """Mean cross-entropy over the labelled clips."""
    levels: Float[np.ndarray, "n m c"] | None = None
    """Posteriors of each level of the fusion, zeros where a clip lacks it; None where it has no levels."""


def sharded_batches(
    dataset: Dataset, clips: Int[np.ndarray, " n"], choose_spec: ChooseSpec, mesh: Mesh, *, batch_size: int
) -> Iterator[Batch]:
    """Every clip once, in order, read from the records, over the mesh; the last batch is padded."""
    process_index_and_count = (jax.process_index(), jax.process_count())
    for batch in eval_batches(
        dataset, clips, choose_spec, batch_size=batch_size, process=process_index_and_count
    ):
        yield put_batch(batch, mesh)


def predict(
    eval_step: Callable, params: Params, model_state: Params, batches: Iterable[Batch], modality: str = "both"
) -> Predictions:
    """Runs `eval_step` (training/step.py) over placed batches; `modality` masks sound or faces."""
    batch_fields, loss_sums = [], np.zeros(2)
    for batch in batches:
        outputs = eval_step(params, model_state, keep_only_modality(batch, modality))
        row_outputs = {"probabilities": outputs["probabilities"], "levels": outputs["levels"]}
        host_fields = to_host(
            {"clips": batch.clip, "labels": batch.label, "speakers": batch.speaker, **row_outputs}
        )
        batch_fields.append(_select_rows(host_fields, host_fields["clips"] >= 0))
        loss_sums += [float(outputs["loss"]), float(outputs["weight"])]
    fields = jax.tree.map(lambda *pieces: np.concatenate(pieces), *batch_fields)
    return Predictions(**fields, loss=float(loss_sums[0] / max(loss_sums[1], 1.0)))


def _select_rows(fields: dict, row_mask: Bool[np.ndarray, " n"]) -> dict:
    return jax.tree.map(lambda field: field[row_mask], fields)


def score_predictions(predictions: Predictions, *, with_intervals: bool = True, seed: int = 0) -> dict:
    """UA, WA, weighted and macro F1, recall and confusion; with 95 % intervals by speaker if asked."""
    labelled = predictions.labels >= 0
    labels, speakers = predictions.labels[labelled], predictions.speakers[labelled]
    predicted = predictions.probabilities[labelled].argmax(-1)
    num_classes = predictions.probabilities.shape[-1]
    confusion = np.asarray(
        metrics.confusion_matrix(predicted, labels, np.ones(len(labels), np.float32), num_classes)
    )
    scores = {**metrics.compute_scores(confusion), "confusion": confusion.astype(int).tolist()}
    if with_intervals:
        metric_intervals = metrics.speaker_intervals(predicted, labels, speakers, num_classes, seed=seed)
        scores |= {
            f"{name}_interval": [float(low), float(high)] for name, (low, high) in metric_intervals.items()
        }
    return scores


def score_speakers(predictions: Predictions, speaker_names: tuple[str, ...]) -> dict[str, dict]:
    """UA, WA and number of labelled clips of each speaker who has any."""
    scores_by_speaker = {}
    for speaker in np.unique(predictions.speakers):
        speaker_rows = (predictions.speakers == speaker) & (predictions.labels >= 0)
        if not speaker_rows.any():
            continue
        fields = {k: v[speaker_rows] for k, v in vars(predictions).items() if k not in ("loss", "levels")}
        scores = score_predictions(Predictions(**fields, loss=predictions.loss), with_intervals=False)
        scores_by_speaker[speaker_names[speaker]] = {
            "ua": scores["ua"],
            "wa": scores["wa"],
            "clips": int(speaker_rows.sum()),
        }
    return scores_by_speaker

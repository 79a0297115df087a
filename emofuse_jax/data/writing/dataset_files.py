"""Writes everything next to the shards; prep.json comes last, since a directory with it can be opened."""

from emofuse_jax.data import records
from emofuse_jax.data.metadata import ManifestRow, PrepSettingsDict, ShardMarker
from emofuse_jax.data.writing.corpus import Corpus
from emofuse_jax.data.writing.manifest import write_manifest
from emofuse_jax.data.writing.prep_json import write_prep_json
from emofuse_jax.data.writing.shards import ShardPlan
from emofuse_jax.data.writing.splits import write_splits
from emofuse_jax.data.writing.statistics import write_fold_statistics
from emofuse_jax.data.writing.tfds_metadata import write_tfds_metadata


def write_dataset_files(
    plan: ShardPlan,
    corpus: Corpus,
    markers: list[ShardMarker],
    *,
    shape: records.RecordShape,
    settings: PrepSettingsDict,
    versions: dict[str, str],
) -> None:
    """Writes manifest, splits, statistics, TFDS metadata and prep.json for complete shards.

    All are written to the directory of `plan`; existing files are replaced.

    Args:
      plan: directory and names of the shards.
      corpus: clips, classes and speakers.
      markers: for each shard a dict with `records`, the number of records, `bytes`, the size of the file,
        `sha256`, its hash, and `rows`, the manifest rows.
      shape: dimensions that all records share.
      settings: every setting on which the content of the records depends: `recipe`, a name, and the dicts
        `audio`, `face` and `features`, as docs/formats.md describes them; here only `face["frames"]`, the
        number of face crops of a clip, is read.
      versions: version of each package that made the records, by name.

    Raises:
      OSError: a shard is missing, or a file cannot be written.
      ValueError: a shard is damaged, a record cannot be decoded, a manifest row has an unknown column, a
        class name occurs twice, or a text cannot be encoded as UTF-8.
      TypeError: JSON cannot represent a value of `settings`.
      ImportError: tensorflow_datasets is not installed.
    """
    rows = assign_record_positions(markers)
    write_manifest(plan.output, rows)
    folds = write_splits(plan.output, corpus, rows)
    shard_names = [plan.name(shard) for shard in range(plan.num_shards)]
    write_fold_statistics(plan.output, shard_names, folds, shape)
    write_tfds_metadata(plan.output, corpus.classes, plan, markers, shape, settings["face"]["frames"])
    write_prep_json(
        plan.output, corpus, plan, markers, rows, shape=shape, settings=settings, versions=versions
    )


def assign_record_positions(markers: list[ShardMarker]) -> list[ManifestRow]:
    """Returns the rows of all markers with `shard`, `row` and `index` of each record added.

    These are the number of the shard, of the record in the shard and of the record in the data set, each
    from 0; -1 for a clip without record.
    """
    rows: list[ManifestRow] = []
    index = 0
    for shard, marker in enumerate(markers):
        row_in_shard = 0
        for row in marker["rows"]:
            has_record = row["status"] != "failed"
            position = (shard, row_in_shard, index) if has_record else (-1, -1, -1)
            rows.append({**row, "shard": position[0], "row": position[1], "index": position[2]})
            row_in_shard, index = row_in_shard + has_record, index + has_record
    return rows

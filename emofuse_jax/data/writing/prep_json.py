"""Writes prep.json: everything that is needed to read the records and to prepare them again."""

import hashlib
import os
from collections.abc import Sequence

from emofuse_jax.data import records
from emofuse_jax.data.metadata import ManifestRow, PrepMetadata, PrepSettingsDict, ShardFileFields
from emofuse_jax.data.writing.corpus import Corpus
from emofuse_jax.data.writing.shards import ShardPlan
from emofuse_jax.utils.files import write_json


def write_prep_json(
    output: str,
    corpus: Corpus,
    plan: ShardPlan,
    markers: Sequence[ShardFileFields],
    rows: Sequence[ManifestRow],
    *,
    shape: records.RecordShape,
    settings: PrepSettingsDict,
    versions: dict[str, str],
) -> None:
    """Writes prep.json atomically into the directory `output`; replaces an existing one.

    Its fields are `schema_version`, `corpus`, `dataset` (first part of the shards' names), `classes`,
    `speakers`, `sex`, `class_map`, `settings`, `shape`, `frames` (face crops of a clip), `versions`,
    `sources_sha256` (hash over all source files), `notes` and `shards` (name, number of records and hash).

    Args:
      output: Directory of the records.
      corpus: The corpus: name, classes, clips with speakers, sexes, class map and notes.
      plan: The shards: names.
      markers: For each shard its number of `records` and `sha256`.
      rows: Rows of the manifest; `path` and `sha256` of each are hashed.
      shape: Dimensions that all records share.
      settings: Every setting on which the content of the records depends: `recipe`, a name, and the dicts
        `audio`, `face` and `features`, as docs/formats.md describes them; only `face["frames"]` is read, all
        are stored.
      versions: Version of each package that made the records, by name.

    Raises:
      OSError: The file cannot be written.
      TypeError: JSON cannot represent a value of `settings`.
      ValueError: A text cannot be encoded as UTF-8.
    """
    sources_hash = hashlib.sha256("".join(f"{row['path']}\0{row['sha256']}\n" for row in rows).encode())
    values: PrepMetadata = {
        "schema_version": records.SCHEMA_VERSION,
        "corpus": corpus.name,
        "dataset": plan.dataset,
        "classes": list(corpus.classes),
        "speakers": sorted({clip.speaker for clip in corpus.clips}),
        "sex": dict(sorted(corpus.sex.items())),
        "class_map": corpus.class_map,
        "settings": settings,
        "shape": shape.to_dict(),
        "frames": settings["face"]["frames"],
        "versions": versions,
        "sources_sha256": sources_hash.hexdigest(),
        "notes": list(corpus.notes),
        "shards": [
            {"name": plan.name(i), "records": marker["records"], "sha256": marker["sha256"]}
            for i, marker in enumerate(markers)
        ],
    }
    write_json(os.path.join(output, "prep.json"), values)

"""prep.json: everything that is needed to read the records, and to make them again."""

import dataclasses
import hashlib
import os

from emofuse_jax.data import records
from emofuse_jax.data.writing.corpus import Corpus
from emofuse_jax.data.writing.shards import ShardPlan
from emofuse_jax.utils.files import write_json


def write_prep_json(
    output: str,
    corpus: Corpus,
    plan: ShardPlan,
    markers: list[dict],
    rows: list[dict],
    *,
    shape: records.RecordShape,
    settings: dict,
    versions: dict[str, str],
) -> None:
    """Writes prep.json.

    Args:
      output: directory of the records.
      corpus: names, classes and speakers.
      plan: names of the shards.
      markers: of each shard: number of records and hash.
      rows: of the manifest.
      shape: dimensions that all records share.
      settings: every setting that decides what a record holds.
      versions: of the packages that made the records.
    """
    sources_hash = hashlib.sha256("".join(f"{row['path']}\0{row['sha256']}\n" for row in rows).encode())
    values = {
        "schema_version": records.SCHEMA_VERSION,
        "corpus": corpus.name,
        "dataset": plan.dataset,
        "classes": list(corpus.classes),
        "speakers": sorted({clip.speaker for clip in corpus.clips}),
        "sex": dict(sorted(corpus.sex.items())),
        "class_map": corpus.class_map,
        "settings": settings,
        "shape": dataclasses.asdict(shape),
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

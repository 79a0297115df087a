"""The corpora that `prepare` can read, one module each.

A module has `read_corpus(source, ...) -> Corpus` with the corpus's own classes, `CLASS_MAPS` if they can be
merged or left out, and names what else may be chosen: `LABELS`, `SUBSETS`, each with the default first.
"""

import dataclasses
import importlib
import itertools
import os

from data_prep.corpora.classes import apply_class_map
from emofuse_jax.data.writing.corpus import Clip, Corpus

CORPORA = {
    name: f"data_prep.corpora.{name}"
    for name in (
        "demo",
        "ravdess",
        "crema_d",
        "iemocap",
        "afew",
        "enterface05",
        "baum1s",
        "folder",
        "composite",
    )
}

__all__ = ["CORPORA", "Clip", "Corpus", "read_corpus"]


def read_corpus(
    name: str,
    source: str,
    *,
    classes: str | None = None,
    labels: str | None = None,
    subset: str | None = None,
) -> Corpus:
    """Lists the clips of corpus `name` below `source`, ordered by clip_id.

    Args:
      name: one of `CORPORA`.
      source: its folder, or the CSV of `folder`.
      classes: which of the corpus's class maps; default: its first.
      labels: whose labels, where a corpus has several; default: its first.
      subset: which of the corpus's parts; default: all of it.

    Raises:
      ValueError: an unknown corpus or choice, a source without clips, or a clip_id that stands twice.
      FileNotFoundError: there is no such source.
    """
    if name not in CORPORA:
        raise ValueError(f"corpus {name!r}: expected one of {', '.join(CORPORA)}")
    if not os.path.exists(source):
        raise FileNotFoundError(f"{source}: not there (the source of corpus {name})")
    module = importlib.import_module(CORPORA[name])
    requested = {"labels": (labels, "LABELS"), "subset": (subset, "SUBSETS")}
    options = {
        field: _validate_choice(name, field, value, getattr(module, constant_name, ()))
        for field, (value, constant_name) in requested.items()
        if value is not None
    }
    corpus = module.read_corpus(source, **options)
    corpus = apply_class_map(corpus, getattr(module, "CLASS_MAPS", {}), classes)
    if not corpus.clips:
        raise ValueError(f"{source}: no clip of corpus {name} found")
    clips = tuple(sorted(corpus.clips, key=lambda clip: clip.clip_id))
    for previous, clip in itertools.pairwise(clips):
        if previous.clip_id == clip.clip_id:
            raise ValueError(f"{clip.path}: clip_id {clip.clip_id!r} stands twice, also for {previous.path}")
    root = corpus.root or (source if os.path.isdir(source) else os.path.dirname(source))
    return dataclasses.replace(corpus, clips=clips, root=os.path.abspath(root))


def _validate_choice(corpus: str, field: str, value: str, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise ValueError(f"{field}={value!r}: corpus {corpus} has {', '.join(allowed) or 'no such choice'}")
    return value

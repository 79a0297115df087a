"""The corpora that `prepare` can read, one module each with `read_corpus(source) -> Corpus`."""

import dataclasses
import importlib
import itertools
import os

from data_prep.corpora.base import Clip, Corpus

CORPORA = {
    "demo": "data_prep.corpora.demo",
    "ravdess": "data_prep.corpora.ravdess",
    "folder": "data_prep.corpora.folder",
}

__all__ = ["CORPORA", "Clip", "Corpus", "read_corpus"]


def read_corpus(name: str, source: str) -> Corpus:
    """Lists the clips of corpus `name` below `source`, ordered by clip_id.

    Raises ValueError on an unknown corpus, a source without clips, or a clip_id that stands twice.
    """
    if name not in CORPORA:
        raise ValueError(f"corpus {name!r}: expected one of {', '.join(CORPORA)}")
    if not os.path.exists(source):
        raise FileNotFoundError(f"{source}: not there (the source of corpus {name})")
    corpus = importlib.import_module(CORPORA[name]).read_corpus(source)
    if not corpus.clips:
        raise ValueError(f"{source}: no clip of corpus {name} found")
    clips = tuple(sorted(corpus.clips, key=lambda clip: clip.clip_id))
    for before, clip in itertools.pairwise(clips):
        if before.clip_id == clip.clip_id:
            raise ValueError(f"{clip.path}: clip_id {clip.clip_id!r} stands twice, also for {before.path}")
    root = corpus.root or (source if os.path.isdir(source) else os.path.dirname(source))
    return dataclasses.replace(corpus, clips=clips, root=os.path.abspath(root))

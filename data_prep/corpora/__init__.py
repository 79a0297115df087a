"""Readers of the corpora that can be prepared, one module for each.

Each module has a function `read_corpus(source, ...) -> Corpus`, which returns the original classes of the
corpus. Optional constants list the choices of a user, the default first: `CLASS_MAPS` (ways to merge or leave
out classes), `LABELS` and `SUBSETS`.
"""

import dataclasses
import importlib
import itertools
import os
import types
from collections.abc import Callable

from data_prep.corpora.classes import apply_class_map
from emofuse_jax.data.writing.corpus import Corpus, MediaClip
from emofuse_jax.utils.registry import Registry

SHIPPED_CORPORA = (
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

Reader = Callable[[str], Corpus] | str
"""A function from the path of a source to its Corpus, or the name of one of the modules of this package."""


def check_reader(reader: Reader) -> None:
    """Raises ValueError if a reader is not a function, for example the name of a module; returns nothing."""
    if not callable(reader):
        raise ValueError(
            f"{reader!r}: expected a function from the path of a source to its Corpus; register the function"
        )


CORPORA: Registry[Reader] = Registry(
    "corpus",
    "emofuse.corpora",
    {name: f"data_prep.corpora.{name}" for name in SHIPPED_CORPORA},
    check_reader,
)
"""Readers of corpora by name; shipped ones are imported when they are used."""

__all__ = ["CORPORA", "Corpus", "MediaClip", "read_corpus"]


def read_corpus(
    name: str,
    source: str,
    *,
    classes: str | None = None,
    labels: str | None = None,
    subset: str | None = None,
) -> Corpus:
    """Reads the list of clips of a corpus, without opening the media files.

    Args:
      name: a key of `CORPORA`: `demo`, `ravdess`, `crema_d`, `iemocap`, `afew`, `enterface05`, `baum1s`,
        `folder`, `composite`, or the name of a registered corpus.
      source: folder of the corpus; for `folder`, the CSV file or its folder.
      classes: name of one of the corpus's class maps, ways to merge or leave out classes, such as `6`; None:
        the first. A wrong name raises an error that lists the names.
      labels: for `crema_d`: `intended` (also if None) or `perceived`; None for all others.
      subset: for `iemocap`: `all` (also if None) or `improvised`; None for all others.

    Returns:
      A Corpus: `name`; `classes`, a tuple of their names; `clips`, a tuple of `MediaClip` ordered by clip_id;
      `sex`, a dict from speaker to `f` or `m`, if known; `notes`, a tuple of lines; `root`, the absolute path
      of its folder; `class_map`, the dict from original class name to name in `classes` (empty: unchanged);
      and `protocols`, a tuple of `EvaluationProtocol`: `name`, `speakers` (a tuple), `folds` (a tuple with
      the tuple of test speakers of each fold) and `validation` (the same for validation; empty: a seeded
      choice). A `MediaClip` has clip_id, path (begins with `source`; absolute for `folder` and `composite`),
      label (index into `classes`; -1: unlabelled), speaker, start and end in seconds of the file (None: its
      beginning or end), half of the picture (`left`, `right`, or empty: all), and take, a name that clips of
      one event share (empty: none).

    Raises:
      ValueError: the corpus or a choice is unknown, an installed reader can't be imported, a table of the
        corpus is wrong, there is no clip, or two clips have the same clip_id.
      FileNotFoundError: `source`, or a file in it that is needed, does not exist.
      OSError: a file in `source` that is needed can't be read.
      ModuleNotFoundError: the sheet of BAUM-1s is an .xlsx file, but openpyxl is not installed, or the demo
        corpus or a composite is read without the packages of the extra `prep`.
      Exception: a registered reader raised it.
    """
    reader = CORPORA.require(name, "corpus")
    if not os.path.exists(source):
        raise FileNotFoundError(
            f"{source}: does not exist, expected the source of corpus {name}; check the path"
        )
    module = (
        importlib.import_module(reader)
        if isinstance(reader, str)
        else types.SimpleNamespace(read_corpus=reader)
    )
    requested = {"labels": (labels, "LABELS"), "subset": (subset, "SUBSETS")}
    options = {
        field: _validate_choice(name, field, value, getattr(module, constant_name, ()))
        for field, (value, constant_name) in requested.items()
        if value is not None
    }
    corpus = module.read_corpus(source, **options)
    corpus = apply_class_map(corpus, getattr(module, "CLASS_MAPS", {}), classes)
    if not corpus.clips:
        raise ValueError(f"{source}: contains no clip of corpus {name}; check the path and the classes")
    clips = tuple(sorted(corpus.clips, key=lambda clip: clip.clip_id))
    for previous, clip in itertools.pairwise(clips):
        if previous.clip_id == clip.clip_id:
            raise ValueError(
                f"{clip.path}: clip_id {clip.clip_id!r} is used twice, also for {previous.path}; remove one"
                " of these files or table rows"
            )
    root = corpus.root or (source if os.path.isdir(source) else os.path.dirname(source))
    return dataclasses.replace(corpus, clips=clips, root=os.path.abspath(root))


def _validate_choice(corpus: str, field: str, value: str, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise ValueError(
            f"{field}={value!r}: corpus {corpus} offers {', '.join(allowed) or 'no choice, leave it out'}"
        )
    return value

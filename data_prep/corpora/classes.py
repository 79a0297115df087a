"""The classes of a corpus as an experiment wants them: merged or left out, always by an explicit map."""

import collections
import dataclasses

from emofuse_jax.data.writing.corpus import Corpus

BASIC_EMOTIONS = ("angry", "disgust", "fearful", "happy", "sad", "surprised")
"""Ekman's six, by the names that all corpora have here."""


def identity_class_map(*names: str) -> dict[str, str]:
    """The map that keeps these names."""
    return {name: name for name in names}


def apply_class_map(corpus: Corpus, class_maps: dict[str, dict[str, str]], map_name: str | None) -> Corpus:
    """`corpus` with the classes of `class_maps[map_name]` (default: its first), in the order of the map.

    A map says what each of the corpus's own names becomes; clips of other classes are left out, and a note
    tells how many. Raises ValueError on a choice that is not there.
    """
    if not class_maps:
        if map_name is not None:
            raise ValueError(f"classes={map_name!r}: corpus {corpus.name} has its classes by itself")
        return corpus
    map_name = next(iter(class_maps)) if map_name is None else map_name
    if map_name not in class_maps:
        raise ValueError(f"classes={map_name!r}: corpus {corpus.name} has {', '.join(class_maps)}")
    class_map = class_maps[map_name]
    classes = tuple(dict.fromkeys(class_map.values()))
    new_labels = {
        i: classes.index(class_map[old]) for i, old in enumerate(corpus.classes) if old in class_map
    } | {-1: -1}
    clips = tuple(
        dataclasses.replace(c, label=new_labels[c.label]) for c in corpus.clips if c.label in new_labels
    )
    dropped_counts = collections.Counter(
        corpus.classes[c.label] for c in corpus.clips if c.label not in new_labels
    )
    notes = [
        f"classes={map_name}: {n} clips of class {name} left out"
        for name, n in sorted(dropped_counts.items())
    ]
    return dataclasses.replace(
        corpus, classes=classes, clips=clips, class_map=class_map, notes=corpus.notes + tuple(notes)
    )

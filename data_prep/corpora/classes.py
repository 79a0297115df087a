"""The classes of a corpus as an experiment wants them: merged or left out, always by an explicit map."""

import collections
import dataclasses

from emofuse_jax.data.writing.corpus import Corpus

BASIC = ("angry", "disgust", "fearful", "happy", "sad", "surprised")
"""Ekman's six, by the names that all corpora have here."""


def same(*names: str) -> dict[str, str]:
    """The map that keeps these names."""
    return {name: name for name in names}


def with_classes(corpus: Corpus, maps: dict[str, dict[str, str]], chosen: str | None) -> Corpus:
    """`corpus` with the classes of `maps[chosen]` (default: its first), in the order of the map.

    A map says what each of the corpus's own names becomes; clips of other classes are left out, and a note
    tells how many. Raises ValueError on a choice that is not there.
    """
    if not maps:
        if chosen is not None:
            raise ValueError(f"classes={chosen!r}: corpus {corpus.name} has its classes by itself")
        return corpus
    chosen = next(iter(maps)) if chosen is None else chosen
    if chosen not in maps:
        raise ValueError(f"classes={chosen!r}: corpus {corpus.name} has {', '.join(maps)}")
    names = maps[chosen]
    classes = tuple(dict.fromkeys(names.values()))
    new = {i: classes.index(names[old]) for i, old in enumerate(corpus.classes) if old in names} | {-1: -1}
    kept = tuple(dataclasses.replace(c, label=new[c.label]) for c in corpus.clips if c.label in new)
    left = collections.Counter(corpus.classes[c.label] for c in corpus.clips if c.label not in new)
    notes = [f"classes={chosen}: {n} clips of class {name} left out" for name, n in sorted(left.items())]
    return dataclasses.replace(
        corpus, classes=classes, clips=kept, class_map=names, notes=corpus.notes + tuple(notes)
    )

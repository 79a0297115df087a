"""Merges or leaves out classes of a corpus by an explicit class map."""

import collections
import dataclasses

from emofuse_jax.data.writing.corpus import Corpus

BASIC_EMOTIONS = ("angry", "disgust", "fearful", "happy", "sad", "surprised")
"""Ekman's six basic emotions, with the class names that all readers use."""


def identity_class_map(*names: str) -> dict[str, str]:
    """Returns a class map that leaves these class names unchanged: a dict from each name to itself."""
    return {name: name for name in names}


def apply_class_map(corpus: Corpus, class_maps: dict[str, dict[str, str]], map_name: str | None) -> Corpus:
    """Returns the corpus with its classes renamed, merged or left out; unchanged if there are no class maps.

    Unless it is unchanged, the result has the map as `class_map`.

    Args:
      corpus: the corpus with its original classes.
      class_maps: class maps by name; each maps original class names to new ones. New classes have the order
        of the map. Clips of classes that are not in the map are left out, and a note states how many;
        unlabelled clips stay.
      map_name: the map to use; None: the first.

    Raises:
      ValueError: no map has this name, or a name is set although `class_maps` is empty.
    """
    if not class_maps:
        if map_name is not None:
            raise ValueError(f"classes={map_name!r}: corpus {corpus.name} has no choice, leave classes out")
        return corpus
    map_name = next(iter(class_maps)) if map_name is None else map_name
    if map_name not in class_maps:
        raise ValueError(f"classes={map_name!r}: corpus {corpus.name} offers {', '.join(class_maps)}")
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

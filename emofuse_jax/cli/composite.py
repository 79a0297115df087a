"""Pair voices of one corpus with faces of another by label: a test of fusion, never a result on people.

    emofuse composite --voice_corpus=ravdess --voice_source=DIR --face_corpus=demo --face_source=DIR \
        --output=DIR
    emofuse prepare --corpus=composite --source=DIR --output=DIR

A composite person is one voice and one face, and no voice or face is in two persons. Everything made from
such films is marked COMPOSITE. Run again, it goes on. --voice_classes and --face_classes choose class maps
whose names meet (see emofuse prepare --classes).
"""

from collections.abc import Sequence

from absl import flags

OUTPUT = flags.DEFINE_string("output", None, "Folder to write films, composite.csv and composite.json to.")
SEED = flags.DEFINE_integer("seed", 0, "Of the pairs.")
FLAGS_BY_SIDE = {
    side: [
        flags.DEFINE_string(f"{side}_corpus", None, f"Corpus of the {side}s, as of emofuse prepare."),
        flags.DEFINE_string(f"{side}_source", None, "Its folder, or the CSV of `folder`."),
        flags.DEFINE_string(f"{side}_classes", None, "Which of its class maps; by default its first."),
    ]
    for side in ("voice", "face")
}


def main(argv: Sequence[str]) -> None:
    """Reads both corpora, writes the films, and says what was left out."""
    required_flags = [OUTPUT, *(flag for side_flags in FLAGS_BY_SIDE.values() for flag in side_flags[:2])]
    if argv[1:] or not all(flag.value for flag in required_flags):
        raise ValueError(
            f"{', '.join(f'--{f.name}' for f in required_flags)} are needed; see emofuse composite --help"
        )
    from data_prep.optional_dependencies import require_media

    require_media()
    from data_prep.corpora import read_corpus
    from data_prep.corpora.composite import make_composite

    corpora = [
        read_corpus(corpus_flag.value, source_flag.value, classes=classes_flag.value)
        for corpus_flag, source_flag, classes_flag in FLAGS_BY_SIDE.values()
    ]
    count, left_out = make_composite(*corpora, OUTPUT.value, SEED.value)
    for note in left_out:
        print(note)
    print(f"COMPOSITE: {count} films in {OUTPUT.value}; next: emofuse prepare --corpus=composite")

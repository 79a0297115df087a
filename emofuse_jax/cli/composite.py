"""Pairs voices of one corpus with faces of another by label, as a stress test for fusions.

    emofuse composite --voice_corpus=ravdess --voice_source=DIR --face_corpus=demo --face_source=DIR \\
        --output=DIR
    emofuse prepare --corpus=composite --source=DIR --output=DIR

A composite person consists of one voice and one face, and no voice or face belongs to two persons. All
results on such clips are marked COMPOSITE, because they say nothing about real people. Run the command again
to resume after a stop. --voice_classes and --face_classes select class maps with common class names (see
emofuse prepare --classes).
"""

from collections.abc import Sequence

from absl import flags

OUTPUT = flags.DEFINE_string("output", None, "Directory to write clips, composite.csv and composite.json to.")
SEED = flags.DEFINE_integer("seed", 0, "Random seed of the pairs.", lower_bound=0)
FLAGS_BY_SIDE = {
    side: [
        flags.DEFINE_string(
            f"{side}_corpus", None, f"Corpus of the {side}s, one of those of emofuse prepare."
        ),
        flags.DEFINE_string(
            f"{side}_source", None, f"Directory of the {side} corpus; for `folder`, its CSV."
        ),
        flags.DEFINE_string(
            f"{side}_classes", None, f"Class map of the {side} corpus; default: its first one."
        ),
    ]
    for side in ("voice", "face")
}
"""Flags of the voice corpus and of the face corpus."""


def main(argv: Sequence[str]) -> None:
    """Pairs the corpora, writes the clips, composite.csv and composite.json, and prints what was left out.

    The files are written to --output; existing clips stay, the other two files are replaced. `argv` has the
    name of the program and the words that are no flags; none are allowed.

    Raises:
      ValueError: --output, --voice_corpus, --voice_source, --face_corpus or --face_source is missing, there
        is a word without a flag, the extra `prep` is not installed, a corpus or a class map is unknown, a
        table of a corpus is wrong, or the corpora have fewer than two classes or three pairs of speakers in
        common.
      OSError: a corpus does not exist, or a file cannot be read or written.
      ModuleNotFoundError: the sheet of BAUM-1s is an .xlsx file, but openpyxl is not installed.
      zipfile.BadZipFile: this sheet is damaged.
      Exception: the reader of a registered corpus raised it.
    """
    required_flags = [OUTPUT, *(flag for side_flags in FLAGS_BY_SIDE.values() for flag in side_flags[:2])]
    required_values = [flag.value for flag in required_flags if flag.value]
    if argv[1:] or len(required_values) < len(required_flags):
        raise ValueError(
            f"expected the flags {', '.join(f'--{f.name}' for f in required_flags)}, and no words without a"
            " flag; see emofuse composite --help"
        )
    from data_prep.optional_dependencies import require_media

    require_media()
    from data_prep.corpora import read_corpus
    from data_prep.corpora.composite import make_composite

    output, voice_name, voice_source, face_name, face_source = required_values
    voice_corpus = read_corpus(voice_name, voice_source, classes=FLAGS_BY_SIDE["voice"][2].value)
    face_corpus = read_corpus(face_name, face_source, classes=FLAGS_BY_SIDE["face"][2].value)
    count, left_out = make_composite(voice_corpus, face_corpus, output, SEED.value)
    for note in left_out:
        print(note)
    print(f"COMPOSITE: {count} clips in {output}; next: emofuse prepare --corpus=composite")

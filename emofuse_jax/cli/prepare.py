"""Clips to records: decodes, finds faces, and writes shards, manifest, splits and statistics.

  emofuse prepare --corpus=ravdess --source=/data/ravdess --output=/data/records/ravdess
  emofuse prepare --corpus=folder  --source=clips.csv     --output=/data/records/mine

demo: made by `emofuse demo`; ravdess, crema_d, iemocap, afew, enterface05, baum1s: the files as downloaded
(data_prep/corpora/<name>.py says which); folder: a CSV with the columns path,label,speaker
[,start,end,take,half]. What differs from the corpus as distributed is told, and stands in prep.json.
--classes merges or leaves out classes, as 4 or 8; --labels=perceived takes the raters' votes of crema_d;
--subset=improvised the improvised part of iemocap. Stopped at any moment, the same command goes on.
--runner=beam writes the same files by an Apache Beam pipeline (pip install 'emofuse[beam]') and passes its
options on: --beam=--runner=FlinkRunner --beam=--flink_master=HOST:8081. Its workers must see source and
output under the same paths.
prep_report.html shows what was found: faces to look at, detection by class and speaker, lengths, loudness,
and what was masked or failed.
--frames, --snippet and --face_size change what the recipe pins; prep.json tells.
--trim_db cuts clips, sound and picture, to where there is sound within so many dB of the loudest; 0: not.
--waveform stores the sound too, for other programs: 16 kHz, mono, int16 with full scale 32767, 32 KB a
second, empty where the sound is masked. Training does not read it.
--audio_encoder and --face_encoder run frozen encoders: ONNX files, each with a YAML beside it that states its
layout (data_prep/onnx_models/layouts.py). Their features are stored beside the tensors that they read, or
with
--tensors=drop instead of them; --recipe=features samples as fbp does, and drops. Where an encoder fails on a
clip its features are masked and manifest.csv says why; a kept spectrogram stays of use, kept crops do not,
since crops and features of faces share one mask.
--face_detector runs a detector of your own in place of MTCNN, an ONNX file with its YAML; MTCNN runs on a
GPU or TPU with --face_device=accelerator, which all workers share (a TPU takes --workers=1).
"""

import sys

from absl import flags

from data_prep.corpora import CORPORA, read_corpus
from data_prep.settings import DEVICES, RECIPES, PrepSettings, recipe_settings

_CORPUS = flags.DEFINE_enum("corpus", None, sorted(CORPORA), "Which reader understands --source.")
_SOURCE = flags.DEFINE_string("source", None, "Folder of the corpus; for `folder`, its CSV.")
_CLASSES = flags.DEFINE_string("classes", None, "Which class map of the corpus; by default its first.")
_LABELS = flags.DEFINE_string("labels", None, "Whose labels: of crema_d intended or perceived.")
_SUBSET = flags.DEFINE_string("subset", None, "Which part: of iemocap all or improvised.")
_OUTPUT = flags.DEFINE_string("output", None, "Folder to write records into.")
_RECIPE = flags.DEFINE_enum("recipe", "fbp", sorted(RECIPES), "Pinned audio and face settings.")
_FRAMES = flags.DEFINE_integer("frames", None, "Crops of a clip, instead of the recipe's.", lower_bound=1)
_SNIPPET = flags.DEFINE_integer("snippet", None, "Consecutive frames of a snippet, likewise.", lower_bound=1)
_FACE_SIZE = flags.DEFINE_integer("face_size", None, "Side of a crop in pixels, likewise.", lower_bound=1)
_WAVEFORM = flags.DEFINE_bool("waveform", False, "Store the 16 kHz sound beside its spectrogram.")
_TRIM_DB = flags.DEFINE_float("trim_db", None, "Cut silence at both ends, likewise.", lower_bound=0.0)
_FACE_DEVICE = flags.DEFINE_enum(
    "face_device", None, DEVICES, "Where faces are searched for; by default the CPU."
)
_AUDIO_ENCODER = flags.DEFINE_string("audio_encoder", "", "ONNX file of a frozen encoder of sound.")
_FACE_ENCODER = flags.DEFINE_string("face_encoder", "", "ONNX file of a frozen encoder of faces.")
_FACE_DETECTOR = flags.DEFINE_string("face_detector", "", "ONNX file of a face detector of your own.")
_TENSORS = flags.DEFINE_enum(
    "tensors",
    None,
    ["keep", "drop"],
    "Spectrogram and crops that an encoder reads; by default as the recipe.",
)
_WORKERS = flags.DEFINE_integer("workers", None, "Processes; by default the cores.", lower_bound=1)
_SHARDS = flags.DEFINE_integer("shards", None, "Files of records; default: 64 clips each.", lower_bound=1)
_STRICT = flags.DEFINE_bool("strict", False, "End with status 1 if a clip failed.")
_RUNNER = flags.DEFINE_enum("runner", "local", ["local", "beam"], "Where the work is done.")
_BEAM_OPTIONS = flags.DEFINE_multi_string(
    "beam", [], "An option of the Beam pipeline; may stand several times."
)
flags.mark_flags_as_required(["corpus", "source", "output"])


MAX_NOTE_CHARS = 200
"""Longer remarks are cut on the screen; prep.json has them whole."""


def main(argv) -> int:
    """Prepares one corpus; status 1 if the result is wrong, or with --strict if a clip failed."""
    if argv[1:]:
        raise ValueError(f"unexpected argument {argv[1]!r}; see --help")
    from data_prep.onnx_models.encoders import EncoderFiles
    from data_prep.optional_dependencies import require_media
    from data_prep.prepare import prepare  # after --help, which should not wait for it
    from data_prep.probe_encoders import with_encoders
    from emofuse_jax.reporting.prep_report import write_prep_report
    from emofuse_jax.utils.progress_bar import progress_bar

    require_media()
    if _BEAM_OPTIONS.value and _RUNNER.value != "beam":
        raise ValueError("--beam goes with --runner=beam")
    encoders = EncoderFiles(_AUDIO_ENCODER.value, _FACE_ENCODER.value, _FACE_DETECTOR.value)
    settings = with_encoders(settings_from_flags(), encoders, _TENSORS.value)
    corpus = read_corpus(
        _CORPUS.value, _SOURCE.value, classes=_CLASSES.value, labels=_LABELS.value, subset=_SUBSET.value
    )
    for note in corpus.notes:
        print(
            f"{corpus.name}: {note}"
            if len(note) < MAX_NOTE_CHARS
            else f"{corpus.name}: {note[:MAX_NOTE_CHARS]}...",
            file=sys.stderr,
        )
    with progress_bar(f"{corpus.name} clips") as progress:
        summary = prepare(
            corpus,
            settings,
            _OUTPUT.value,
            workers=_WORKERS.value,
            shards=_SHARDS.value,
            progress=progress,
            encoders=encoders,
            beam=_BEAM_OPTIONS.value if _RUNNER.value == "beam" else None,
        )
    for path, reason in summary.failed:
        print(f"failed: {path}: {reason}", file=sys.stderr)
    for problem in summary.problems:
        print(f"wrong: {problem}", file=sys.stderr)
    counts = f"{summary.num_complete} kept, {summary.masked} masked, {len(summary.failed)} failed"
    print(f"{summary.output}: {counts}; reasons in manifest.csv")
    print(f"look at {write_prep_report(summary.output)}")
    return int(bool(summary.problems) or (_STRICT.value and bool(summary.failed)))


def settings_from_flags() -> PrepSettings:
    """The recipe, with what the flags change."""
    return recipe_settings(
        _RECIPE.value,
        frames=_FRAMES.value,
        snippet=_SNIPPET.value,
        face_size=_FACE_SIZE.value,
        device=_FACE_DEVICE.value,
        waveform=_WAVEFORM.value,
        trim_db=_TRIM_DB.value,
    )

"""Model cards (Mitchell et al., arXiv 1810.03993) and data cards (Gebru et al., arXiv 1803.09010)."""

import collections
import datetime
import os
import pathlib
from collections.abc import Mapping, Sequence

from emofuse_jax.data.dataset import Dataset, read_json
from emofuse_jax.data.records import read_manifest
from emofuse_jax.models.registry import FUSIONS
from emofuse_jax.reporting import page, text
from emofuse_jax.scoring.result_labels import corpus_marks
from emofuse_jax.scoring.use_statements import INTENDED_USE, LEGAL_NOTICE, LIMITATIONS
from emofuse_jax.utils.files import write_atomic

MODEL_CARD, DATA_CARD = "MODEL_CARD.md", "DATA_CARD.md"
MAX_NOTE_CHARS = 200
"""Letters of a note that a data card shows; prep.json has all."""

DATA_LIMITATIONS = (
    "Labels are categories that actors were asked for or raters chose; neither is what a person felt. Few"
    " speakers of few ages and origins: differences between groups cannot be measured here. The corpus has a"
    " licence and its people gave consent for certain uses: this directory may be used and passed on only as"
    " far as they allow."
)
CORPUS_DESCRIPTIONS = {
    "ravdess": (
        "RAVDESS, speech part: professional actors, North American English, two sentences, acted emotions"
        " in a studio (Livingstone & Russo, 2018, PLoS ONE 13(5): e0196391; CC BY-NC-SA 4.0)."
    ),
    "crema_d": (
        "CREMA-D: actors of several origins, English, twelve sentences, acted emotions (Cao et al., 2014,"
        " IEEE Trans. Affective Computing 5(4); Open Database License)."
    ),
    "iemocap": (
        "IEMOCAP: ten actors in pairs, English, scripted and improvised dialogues, motion-capture markers"
        " on some faces (Busso et al., 2008, Language Resources and Evaluation 42(4); by agreement)."
    ),
    "afew": (
        "AFEW: short cuts from films, many people, light and noise as in films (Dhall et al., 2012, IEEE"
        " MultiMedia 19(3); by agreement)."
    ),
    "enterface05": (
        "eNTERFACE'05: people of many nations, English, elicited emotions (Martin et al., 2006, ICDE"
        " Workshops)."
    ),
    "baum1s": (
        "BAUM-1s: spontaneous reactions, Turkish (Zhalehpour et al., 2017, IEEE Trans. Affective Computing"
        " 8(3); by agreement)."
    ),
    "demo": ("Drawn faces and synthesised voices, made by emofuse to try the programs."),
    "composite": (
        "Voices of one corpus paired by label with faces of another, by emofuse: no such people exist."
    ),
    "folder": ("Clips that a CSV of the user's names."),
}


def make_checkpoint_card(metadata: Mapping, results: Mapping | None = None) -> str:
    """The model card of one trained network.

    Args:
      metadata: the checkpoint's metadata (training/experiment.py).
      results: of `emofuse evaluate` on its test part; None where it was not scored.
    """
    score_rows = (
        {text.MODALITY_NAMES[name]: row for name, row in results["modalities"].items()} if results else {}
    )
    return render_model_card(
        metadata,
        score_rows,
        scored_on=f"{len(results['clips'])} {results['split']} clips of unseen speakers." if results else "",
        fold=f", fold {metadata['fold']}",
        training_speakers=metadata["training_speakers"],
        validation=format_validation_score(metadata),
    )


def format_validation_score(metadata: Mapping) -> str:
    """The validation UA of a checkpoint, or why there is none."""
    if not metadata["config"].get("data", {}).get("hold_out", True):
        return "unknown: no clips were held out"
    best_ua = (metadata.get("progress") or {}).get("best_ua")
    return "not kept with the checkpoint" if best_ua is None else f"{text.format_percent(best_ua)} %"


def make_crossval_card(metadata: Mapping, results: Mapping) -> str:
    """The model card of all networks of a cross-validation; `metadata`: metadata of one of them."""
    clips = len({clip for run in results["runs"] for clip in run["clips"]})
    return render_model_card(
        metadata,
        {"all answers pooled": results["pooled"]},
        scored_on=f"{clips} test clips, by {len(results['runs'])} networks that had not met their speakers.",
        fold=", all folds",
    )


def render_model_card(
    metadata: Mapping,
    score_rows: Mapping[str, Mapping],
    *,
    scored_on: str,
    fold: str,
    training_speakers: Sequence[str] = (),
    validation: str = "",
) -> str:
    """Markdown from a checkpoint's metadata and rows of scores."""
    columns = [name for name in text.METRIC_NAMES if any(name in row for row in score_rows.values())]
    model_config, corpus = metadata["config"]["model"], metadata["corpus"]
    temperature, modalities = metadata.get("temperature"), FUSIONS[model_config["fusion"]["name"]].modalities
    return page.render_text(
        "model_card.md",
        title=f"{metadata['config'].get('name', '')} on {corpus}",
        marks=corpus_marks(corpus, metadata.get("leaks", ())),
        classes=metadata["classes"],
        facts=[
            ("Fusion", f"`{model_config['fusion']['name']}`"),
            *((f"Encoder, {name}", f"`{model_config[name]['encoder']}`") for name in modalities),
            ("Recipe of its input", f"`{metadata['settings']['recipe']}`"),
        ],
        intended_use=INTENDED_USE,
        corpus=corpus,
        protocol=metadata["protocol"],
        fold=fold,
        described=describe_corpus(corpus),
        speakers=training_speakers,
        scores=[
            (name, [format_score_cell(row, column) for column in columns]) for name, row in score_rows.items()
        ],
        columns=[text.METRIC_NAMES[column][0] for column in columns],
        scored_on=scored_on,
        validation=validation,
        confidence=f"Temperature of its probabilities: {temperature:.2f}."
        if temperature and training_speakers
        else "",
        limits=LIMITATIONS,
        law=LEGAL_NOTICE,
        date=datetime.date.today().isoformat(),
        versions=format_versions(metadata["versions"]),
    )


def make_data_card(dataset: Dataset) -> str:
    """The data card of a directory of records."""
    prep, manifest_rows = dataset.prep, read_manifest(dataset.path)
    rows_with_record = [row for row in manifest_rows if int(row["index"]) >= 0]
    status_counts = collections.Counter(row["status"] for row in manifest_rows)
    label_counts = collections.Counter(int(row["label"]) for row in rows_with_record)
    clips_per_speaker = collections.Counter(row["speaker"] for row in rows_with_record)
    class_names = dict(enumerate(prep["classes"])) | ({-1: "without a label"} if label_counts[-1] else {})
    settings = prep["settings"]
    return page.render_text(
        "data_card.md",
        corpus=prep["corpus"],
        marks=corpus_marks(prep["corpus"]),
        described=describe_corpus(prep["corpus"]),
        facts=[
            (
                "Clips",
                f"{len(rows_with_record)} ({status_counts['masked']} with a stream masked;"
                f" {status_counts['failed']} failed)",
            ),
            ("Speakers", str(len(clips_per_speaker))),
            ("Recipe", f"`{settings['recipe']}`"),
            ("Sound", ", ".join(f"{name} {value}" for name, value in settings["audio"].items())),
            ("Faces", ", ".join(f"{name} {value}" for name, value in settings["face"].items())),
            ("SHA-256 over all source files", f"`{prep['sources_sha256']}`"),
        ],
        notes=[
            note if len(note) <= MAX_NOTE_CHARS else f"{note[:MAX_NOTE_CHARS]}..." for note in prep["notes"]
        ],
        classes=[(name, label_counts[label]) for label, name in class_names.items()],
        speakers=[
            (name, prep["sex"].get(name, "not known"), n) for name, n in sorted(clips_per_speaker.items())
        ],
        limits=DATA_LIMITATIONS,
        versions=format_versions(prep["versions"]),
    )


def describe_corpus(corpus: str) -> str:
    """What is known of a corpus."""
    return CORPUS_DESCRIPTIONS.get(corpus.removesuffix("_demo"), "")


def format_score_cell(row: Mapping, metric: str) -> str:
    """`71.3 [65.0–77.0]`; a dash where it is not known."""
    interval = text.format_interval(row.get(f"{metric}_interval"))
    return text.format_percent(row.get(metric)) + (f" [{interval}]" if interval else "")


def format_versions(package_versions: Mapping[str, str]) -> str:
    """Names and versions as one phrase."""
    return ", ".join(f"{name} {version}" for name, version in package_versions.items())


def write_data_card(directory: str, dataset: Dataset) -> None:
    """Writes the data card of a dataset into a directory, which is made."""
    write_card(directory, DATA_CARD, make_data_card(dataset))


def write_card(directory: str, file_name: str, card: str) -> None:
    """Writes a card, whole or not at all."""
    os.makedirs(directory, exist_ok=True)
    write_atomic(pathlib.Path(directory, file_name), card.encode())


def collect_cards(workdir: str, metadata: dict) -> dict[str, str]:
    """The model's card, with test scores where `emofuse evaluate` has left some, and that of its data."""
    results_path = os.path.join(workdir, "evaluation", "test", "results.json")
    test_results = read_json(results_path) if os.path.exists(results_path) else None
    if test_results and test_results["checkpoint_step"] != metadata["step"]:
        test_results = None  # of another checkpoint
    cards = {MODEL_CARD: make_checkpoint_card(metadata, test_results)}
    data_card_path = os.path.join(workdir, DATA_CARD)
    if os.path.exists(data_card_path):
        with open(data_card_path, encoding="utf-8") as file:
            cards[DATA_CARD] = file.read()
    return cards

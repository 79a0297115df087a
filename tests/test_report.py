"""The report: one page that stands alone, shows the numbers it was given, and survives what is missing."""

import base64
import copy
import html.parser
import io
import re
import subprocess
import sys

import numpy as np
import pytest

from emofuse_jax import report
from emofuse_jax.reporting import attention, classes, curves, gallery, scores, style, tables, text

CLASSES = ["calm", "happy", "sad <b>&</b>"]
SECTIONS = (
    "provenance",
    "results",
    "comparison",
    "learning",
    "confusion",
    "speakers",
    "mistakes",
    "examples",
)


class Page(html.parser.HTMLParser):
    """What a browser would find: ids, every reference to a file, images, text, and whether tags close."""

    VOID = {"meta", "img", "source", "br", "link", "input"}

    def __init__(self, markup: str):
        super().__init__()
        self.ids, self.references, self.images, self.tags, self.open = [], [], [], [], []
        self.words = []
        self.feed(markup)
        self.close()

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        if "id" in attributes:
            self.ids.append(attributes["id"])
        self.references += [
            attributes[name] for name in ("src", "srcset", "href", "data") if name in attributes
        ]
        if tag == "img":
            self.images.append(attributes)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def make_scores(confusion, ua=0.8123) -> dict:
    confusion = np.asarray(confusion)
    recall = np.diag(confusion) / confusion.sum(1)
    values = {"wa": 0.7611, "ua": ua, "wf1": 0.7522, "mf1": 0.7433, "recall": recall.tolist()}
    intervals = {f"{name}_interval": [values[name] - 0.05, values[name] + 0.04] for name in text.METRICS}
    return values | intervals | {"confusion": confusion.tolist()}


def make_results() -> dict:
    both = [[8, 1, 1], [2, 7, 1], [0, 1, 9]]
    return {
        "config": "am_fbp",
        "dataset": "/data/private/demo_fbp/",
        "date": "2026-11-21",
        "corpus": "demo",
        "protocol": "speakers",
        "fold": 0,
        "split": "test",
        "checkpoint_step": 540,
        "classes": CLASSES,
        "clips": ["a-1", "a-2", "b-1", "b-2"],
        "labels": [0, 1, 2, -1],
        "speakers": ["a", "a", "b<i>", "b<i>"],
        "probabilities": [[0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.05, 0.9, 0.05], [0.2, 0.2, 0.6]],
        "modalities": {
            "both": make_scores(both),
            "audio": make_scores([[4, 3, 3], [3, 4, 3], [3, 3, 4]], ua=0.4012),
            "video": make_scores([[6, 2, 2], [2, 6, 2], [2, 2, 6]], ua=0.6034),
        },
        "per_speaker": {
            "a": {"ua": 0.9123, "wa": 0.9, "clips": 2},
            "b<i>": {"ua": 0.55, "wa": 0.5, "clips": 2},
        },
        "versions": {"jax": "0.10.2"},
    }


def make_history() -> list[dict]:
    keys = ("train_loss", "train_ua", "validation_loss", "validation_ua")
    values = [(1.8, 0.2, 1.7, 0.3), (1.0, 0.6, 1.1, 0.65), (0.5, 0.9, 1.2, 0.6)]
    return [
        {"epoch": i + 1, "step": 10 * i} | dict(zip(keys, row, strict=True)) for i, row in enumerate(values)
    ]


def make_example(**changes) -> dict:
    rng = np.random.default_rng(0)
    mask = np.array([True, False, True, True])
    example = {
        "clip_id": "a-1 <script>$x$",
        "label": "calm",
        "prediction": "happy",
        "probabilities": {"calm": 0.31, "happy": 0.64, "sad <b>&</b>": 0.05},
        "spectrogram": rng.normal(size=(60, 20)).astype(np.float32),
        "seconds": 0.6,
        "max_hz": 4000.0,
        "audio_attention": rng.random((8, 3)),
        "faces": rng.integers(0, 255, (4, 12, 12, 3), np.uint8),
        "face_mask": mask,
        "face_time": np.linspace(0, 0.6, 4, dtype=np.float32),
        "video_attention": np.where(mask, 1 / 3, 0),
        "voice_weight": 0.625,
        "face_weight": 0.375,
    }
    return example | changes


def make_comparison() -> dict:
    row = {"ua": 0.9231, "wa": 0.9142, "wf1": 0.9053, "ua_interval": [0.88, 0.96]}
    return {
        "both": row,
        "voice": row | {"ua": 0.3127, "ua_interval": [0.28, 0.33]},
        "face": row | {"ua": 0.4718},
        "ceilings": {"voice": 0.3251, "face": 0.4922, "additive": 0.8213, "both": 0.9824},
    }


def write(folder, **changes) -> tuple[str, Page]:
    arguments = {
        "results": make_results(),
        "history": make_history(),
        "examples": [make_example()],
        "title": "Report <em>one</em>",
        "comparison": make_comparison(),
        "marks": ["SYNTHETIC: drawn <faces>", "LEAKY"],
    }
    report.write_report(folder / "report.html", **(arguments | changes))
    markup = (folder / "report.html").read_text("utf-8")
    return markup, Page(markup)


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    return folder, *write(folder)


def pixels(png: bytes) -> np.ndarray:
    from matplotlib import image

    return image.imread(io.BytesIO(png), format="png")


def test_page_is_whole_and_stands_alone(full):
    _, markup, page = full
    assert not page.open
    assert "script" not in page.tags
    assert set(SECTIONS) <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))
    for reference in page.references:
        assert reference.startswith("data:image/png;base64,") or reference[1:] in page.ids
    plain = re.sub(r"base64,[A-Za-z0-9+/=]+", "", markup)
    assert not re.search(r"https?://|url\(|@import", plain)


def test_pictures_decode_have_alternative_text_and_both_themes(full):
    folder, _, page = full
    assert len(page.images) == 7
    assert all(len(image["alt"]) > 30 for image in page.images)
    uris = [reference for reference in page.references if reference.startswith("data:")]
    assert len(uris) == 14
    brightness = [pixels(base64.b64decode(uri.split(",")[1]))[..., :3].mean() for uri in uris]
    assert all(dark < 0.5 < light for dark, light in zip(brightness[::2], brightness[1::2], strict=True))
    shown = {base64.b64decode(image["src"].split(",")[1]) for image in page.images}
    files = sorted((folder / "figures").iterdir())
    assert {path.read_bytes() for path in files} == shown
    assert [path.stem for path in files] == [
        "comparison", "confusion", "example_1", "learning_loss", "learning_ua", "recall", "speakers",
    ]  # fmt: skip
    assert sorted(path.name for path in folder.iterdir()) == ["figures", "report.html"]


def test_numbers_are_those_given(full):
    _, _, page = full
    assert "sound and face 76.1 71.1–80.1 81.2 76.2–85.2 75.2 70.2–79.2 74.3 69.3–78.3" in page.text
    assert "sound only 76.1 71.1–80.1 40.1 35.1–44.1" in page.text
    assert "voice alone 91.4 31.3 28.0–33.0 90.5 32.5" in page.text
    assert "additive ceiling 82.1" in page.text
    assert "calm 10 80.0 40.0 60.0" in page.text  # recall table
    assert "a 91.2 90.0 2 b<i> 55.0 50.0 2" in page.text
    assert "Chance is 33.3 %" in page.text
    for fact in ("am_fbp", "demo_fbp", "speakers", "step 540", "2026-11-21", "jax 0.10.2."):
        assert fact in page.text
    assert "private" not in page.text
    alts = " ".join(image["alt"] for image in page.images)
    for part in ("both together 92.3 % (95 % interval 88.0–96.0), ceiling 98.2 %", "additive ceiling 82.1 %"):
        assert part in alts
    for part in ("best epoch 2", "happy 64.0 %", "voice 62 %, face 38 %", "3 of 4 frames with a face"):
        assert part in alts


def test_mistakes_are_the_confident_wrong_ones_and_leave_unlabelled_clips_out():
    rows = tables.mistakes(make_results())
    assert [(row["clip"], row["prediction"], row["confidence"]) for row in rows] == [
        ("b-1", "happy", "90.0"),
        ("a-2", "calm", "60.0"),
    ]


def test_names_are_escaped_and_marks_are_loud(full):
    _, markup, page = full
    assert "<em>one" not in markup
    assert "<script" not in markup
    assert "<b>&</b>" not in markup
    assert "Report <em>one</em>" in page.text  # as text
    assert "a-1 <script>$x$: calm, taken for happy" in page.text
    assert "SYNTHETIC: drawn <faces>" in page.text
    assert "[SYNTHETIC] [LEAKY] Report" in page.text
    assert markup.index('class="marks"') < markup.index("<h1>")


def test_marks_are_stamped_into_the_pictures():
    alarm = np.array([int(style.LIGHT.alarm[i : i + 2], 16) for i in (1, 3, 5)]) / 255

    def stamped(marks):
        picture = curves.loss_picture(make_history(), marks)
        return (np.abs(pixels(picture.light)[..., :3] - alarm).max(-1) < 0.02).sum()

    assert stamped(["SYNTHETIC: x"]) > 50
    assert stamped([]) == 0


def test_missing_parts(tmp_path):
    results = make_results()
    for name in (
        "per_speaker",
        "clips",
        "labels",
        "speakers",
        "probabilities",
        "versions",
        "dataset",
        "date",
        "fold",
    ):
        del results[name]
    results["modalities"] = {"video": results["modalities"]["video"]}
    _, page = write(tmp_path, results=results, history=[], examples=[], comparison=None, marks=())
    assert not page.open
    assert "comparison" not in page.ids
    assert "sound and face" not in page.text
    assert "face only 76.1" in page.text
    for sentence in ("No learning curves were recorded", "No clips were chosen", "No scores by speaker"):
        assert sentence in page.text
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {"confusion.png", "recall.png"}


def test_absent_class_is_a_dash(tmp_path):
    results = make_results()
    row = make_scores([[8, 1, 1], [2, 7, 1], [1, 1, 1]])
    row["confusion"][2] = [0, 0, 0]
    row["recall"][2] = float("nan")
    results["modalities"] = {"both": row | {"mf1": float("nan"), "mf1_interval": [float("nan")] * 2}}
    results["per_speaker"]["a"]["ua"] = float("nan")
    _, page = write(tmp_path, results=results, examples=[])
    assert "nan" not in page.text.lower().replace("provenance", "")
    assert "75.2 70.2–79.2 –" in page.text
    assert "sad <b>&</b> 0 –" in page.text
    assert "b<i> 55.0 50.0 2 a – 90.0 2" in page.text


def test_history_with_gaps_and_single_points():
    rows = [
        {"step": 5, "train_loss": 2.0},
        {"epoch": 0.5, "train_loss": float("nan")},
        {"epoch": 1, "validation_loss": 1},
    ]
    assert curves.ua_picture(rows, 0.5) is None
    assert "validation from 1 to 1; best epoch 1" in curves.loss_picture(rows).alt
    assert curves.best_row(make_history())["epoch"] == 2
    assert curves.best_row([{"epoch": 1, "train_loss": 1.0}]) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"spectrogram": None, "audio_attention": None},
        {"spectrogram": np.zeros((0, 20), np.float32)},
        {"spectrogram": np.zeros((30, 20), np.float32), "audio_attention": np.zeros((8, 3))},
        {"audio_attention": np.ones(8)},
        {"faces": None, "face_mask": None, "face_time": None, "video_attention": None},
        {"face_mask": np.zeros(4, bool), "video_attention": np.zeros(4)},
        {"face_time": None, "video_attention": None, "voice_weight": None, "face_weight": None},
        {"voice_weight": float("nan"), "probabilities": {f"class {i}": float("nan") for i in range(12)}},
    ],
)
def test_examples_with_parts_missing(changes):
    picture = gallery.example_picture(3, make_example(**changes))
    assert picture.name == "example_3"
    assert pixels(picture.light).std() > 0.05


def test_long_clips_show_a_selection_of_frames():
    shown = gallery.shown_frames(100)
    assert len(shown) == gallery.FACES_SHOWN
    assert (shown[0], shown[-1]) == (0, 99)
    np.testing.assert_array_equal(gallery.shown_frames(3), [0, 1, 2])
    assert len(gallery.shown_frames(0)) == 0


def test_relative_attention_is_one_where_even_and_ignores_invalid_frames():
    np.testing.assert_allclose(attention.relative_attention(np.full((4, 5), 0.05)), 1.0)
    got = attention.relative_attention(np.array([0.3, 9.0, 0.1]), np.array([True, False, True]))
    np.testing.assert_allclose(got, [1.5, 0.0, 0.5])
    assert attention.relative_attention(None) is None
    assert attention.relative_attention(np.zeros(3)) is None


def test_row_rates_keep_an_empty_class_unknown():
    rates = classes.row_rates(np.array([[3, 1], [0, 0]]))
    np.testing.assert_array_equal(rates, [[0.75, 0.25], [np.nan, np.nan]])


def test_numbers_as_text():
    assert [text.percent(x) for x in (0.7134, 1.0, 0, None, float("nan"), float("inf"))] == [
        "71.3", "100.0", "0.0", "–", "–", "–",
    ]  # fmt: skip
    assert text.interval([0.65, 0.77]) == "65.0–77.0"
    assert text.interval([float("nan"), 0.7]) == text.interval(None) == ""
    assert text.shorten("abcdef", 4) == "abc…"


def test_many_classes_and_speakers():
    count = 14
    names = [f"a long class name {i}" for i in range(count)]
    confusion = np.eye(count, dtype=int) * 5
    assert pixels(classes.confusion_picture(confusion, names).light).size
    assert pixels(classes.recall_picture({"both": np.ones(count)}, names).light).size
    speakers = {f"speaker {i}": {"ua": i / 91, "clips": 80} for i in range(91)}
    picture = scores.speaker_picture(speakers, 1 / count, None)
    assert picture.height < 600


def test_a_second_report_replaces_the_first_and_its_pictures(tmp_path):
    write(tmp_path, examples=[make_example(), make_example()])
    (tmp_path / "figures" / "mine.png").write_bytes(b"keep")
    write(tmp_path, examples=[], comparison=None)
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    assert "mine.png" in names
    assert not names & {"example_1.png", "example_2.png", "comparison.png"}


def test_a_failed_write_leaves_the_old_page(tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    path.write_text("old")

    def full_disk(*_):
        raise OSError("no space left")

    monkeypatch.setattr(report.os, "replace", full_disk)
    with pytest.raises(OSError, match="no space left"):
        write(tmp_path, examples=[])
    assert path.read_text() == "old"
    assert not [name for name in tmp_path.rglob(".*")]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.pop("classes"), r"results\['classes'\] is missing"),
        (lambda r: r.update(modalities={}), r"results\['modalities'\] is missing or empty"),
        (lambda r: r["modalities"].update(smell={}), "'smell'.* is not a modality, expected one of both"),
        (lambda r: r["modalities"]["both"]["recall"].pop(), "recall.* has length 2, expected 3 classes"),
        (lambda r: r["modalities"]["both"]["confusion"][0].pop(), "not square, expected 3 x 3"),
        (lambda r: r["labels"].pop(), r"have lengths \[4, 3, 4, 4\]"),
        (lambda r: r["probabilities"][1].pop(), "length other than 3 classes"),
    ],
)
def test_wrong_results_are_one_clear_line(tmp_path, change, message):
    results = copy.deepcopy(make_results())
    change(results)
    with pytest.raises(ValueError, match=message) as caught:
        write(tmp_path, results=results)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_wrong_examples_are_one_clear_line(tmp_path):
    with pytest.raises(ValueError, match="video_attention has length 3, expected 4 faces"):
        write(tmp_path, examples=[make_example(video_attention=np.ones(3))])
    with pytest.raises(ValueError, match="face_mask is missing, expected 4 flags"):
        write(tmp_path, examples=[make_example(face_mask=None)])


def test_import_is_light_and_drawing_leaves_pyplot_alone(tmp_path):
    code = """
import sys
from emofuse_jax import report
assert "matplotlib" not in sys.modules
from emofuse_jax.reporting import curves
curves.loss_picture([{"epoch": 1, "train_loss": 1.0}])
assert "matplotlib" in sys.modules and "matplotlib.pyplot" not in sys.modules
import matplotlib
assert matplotlib.rcParams["text.parse_math"]
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)

"""Inputs of a report, small and with awkward names, and a reader of the page that comes out."""

import html.parser
import io

import numpy as np

from emofuse_jax.reporting import run_report, text
from emofuse_jax.reporting.figures.score_figures import NetworkComparison

CLASSES = ["calm", "happy", "sad <b>&</b>"]


class Page(html.parser.HTMLParser):
    """What a browser would find: ids, every reference to a file, images, text, and whether tags close."""

    VOID_TAGS = {"meta", "img", "source", "br", "link", "input"}

    def __init__(self, markup: str):
        super().__init__()
        self.ids, self.references, self.images, self.tags, self.open = [], [], [], [], []
        self.text_parts = []
        self.feed(markup)
        self.close()

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append(tag)
        if tag not in self.VOID_TAGS:
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
            self.text_parts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.text_parts).split())


def make_scores(confusion, ua=0.8123) -> dict:
    confusion = np.asarray(confusion)
    recall = np.diag(confusion) / confusion.sum(1)
    values = {"wa": 0.7611, "ua": ua, "wf1": 0.7522, "mf1": 0.7433, "recall": recall.tolist()}
    intervals = {f"{name}_interval": [values[name] - 0.05, values[name] + 0.04] for name in text.METRIC_NAMES}
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


def make_comparison() -> NetworkComparison:
    row = {"ua": 0.9231, "wa": 0.9142, "wf1": 0.9053, "ua_interval": [0.88, 0.96]}
    networks = {
        "both": row,
        "voice": row | {"ua": 0.3127, "ua_interval": [0.28, 0.33]},
        "face": row | {"ua": 0.4718},
    }
    return NetworkComparison(networks, {"voice": 0.3251, "face": 0.4922, "additive": 0.8213, "both": 0.9824})


def write_page(folder, **changes) -> tuple[str, Page]:
    arguments = {
        "results": make_results(),
        "history": make_history(),
        "examples": [make_example()],
        "title": "Report <em>one</em>",
        "comparison": make_comparison(),
        "marks": ["SYNTHETIC: drawn <faces>", "LEAKY"],
    }
    run_report.write_report(folder / "report.html", **(arguments | changes))
    markup = (folder / "report.html").read_text("utf-8")
    return markup, Page(markup)


def decode_png(png: bytes) -> np.ndarray:
    from matplotlib import image

    return image.imread(io.BytesIO(png), format="png")

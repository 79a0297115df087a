"""A frozen encoder met before the first clip: its YAML read, its shapes looked at, one run on zeros."""

import dataclasses
import os

import numpy as np

from data_prep.faces.onnx_detector import run_detector
from data_prep.onnx_models.encoder_settings import EncoderSettings, FeatureSettings
from data_prep.onnx_models.encoders import (
    EncoderError,
    EncoderFiles,
    declared,
    open_graph,
    run_graph,
    told_by_flag,
)
from data_prep.onnx_models.layouts import AudioLayout, DetectorLayout, FaceLayout, layout_path, read_layout
from data_prep.optional_dependencies import require_onnx
from data_prep.settings import PrepSettings
from emofuse_jax.utils import onnx_files
from emofuse_jax.utils.files import file_sha256

PROBE_MS = 4000.0
"""Length of the zeros that an audio encoder is tried on, and by how much longer the second ones are."""
PROBE_STEPS = 60
"""At least so many vectors long they are, so that a hop that is 5 % wrong shows."""
SPARE = 3
"""Vectors more or fewer than `hop_ms` says that pass: borders of convolutions cost a few."""
ROUNDING = 0.02
"""Share by which `hop_ms` may be rounded; told by the second length, where borders cancel."""


def with_encoders(settings: PrepSettings, files: EncoderFiles, tensors: str | None = None) -> PrepSettings:
    """Settings that run the encoders of `files`; `tensors` (keep, drop) replaces what the recipe says.

    Reads the YAML beside each file and runs it once on zeros. Raises ValueError, one line naming file and key
    or shape, where something does not fit; or when tensors are to be dropped and there is no encoder.
    """
    found = {kind: describe(kind, getattr(files, kind), settings) for kind in onnx_files.FLAG_NAMES}
    who = f"recipe {settings.recipe!r} drops" if tensors is None else f"--tensors={tensors} leaves out"
    tensors = settings.features.tensors if tensors is None else tensors
    if tensors == "drop" and not (found["audio"] or found["face"]):
        raise ValueError(f"{who} the tensors: give --audio_encoder or --face_encoder")
    return dataclasses.replace(settings, features=FeatureSettings(tensors, **found))


def describe(kind: str, path: str, settings: PrepSettings) -> EncoderSettings | None:
    """The settings of the encoder at `path`, tried on zeros; None without a path."""
    if not path:
        return None
    require_onnx()
    with told_by_flag(kind, path):
        digest = file_sha256(path)
    layout = read_layout(kind, path)
    encoder = EncoderSettings(os.path.basename(path), digest, 0, layout)
    graph = open_graph(path, digest, 1)
    probe = {"audio": _probe_sound, "face": _probe_faces, "detector": _probe_detector}[kind]
    return dataclasses.replace(encoder, width=probe(graph, path, layout, settings))


def _probe_sound(graph, path: str, layout: AudioLayout, settings: PrepSettings) -> int:
    """Tries [1 n] or [1 t f] of zeros; the width of the answer, or ValueError saying what is wrong."""
    audio, span = settings.audio, max(PROBE_MS, layout.minimum_ms, PROBE_STEPS * layout.hop_ms)
    waveform = layout.layout == "waveform"
    _check_bins(path, layout, audio.bins)
    _check_ends(graph, path, layout, ["1", "n"] if waveform else ["1", "t", str(audio.bins)])
    steps = []
    for ms in (span, 2 * span):
        n = round(ms * audio.sample_rate / 1000) if waveform else round(ms / audio.hop_ms) + 1
        answer = _try(graph, path, layout, (1, n) if waveform else (1, n, audio.bins))
        if answer.ndim != 3 or answer.shape[0] != 1 or not answer.shape[2]:
            raise ValueError(f"{path}: output {layout.output!r} is {list(answer.shape)}, expected [1, u, d]")
        steps.append(answer.shape[1])
    _check_hop(path, layout, span, *steps)
    return answer.shape[2]


def _check_hop(path: str, layout: AudioLayout, span: float, short: int, long: int) -> None:
    """`short` steps for `span` ms of zeros and `long` for twice that are what `hop_ms` says."""
    expected = span / layout.hop_ms
    checks = (("", short, max(SPARE, 0.1 * expected)), ("more ", long - short, max(1.5, ROUNDING * expected)))
    for more, found, spare in checks:
        if abs(found - expected) > spare:
            raise ValueError(
                f"{path}: output {layout.output!r} has {found} {more}steps for {span / 1000:g} s {more}of"
                f" zeros, expected about {expected:.0f} by hop_ms {layout.hop_ms:g} of {layout_path(path)}"
            )


def _probe_faces(graph, path: str, layout: FaceLayout, settings: PrepSettings) -> int:
    """Tries two faces of zeros, or one where the graph takes no more; the width of the answer."""
    side = layout.size
    inner = (3, side, side) if layout.layout == "nchw" else (side, side, 3)
    _check_ends(graph, path, layout, ["n", *map(str, inner)])
    n = 1 if declared(graph, layout.input)[:1] == [1] else 2
    answer = _try(graph, path, layout, (n, *inner))
    if answer.ndim != 2 or answer.shape[0] != n or not answer.shape[1]:
        raise ValueError(
            f"{path}: output {layout.output!r} is {list(answer.shape)} for {n} faces, expected [{n}, d]"
        )
    return answer.shape[1]


def _probe_detector(graph, path: str, layout: DetectorLayout, settings: PrepSettings) -> int:
    """Tries one black frame; its width is 0."""
    inner = (3, *layout.size) if layout.layout == "nchw" else (*layout.size, 3)
    _check_ends(graph, path, layout, ["1", *map(str, inner)], ("boxes", "scores", "landmarks"))
    try:
        run_detector(graph, layout, np.zeros((*layout.size, 3), np.uint8))
    except EncoderError as error:
        raise ValueError(f"{path}: fails on a black frame: {error}") from error
    return 0


def _check_bins(path: str, layout: AudioLayout, bins: int) -> None:
    """Numbers a bin must be as many as there are bins; a waveform takes single ones."""
    fixed = layout.normalisation if isinstance(layout.normalisation, dict) else {}
    for key, value in fixed.items():
        count = bins if layout.layout == "spectrogram" else 1
        if isinstance(value, list) and len(value) != count:
            raise ValueError(
                f"{layout_path(path)}: key 'normalisation' has {len(value)} numbers for {key},"
                f" expected {count}"
            )


def _check_ends(graph, path: str, layout, taken: list[str], outputs: tuple[str, ...] = ("output",)) -> None:
    """The graph has the input and `outputs` of the YAML, and that input can have the shape `taken`."""
    for key, ends in (("input", graph.get_inputs()), *((key, graph.get_outputs()) for key in outputs)):
        names = [end.name for end in ends]
        if getattr(layout, key) not in names or (key == "input" and len(names) > 1):
            alone = " as the only one" if key == "input" else ""
            raise ValueError(
                f"{path}: its {'inputs' if key == 'input' else 'outputs'} are {', '.join(names)};"
                f" {layout_path(path)} names {getattr(layout, key)!r}{alone}"
            )
    end = next(end for end in graph.get_inputs() if end.name == layout.input)
    found = declared(graph, layout.input)
    told = [d if isinstance(d, int) else "any" for d in found]
    fits = len(found) == len(taken) and all(
        not isinstance(d, int) or str(d) == t or (t == "n" and i == 0 and d == 1)
        for i, (d, t) in enumerate(zip(found, taken, strict=True))
    )
    if not fits or end.type != "tensor(float)":
        raise ValueError(
            f"{path}: input {layout.input!r} is {end.type}{told}, expected tensor(float)"
            f"[{', '.join(taken)}] by {layout_path(path)}"
        )


def _try(graph, path: str, layout, shape: tuple) -> np.ndarray:
    try:
        return np.asarray(run_graph(graph, layout, np.zeros(shape, np.float32), path))
    except EncoderError as error:
        raise ValueError(f"{path}: fails on zeros of shape {list(shape)}: {error}") from error

"""A frozen encoder met before the first clip: its YAML read, its shapes looked at, one run on zeros."""

import dataclasses
import os

import numpy as np

from data_prep.faces.onnx_detector import run_detector
from data_prep.onnx_models.encoder_settings import EncoderSettings, FeatureSettings
from data_prep.onnx_models.encoders import (
    EncoderError,
    EncoderFiles,
    get_input_shape,
    name_flag_in_error,
    open_session,
    run_session,
)
from data_prep.onnx_models.layouts import AudioLayout, DetectorLayout, FaceLayout, layout_path, read_layout
from data_prep.optional_dependencies import require_onnx
from data_prep.settings import PrepSettings
from emofuse_jax.utils import onnx_files
from emofuse_jax.utils.files import file_sha256

PROBE_MS = 4000.0
"""Length of the zeros that an audio encoder is tried on, and by how much longer the second ones are."""
MIN_PROBE_STEPS = 60
"""At least so many vectors long they are, so that a hop that is 5 % wrong shows."""
STEP_TOLERANCE = 3
"""Vectors more or fewer than `hop_ms` says that pass: borders of convolutions cost a few."""
HOP_TOLERANCE_FRACTION = 0.02
"""Share by which `hop_ms` may be rounded; told by the second length, where borders cancel."""


def with_encoders(
    settings: PrepSettings, encoder_files: EncoderFiles, tensors: str | None = None
) -> PrepSettings:
    """Settings that run the encoders of `encoder_files`; `tensors` (keep, drop) replaces what the recipe
    says.

    Reads the YAML beside each file and runs it once on zeros. Raises ValueError, one line naming file and key
    or shape, where something does not fit; or when tensors are to be dropped and there is no encoder.
    """
    encoders = {
        kind: probe_encoder(kind, getattr(encoder_files, kind), settings) for kind in onnx_files.FLAG_NAMES
    }
    dropped_by = f"recipe {settings.recipe!r} drops" if tensors is None else f"--tensors={tensors} leaves out"
    tensors = settings.features.tensors if tensors is None else tensors
    if tensors == "drop" and not (encoders["audio"] or encoders["face"]):
        raise ValueError(f"{dropped_by} the tensors: give --audio_encoder or --face_encoder")
    return dataclasses.replace(settings, features=FeatureSettings(tensors, **encoders))


def probe_encoder(kind: str, path: str, settings: PrepSettings) -> EncoderSettings | None:
    """The settings of the encoder at `path`, tried on zeros; None without a path."""
    if not path:
        return None
    require_onnx()
    with name_flag_in_error(kind, path):
        digest = file_sha256(path)
    layout = read_layout(kind, path)
    encoder = EncoderSettings(os.path.basename(path), digest, 0, layout)
    session = open_session(path, digest, 1)
    measure_width = {"audio": _probe_audio_encoder, "face": _probe_face_encoder, "detector": _probe_detector}[
        kind
    ]
    return dataclasses.replace(encoder, width=measure_width(session, path, layout, settings))


def _probe_audio_encoder(session, path: str, layout: AudioLayout, settings: PrepSettings) -> int:
    """Tries [1 n] or [1 t f] of zeros; the width of the answer, or ValueError saying what is wrong."""
    audio_settings, duration_ms = (
        settings.audio,
        max(PROBE_MS, layout.minimum_ms, MIN_PROBE_STEPS * layout.hop_ms),
    )
    is_waveform = layout.layout == "waveform"
    _validate_normalisation_length(path, layout, audio_settings.bins)
    _validate_inputs_and_outputs(
        session, path, layout, ["1", "n"] if is_waveform else ["1", "t", str(audio_settings.bins)]
    )
    step_counts = []
    for ms in (duration_ms, 2 * duration_ms):
        n = (
            round(ms * audio_settings.sample_rate / 1000)
            if is_waveform
            else round(ms / audio_settings.hop_ms) + 1
        )
        output = _run_on_zeros(session, path, layout, (1, n) if is_waveform else (1, n, audio_settings.bins))
        if output.ndim != 3 or output.shape[0] != 1 or not output.shape[2]:
            raise ValueError(f"{path}: output {layout.output!r} is {list(output.shape)}, expected [1, u, d]")
        step_counts.append(output.shape[1])
    _validate_hop(path, layout, duration_ms, *step_counts)
    return output.shape[2]


def _validate_hop(
    path: str, layout: AudioLayout, duration_ms: float, short_steps: int, long_steps: int
) -> None:
    """`short_steps` steps for `duration_ms` ms of zeros and `long_steps` for twice that are what `hop_ms`
    says."""
    expected = duration_ms / layout.hop_ms
    checks = (
        ("", short_steps, max(STEP_TOLERANCE, 0.1 * expected)),
        ("more ", long_steps - short_steps, max(1.5, HOP_TOLERANCE_FRACTION * expected)),
    )
    for qualifier, num_steps, tolerance in checks:
        if abs(num_steps - expected) > tolerance:
            raise ValueError(
                f"{path}: output {layout.output!r} has {num_steps} {qualifier}steps for"
                f" {duration_ms / 1000:g} s {qualifier}of"
                f" zeros, expected about {expected:.0f} by hop_ms {layout.hop_ms:g} of {layout_path(path)}"
            )


def _probe_face_encoder(session, path: str, layout: FaceLayout, settings: PrepSettings) -> int:
    """Tries two faces of zeros, or one where the graph takes no more; the width of the answer."""
    image_size = layout.size
    image_shape = (3, image_size, image_size) if layout.layout == "nchw" else (image_size, image_size, 3)
    _validate_inputs_and_outputs(session, path, layout, ["n", *map(str, image_shape)])
    n = 1 if get_input_shape(session, layout.input)[:1] == [1] else 2
    output = _run_on_zeros(session, path, layout, (n, *image_shape))
    if output.ndim != 2 or output.shape[0] != n or not output.shape[1]:
        raise ValueError(
            f"{path}: output {layout.output!r} is {list(output.shape)} for {n} faces, expected [{n}, d]"
        )
    return output.shape[1]


def _probe_detector(session, path: str, layout: DetectorLayout, settings: PrepSettings) -> int:
    """Tries one black frame; its width is 0."""
    image_shape = (3, *layout.size) if layout.layout == "nchw" else (*layout.size, 3)
    _validate_inputs_and_outputs(
        session, path, layout, ["1", *map(str, image_shape)], ("boxes", "scores", "landmarks")
    )
    try:
        run_detector(session, layout, np.zeros((*layout.size, 3), np.uint8))
    except EncoderError as error:
        raise ValueError(f"{path}: fails on a black frame: {error}") from error
    return 0


def _validate_normalisation_length(path: str, layout: AudioLayout, bins: int) -> None:
    """Numbers a bin must be as many as there are bins; a waveform takes single ones."""
    constants = layout.normalisation if isinstance(layout.normalisation, dict) else {}
    for key, value in constants.items():
        expected_length = bins if layout.layout == "spectrogram" else 1
        if isinstance(value, list) and len(value) != expected_length:
            raise ValueError(
                f"{layout_path(path)}: key 'normalisation' has {len(value)} numbers for {key},"
                f" expected {expected_length}"
            )


def _validate_inputs_and_outputs(
    session, path: str, layout, expected_shape: list[str], output_keys: tuple[str, ...] = ("output",)
) -> None:
    """The graph has the input and `output_keys` of the YAML, and that input can have the shape
    `expected_shape`."""
    for key, node_args in (
        ("input", session.get_inputs()),
        *((key, session.get_outputs()) for key in output_keys),
    ):
        names = [node_arg.name for node_arg in node_args]
        if getattr(layout, key) not in names or (key == "input" and len(names) > 1):
            only_input_note = " as the only one" if key == "input" else ""
            raise ValueError(
                f"{path}: its {'inputs' if key == 'input' else 'outputs'} are {', '.join(names)};"
                f" {layout_path(path)} names {getattr(layout, key)!r}{only_input_note}"
            )
    node_arg = next(node_arg for node_arg in session.get_inputs() if node_arg.name == layout.input)
    declared_shape = get_input_shape(session, layout.input)
    printable_shape = [d if isinstance(d, int) else "any" for d in declared_shape]
    is_compatible = len(declared_shape) == len(expected_shape) and all(
        not isinstance(d, int) or str(d) == t or (t == "n" and i == 0 and d == 1)
        for i, (d, t) in enumerate(zip(declared_shape, expected_shape, strict=True))
    )
    if not is_compatible or node_arg.type != "tensor(float)":
        raise ValueError(
            f"{path}: input {layout.input!r} is {node_arg.type}{printable_shape}, expected tensor(float)"
            f"[{', '.join(expected_shape)}] by {layout_path(path)}"
        )


def _run_on_zeros(session, path: str, layout, shape: tuple) -> np.ndarray:
    try:
        return np.asarray(run_session(session, layout, np.zeros(shape, np.float32), path))
    except EncoderError as error:
        raise ValueError(f"{path}: fails on zeros of shape {list(shape)}: {error}") from error

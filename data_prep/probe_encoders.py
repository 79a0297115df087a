"""Checks frozen encoders before the first clip: reads their YAML, compares shapes, and runs them on zeros."""

import dataclasses
import os
from typing import Any

import numpy as np

from data_prep.faces.onnx_detector import run_detector
from data_prep.onnx_models.encoder_settings import EncoderSettings, FeatureSettings
from data_prep.onnx_models.encoders import (
    EncoderError,
    EncoderFiles,
    Session,
    get_input_shape,
    name_flag_in_error,
    open_session,
    run_session,
)
from data_prep.onnx_models.layouts import (
    AudioLayout,
    DetectorLayout,
    FaceLayout,
    Layout,
    layout_path,
    read_layout,
)
from data_prep.optional_dependencies import require_onnx
from data_prep.settings import PrepSettings
from emofuse_jax.utils import onnx_files
from emofuse_jax.utils.files import file_sha256

PROBE_MS = 4000.0
"""Milliseconds of zeros in the first run of an audio encoder; the second run has twice as many."""
MIN_PROBE_STEPS = 60
"""Smallest number of output vectors for the first run, so that an error of 5 % in `hop_ms` shows."""
STEP_TOLERANCE = 3
"""Accepted difference from the number of vectors by `hop_ms`; convolutions lose a few at the borders."""
HOP_TOLERANCE_FRACTION = 0.02
"""Accepted relative error of `hop_ms`, from the difference of both runs, in which border effects cancel."""


def with_encoders(
    settings: PrepSettings, encoder_files: EncoderFiles, tensors: str | None = None
) -> PrepSettings:
    """Returns the settings with `features` replaced by the encoders of `encoder_files`, after checking each.

    Reads the YAML next to each ONNX file and runs the model on zeros. `features` has `tensors`, and `audio`,
    `face` and `detector`: file name, SHA-256, output width and layout of each, or None without a path.

    Args:
      settings: settings of the preparation, usually a recipe.
      encoder_files: paths of the ONNX files; an empty path means no encoder of this kind.
      tensors: `keep` or `drop`, which replaces the choice of the recipe; None: as in `settings`.

    Raises:
      ValueError: a file is missing or is not an ONNX model, its YAML is missing or wrong, the model does not
        fit its YAML or the settings (one line that names the file and the key or shape), `tensors` has
        another value, tensors would be dropped without an audio or face encoder, or onnxruntime or PyYAML is
        needed but not installed.
      OSError: an ONNX file or its YAML exists but can't be read.
    """
    encoders: dict[str, Any] = {
        kind: probe_encoder(kind, getattr(encoder_files, kind), settings) for kind in onnx_files.FLAG_NAMES
    }
    choice = f"recipe {settings.recipe!r}" if tensors is None else f"--tensors={tensors}"
    tensors = settings.features.tensors if tensors is None else tensors
    if tensors == "drop" and not (encoders["audio"] or encoders["face"]):
        raise ValueError(
            f"{choice}: tensors are left out, but no features replace them: set --audio_encoder or"
            " --face_encoder"
        )
    return dataclasses.replace(settings, features=FeatureSettings(tensors, **encoders))


def probe_encoder(kind: str, path: str, settings: PrepSettings) -> EncoderSettings[Layout] | None:
    """Checks one encoder by running it on zeros.

    Args:
      kind: `audio`, `face` or `detector`.
      path: ONNX file; its YAML is next to it.
      settings: settings of the preparation, which determine the shape of the input.

    Returns:
      The settings of the encoder: `file` (its name), `sha256`, `width` of the output, as measured (0 for a
      detector), and `layout`, an AudioLayout, FaceLayout or DetectorLayout with the keys of the YAML as its
      fields. None if `path` is empty.

    Raises:
      ValueError: the file does not exist or is not an ONNX model, its YAML is missing or wrong, the model
        does not fit its YAML or the settings or fails on zeros, or onnxruntime or PyYAML is not installed.
      OSError: the ONNX file or its YAML exists but can't be read.
      KeyError: `kind` is unknown and `path` is not empty.
    """
    if not path:
        return None
    require_onnx()
    with name_flag_in_error(kind, path):
        digest = file_sha256(path)
    layout = read_layout(kind, path)
    session = open_session(path, digest, 1)
    if isinstance(layout, AudioLayout):
        width = _probe_audio_encoder(session, path, layout, settings)
    elif isinstance(layout, FaceLayout):
        width = _probe_face_encoder(session, path, layout)
    else:
        _probe_detector(session, path, layout)
        width = 0
    return EncoderSettings(os.path.basename(path), digest, width, layout)


def _probe_audio_encoder(session: Session, path: str, layout: AudioLayout, settings: PrepSettings) -> int:
    """Runs an audio encoder on zeros of two lengths and returns the width of its output vectors.

    The lengths are the largest of 4 s, `minimum_ms` and 60 `hop_ms`, and twice as much. The input is [1 n], n
    samples, or [1 t f], a spectrogram; the output must be [1 u d], and d is returned.
    Raises ValueError, which names the file, if the model has another or a second input, lacks the output of
    `layout`, their shapes do not fit, a list of normalisation constants has a wrong length, the number of
    vectors contradicts `hop_ms`, or the model fails.
    """
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
            raise ValueError(
                f"{path}: output {layout.output!r} is {list(output.shape)}, expected [1, u, d], u vectors of"
                f" width d for one clip; name another output in {layout_path(path)}, or export the model"
                " again"
            )
        step_counts.append(output.shape[1])
    _validate_hop(path, layout, duration_ms, *step_counts)
    return output.shape[2]


def _validate_hop(
    path: str, layout: AudioLayout, duration_ms: float, short_steps: int, long_steps: int
) -> None:
    """Raises ValueError if the numbers of output vectors contradict `hop_ms`, the time between two vectors.

    `short_steps` vectors were measured for `duration_ms` ms of zeros, `long_steps` for twice as much.
    Expected are n = `duration_ms / hop_ms` vectors, up to 10 % of n or 3 vectors more or fewer, and n vectors
    more for the longer run, up to 2 % of n or 1.5 vectors more or fewer; the larger tolerance counts.
    """
    expected = duration_ms / layout.hop_ms
    checks = (
        ("", short_steps, max(STEP_TOLERANCE, 0.1 * expected)),
        ("more ", long_steps - short_steps, max(1.5, HOP_TOLERANCE_FRACTION * expected)),
    )
    for more, num_steps, tolerance in checks:
        if abs(num_steps - expected) > tolerance:
            raise ValueError(
                f"{path}: output {layout.output!r} has {num_steps} {more}steps for {duration_ms / 1000:g} s"
                f" {more}of zeros, expected about {expected:.0f} by hop_ms {layout.hop_ms:g} of"
                f" {layout_path(path)}; correct hop_ms"
            )


def _probe_face_encoder(session: Session, path: str, layout: FaceLayout) -> int:
    """Runs a face encoder on crops of zeros and returns the width of its output vectors.

    There are n = 2 crops, or 1 if the batch size of the model is 1; the output must be [n d], and d is
    returned. Raises ValueError, which names the file, if the model has another or a second input, lacks the
    output of `layout`, their shapes do not fit, or the model fails.
    """
    image_size = layout.size
    image_shape = (3, image_size, image_size) if layout.layout == "nchw" else (image_size, image_size, 3)
    _validate_inputs_and_outputs(session, path, layout, ["n", *map(str, image_shape)])
    n = 1 if get_input_shape(session, layout.input)[:1] == [1] else 2
    output = _run_on_zeros(session, path, layout, (n, *image_shape))
    if output.ndim != 2 or output.shape[0] != n or not output.shape[1]:
        raise ValueError(
            f"{path}: output {layout.output!r} is {list(output.shape)} for {n} faces, expected [{n}, d], a"
            f" vector for each face; name another output in {layout_path(path)}, or export the model again"
        )
    return output.shape[1]


def _probe_detector(session: Session, path: str, layout: DetectorLayout) -> None:
    """Runs a face detector on a black frame of the size `layout.size`; returns nothing.

    The input is one frame, [1 3 h w] or [1 h w 3]; the outputs must be boxes [n 4], scores [n], and landmarks
    [n 10] or [n 5 2], possibly with more axes of length 1. Raises ValueError, which names the file, if the
    model fails, has another or a second input, lacks an output of `layout`, or their shapes do not fit.
    """
    image_shape = (3, *layout.size) if layout.layout == "nchw" else (*layout.size, 3)
    _validate_inputs_and_outputs(
        session, path, layout, ["1", *map(str, image_shape)], ("boxes", "scores", "landmarks")
    )
    try:
        run_detector(session, layout, np.zeros((*layout.size, 3), np.uint8))
    except EncoderError as error:
        raise ValueError(
            f"{path}: this face detector fails on a black frame: {error} (check {layout_path(path)} and how"
            " the model was exported)"
        ) from error


def _validate_normalisation_length(path: str, layout: AudioLayout, bins: int) -> None:
    """Raises ValueError if a list of normalisation constants in the layout has a wrong length.

    The list must have one number for each of `bins` bins of a spectrogram, or one number for a waveform.
    """
    if isinstance(layout.normalisation, str):
        return
    for key, value in layout.normalisation.items():
        expected_length = bins if layout.layout == "spectrogram" else 1
        if isinstance(value, list) and len(value) != expected_length:
            raise ValueError(
                f"{layout_path(path)}: key 'normalisation' has {len(value)} numbers for {key},"
                f" expected {expected_length}; correct the list"
            )


def _validate_inputs_and_outputs(
    session: Session,
    path: str,
    layout: Layout,
    expected_shape: list[str],
    output_keys: tuple[str, ...] = ("output",),
) -> None:
    """Raises ValueError if the model lacks an input or output that the YAML names, or its input does not fit.

    The input must be float32, accept `expected_shape` (the length of each axis as text; a letter stands for
    any length), and be the only one of the model. `output_keys` are the fields of `layout` with the names of
    the outputs.
    """
    for key, node_args in (
        ("input", session.get_inputs()),
        *((key, session.get_outputs()) for key in output_keys),
    ):
        names = [node_arg.name for node_arg in node_args]
        if getattr(layout, key) not in names or (key == "input" and len(names) > 1):
            only_input_note = " as the only one" if key == "input" else ""
            raise ValueError(
                f"{path}: its {'inputs' if key == 'input' else 'outputs'} are {', '.join(names)};"
                f" {layout_path(path)} names {getattr(layout, key)!r}{only_input_note}; correct that name,"
                " or export the model again"
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
            f"[{', '.join(expected_shape)}] by {layout_path(path)} and the recipe; correct one of them"
        )


def _run_on_zeros(
    session: Session, path: str, layout: AudioLayout | FaceLayout, shape: tuple[int, ...]
) -> np.ndarray:
    try:
        return np.asarray(run_session(session, layout, np.zeros(shape, np.float32), path))
    except EncoderError as error:
        raise ValueError(
            f"{path}: fails on zeros of shape {list(shape)}: {error} (check {layout_path(path)} and how the"
            " model was exported)"
        ) from error

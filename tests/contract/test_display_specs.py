"""What a network tells beside its answer: every name is drawn, listed, or named as not drawn."""

import functools

import jax
import numpy as np
import pytest

from emofuse_jax.models.build import build_model
from emofuse_jax.models.registry import AUDIO_ENCODERS, FUSIONS, VIDEO_ENCODERS
from emofuse_jax.reporting import examples
from emofuse_jax.reporting.figures import aux_figures, class_matrices, display_specs, panels
from emofuse_jax.scoring import attention_weights
from emofuse_jax.settings.model import default_model_config
from emofuse_jax.types import InputSpec
from tests.support.report_inputs import CLASSES, decode_png, make_example, write_page

SPEC = InputSpec(
    t=400, f=200, s=12, h=112, w=112, classes=3, feature_steps=50, audio_features=16, face_features=24
)
CASES = [(fusion, "fcn", "frames") for fusion in FUSIONS]
CASES += [("concat", audio, "frames") for audio in AUDIO_ENCODERS]
CASES += [("concat", "fcn", video) for video in VIDEO_ENCODERS]
BATCH_SIZE = 2


@functools.cache
def list_aux_shapes(fusion, audio, video):
    """Shape of each name that a model gives when it scores, with every switch that adds one turned on."""
    config = default_model_config(fusion, audio=audio, video=video)
    for field, value in (("auxiliary", True), ("ema", 0.9), ("gates", "vector")):
        if field in config.fusion:
            config.fusion[field] = value
    if "margins" in config:
        config.margins.kind = "triplet"
    model = build_model(config, SPEC)
    params, state = jax.eval_shape(model.init, jax.random.key(0))
    outputs, _ = jax.eval_shape(model.apply, params, state, model.fake_batch(BATCH_SIZE))
    return {name: leaf.shape for name, leaf in outputs.aux.items()}


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_every_name_is_drawn_or_known_to_be_inside(case):
    unknown = (
        set(list_aux_shapes(*case)) - set(display_specs.DISPLAY_SPECS) - set(display_specs.INTERNAL_NAMES)
    )
    assert not unknown, f"tell emofuse_jax/reporting/figures/display_specs.py of {sorted(unknown)}"


def test_every_name_in_the_tables_is_produced():
    """Most of the table is what some fusion or encoder gives; a renamed one would be drawn no more."""
    produced_names = {name for case in CASES for name in list_aux_shapes(*case)}
    assert not set(display_specs.DISPLAY_SPECS) - produced_names
    assert not set(display_specs.INTERNAL_NAMES) - produced_names - {"polarity"}


def test_kinds_have_drawers():
    kinds = {spec.kind for spec in display_specs.DISPLAY_SPECS.values()}
    assert kinds == {"example", *aux_figures.PANEL_DRAWERS, *class_matrices.ROW_LABEL_FUNCTIONS}
    assert set(aux_figures.PANEL_SIZES) == set(aux_figures.PANEL_DRAWERS)


@pytest.mark.parametrize("fill", ["random", "zeros"])
def test_what_every_model_tells_can_be_drawn(fill):
    """Arrays of the shapes that the models give; zeros are a clip that lacks a modality."""
    rng = np.random.default_rng(0)
    aux = {}
    for case in CASES:
        for name, shape in list_aux_shapes(*case).items():
            array = rng.random(shape) if fill == "random" else np.zeros(shape)
            aux[name] = examples.select_clip(name, array.astype(np.float32), 0, BATCH_SIZE)
    mask = np.ones(12, bool)
    faces = rng.integers(0, 255, (12, 16, 16, 3), np.uint8)
    example = make_example(faces=faces, face_mask=mask, face_time=None, video_attention=None, aux=aux)
    picture = panels.explanation_picture(7, example)
    assert picture.name == "example_7_inside"
    drawn = {
        spec.title for spec in display_specs.DISPLAY_SPECS.values() if spec.kind in aux_figures.PANEL_DRAWERS
    }
    assert all(title in picture.alt for title in drawn)
    for png in (picture.light, picture.dark):
        assert decode_png(png).std() > 0.05
    matrix_pictures = class_matrices.model_pictures(aux, CLASSES)
    assert len(matrix_pictures) == 2
    assert all(decode_png(matrix.dark).std() > 0.05 for _, matrix in matrix_pictures)


def test_a_page_tells_of_every_name(tmp_path):
    weights = np.array([[0.7, 0.3], [0.25, 0.75], [0.0, 0.0], [1.0, 0.0]])
    margins = np.full((3, 3), 0.21)
    aux = {
        "trunk_weights": weights,
        "margins": margins,
        "trunks": np.zeros((4, 8)),
        "gate": np.array([0.125, 0.875]),
        "riddle": np.zeros((5, 5)),
        "audio_attention": np.ones(8),
    }
    example = make_example(aux=aux)
    no_other_sections = {"history": [], "comparison": None}
    _, page = write_page(tmp_path, examples=[example, make_example()], **no_other_sections)
    assert not page.open
    assert "learned" in page.ids
    assert "Further outputs of the network: gate 0.125, 0.875." in page.text
    assert "trunks : fused vector of each level" in page.text
    assert "riddle : [5, 5], no display is defined" in page.text
    alts = [image["alt"] for image in page.images]
    assert any("parts: 0.70, 0.30, 0.25, 0.75, 0.00, 0.00, 1.00, 0.00" in alt for alt in alts)
    assert any("calm: calm –, happy 0.21" in alt for alt in alts)
    names = {path.stem for path in (tmp_path / "figures").iterdir()}
    assert {"example_1", "example_1_inside", "example_2", "model_margins"} <= names
    assert "example_2_inside" not in names
    write_page(tmp_path, examples=[], **no_other_sections)
    names = {path.stem for path in (tmp_path / "figures").iterdir()}
    assert not names & {"example_1_inside", "model_margins"}


def test_a_matrix_of_other_classes_is_refused(tmp_path):
    with pytest.raises(
        ValueError, match=r"margins has shape \[4, 4\], expected \[rows, classes\] = \[3, 3\]"
    ):
        write_page(tmp_path, examples=[make_example(aux={"margins": np.ones((4, 4))})])


def test_class_weights_of_a_batch_are_one_matrix():
    weights = np.random.default_rng(0).random((2, 3))
    np.testing.assert_array_equal(class_matrices.first_matrix(np.stack([weights] * 4)), weights)
    np.testing.assert_array_equal(class_matrices.first_matrix(weights), weights)


def test_attention_over_features_goes_to_the_second_picture():
    """Records of features alone have neither spectrogram nor crops."""
    media = {"spectrogram": None, "faces": None, "face_time": None}
    example = make_example(**media, audio_attention=np.ones(8), video_attention=np.ones(4))
    picture = panels.explanation_picture(1, example)
    assert "attention over the audio features" in picture.alt
    assert "attention over the frames" in picture.alt
    assert panels.explanation_picture(1, make_example()) is None


def test_courses_end_with_the_sound():
    value = np.array([[1.0, 3.0, 0.0, 0.0], [2.0, 2.0, 0.0, 0.0]])
    np.testing.assert_allclose(aux_figures.attention_curves(value, True), [[0.5, 1.5], [1.0, 1.0]])
    assert aux_figures.attention_curves(value, False).shape == (2, 4)
    assert aux_figures.attention_curves(np.zeros(4), True) is None
    over_bins = np.broadcast_to(value[..., None], (2, 4, 3))
    np.testing.assert_allclose(aux_figures.attention_curves(over_bins, True), [[0.5, 1.5], [1.0, 1.0]])
    assert attention_weights.attended_length(np.zeros(3)) == 0


def test_attention_over_snippets_is_that_of_their_frames():
    valid = np.array([True, False, True, True, False, False])
    attention = attention_weights.relative_frame_attention(np.array([0.25, 0.75, 0.0]), valid)
    np.testing.assert_allclose(attention, [0.5, 0.0, 1.5, 1.5, 0.0, 0.0])
    weights = np.array([0.2, 0.5, 0.3])
    np.testing.assert_allclose(
        attention_weights.relative_frame_attention(weights, np.ones(3, bool)),
        attention_weights.relative_attention(weights),
    )


def test_the_face_is_lit_where_it_is_looked_at():
    maps = np.array([[[0.0, 1.0]], [[1.0, 1.0]]])
    faces = np.full((4, 6, 8, 3), 200, np.uint8)
    mask = np.array([True, True, False, False])
    lit = aux_figures.highlight_face({"faces": faces, "face_mask": mask}, maps, 0)
    np.testing.assert_allclose(lit[:, 0], 0.25 * 200 / 255)
    np.testing.assert_allclose(lit[:, -1], 200 / 255)
    assert (np.diff(lit[0, :, 0]) >= 0).all()
    assert (
        aux_figures.highlight_face({"faces": faces, "face_mask": mask}, maps, 1) is None
    )  # no face in that part


def test_columns_over_padding_are_left_out():
    weights = np.array([[0.5, 0.1], [0.4, 0.0], [0.0, 0.0]])
    np.testing.assert_array_equal(attention_weights.attended_columns(weights), weights[:2])
    assert attention_weights.attended_columns(np.zeros(5)) is None

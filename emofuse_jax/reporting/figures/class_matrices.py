"""Draws matrices that a model learned about its classes and that do not depend on the clip."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Float

from emofuse_jax.reporting import text
from emofuse_jax.reporting.figures import cells, style
from emofuse_jax.reporting.figures.display_specs import DISPLAY_SPECS, select_kinds
from emofuse_jax.reporting.figures.matplotlib_types import Figure

MODALITY_LABELS = ("audio", "video")
ROW_LABEL_FUNCTIONS: dict[str, Callable[[Sequence[str]], list[str]]] = {
    "classes": lambda classes: list(classes),
    "streams": lambda classes: list(MODALITY_LABELS),
}
"""Maps the kind of a matrix to a function that returns the names of its rows; its columns are the classes."""


def model_pictures(
    aux: Mapping[str, np.ndarray], classes: Sequence[str], marks: Sequence[str] = ()
) -> list[tuple[str, style.Picture]]:
    """Draws each matrix over classes in `aux`: the margins and the weights of each modality by class.

    Args:
      aux: intermediate outputs of the model by name, of which two are drawn if present: `margins` [c c], the
        learned margin between each pair of classes, and `class_weights` [2 c], the weights of audio (first
        row) and video. With an additional first axis for clips, the matrix of the first clip is drawn.
      classes: names of the c classes.
      marks: warnings that are written into the pictures.

    Returns:
      Pairs of title and picture, or an empty list. A picture has the name `model_<output>`, PNG bytes in the
      light and the dark theme (`light`, `dark`), the alternative text `alt`, and `width` and `height` in CSS
      pixels.

    Raises:
      ValueError: if the shape of a matrix does not fit the number of classes, or Matplotlib is not installed.
    """
    class_matrices = select_kinds(aux, ROW_LABEL_FUNCTIONS)
    return [
        (DISPLAY_SPECS[name].title, _matrix_picture(name, first_matrix(value), classes, marks))
        for name, value in class_matrices.items()
    ]


def first_matrix(value: np.ndarray) -> Float[np.ndarray, "m c"]:
    """Returns a float64 copy of a matrix [m c] of m rows and c classes; of [b m c], only the first matrix."""
    value = np.array(value, np.float64)
    return value[0] if value.ndim == 3 else value


def _matrix_picture(
    name: str, matrix: Float[np.ndarray, "m c"], classes: Sequence[str], marks: Sequence[str]
) -> style.Picture:
    display = DISPLAY_SPECS[name]
    rows = ROW_LABEL_FUNCTIONS[display.kind](classes)[: len(matrix)]
    if (len(rows), len(classes)) != matrix.shape:
        raise ValueError(
            f"report: model output {name} has shape {list(matrix.shape)},"
            f" expected [rows, classes] = {[len(rows), len(classes)]};"
            " pass examples and results of the same model"
        )
    if display.kind == "classes":
        np.fill_diagonal(matrix, np.nan)  # no margin between a class and itself
    size = (1.7 + max(3.0, 0.62 * len(classes)), 1.45 + max(1.0, 0.5 * len(rows)))
    limits = (min(0.0, float(np.nanmin(matrix))), max(float(np.nanmax(matrix)), 1e-6))

    def draw(figure: Figure, theme: style.Theme) -> None:
        axes = figure.subplots()
        colormap = cells.sequential_colormap(theme, theme.both)
        axes.imshow(matrix, cmap=colormap, vmin=limits[0], vmax=limits[1], aspect="auto")
        cells.write_cells(
            axes, matrix, colormap, limits, _format_number, font_size=8.0 if len(classes) < 10 else 6.0
        )
        names = [text.shorten(label, 12) for label in classes]
        axes.set_xticks(
            range(len(classes)),
            names,
            color=theme.foreground,
            rotation=40,
            ha="right",
            rotation_mode="anchor",
        )
        axes.set_yticks(range(len(rows)), [text.shorten(label, 12) for label in rows], color=theme.foreground)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set(xlabel=display.column_label or "class", ylabel=display.row_label)
        axes.set_title(display.title)

    lines = [
        f"{row}: {', '.join(f'{c} {_format_number(x)}' for c, x in zip(classes, values, strict=True))}"
        for row, values in zip(rows, matrix, strict=True)
    ]
    return style.make_picture(
        f"model_{name}", f"{display.title}. {'; '.join(lines)}.", size, draw, marks=marks
    )


def _format_number(value: float) -> str:
    return f"{value:.2f}" if text.is_finite(value) else text.DASH

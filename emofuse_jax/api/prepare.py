"""Records from media files."""

import os
from typing import Literal

from emofuse_jax.api.records import Records, open_records
from emofuse_jax.utils.prep_package import check_prep_package
from emofuse_jax.utils.progress_bar import progress_bar


def prepare(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    corpus: str = "folder",
    recipe: str = "fbp",
    workers: int | None = None,
    on_failure: Literal["skip", "raise"] = "skip",
) -> Records:
    """Decodes clips, finds faces, and writes records with folds that never share a speaker.

    An interrupted preparation continues when the same call runs again. One line shows the progress. `emofuse
    prepare` has more options, such as frozen encoders. Needs the extra `prep`.

    Args:
      source: the folder of a corpus, or a CSV file in UTF-8 with the columns path (from its folder), label
        (class name; empty: none) and speaker, and optionally start and end (seconds), take (name of the
        recording that several clips show) and half (`left` or `right` of the picture).
      output: directory to write.
      corpus: `folder` reads the CSV file; or the name of a corpus: `demo`, `ravdess`, `crema_d`, `iemocap`,
        `afew`, `enterface05`, `baum1s`, `composite`, or one that `register_corpus` registered.
      recipe: sizes of spectrograms and faces: `fbp`, `hgr`, `cross_attention`, `speech` or `voice`
        (docs/recipes.md has the numbers). `features` needs encoders, so it works only in `emofuse prepare`.
      workers: number of processes; None: one per core.
      on_failure: `skip` leaves out clips that can't be used (manifest.csv says why); `raise` raises
        ValueError naming the first one, after all others are written.

    Returns:
      The records in `output`, a mapping of the clips by clip_id (for a CSV file, the path in it, with the
      times and the half if it has them): `records[clip_id]` reads a Record, with `label` (index into
      `records.classes`, -1 without a label), `speaker`, and arrays such as `spectrogram` [t f] and `faces`
      uint8 [s h w 3]; `open_records` lists all. Without a published split of the corpus, up to five folds are
      made.

    Raises:
      FileNotFoundError: there is no such source, or a file of the corpus is missing.
      ValueError: an unknown corpus or recipe, another value of `on_failure`, a table of the corpus is wrong,
        a clip failed and `on_failure` is `raise`, the extra `prep` is not installed, `output` holds other
        records or another process works in it, a stored file of an interrupted preparation is damaged,
        `workers` is negative, worker processes can't start, no clip can be used, or the written files have a
        problem.
      OSError: a file cannot be read or written.
      ModuleNotFoundError: a package is missing whose version is stored, such as opencv-python-headless, or
        openpyxl, if the sheet of BAUM-1s is an .xlsx file.
      zipfile.BadZipFile: this sheet is damaged.
      Exception: the reader of a registered corpus raised it.

    Example:
      >>> records = ef.prepare("clips.csv", "media_records", workers=1)
      >>> len(records)
      3
    """
    check_prep_package()
    from data_prep import prepare as preparation
    from data_prep.corpora import read_corpus
    from data_prep.optional_dependencies import require_media
    from data_prep.settings import RECIPES

    require_media()
    if recipe not in RECIPES:
        raise ValueError(f"recipe={recipe!r}: expected one of {', '.join(RECIPES)}")
    if on_failure not in ("skip", "raise"):
        raise ValueError(f"on_failure={on_failure!r}: expected skip or raise")
    clips = read_corpus(corpus, os.fspath(source))
    with progress_bar(f"{clips.name} clips") as progress:
        summary = preparation.prepare(
            clips, RECIPES[recipe], os.fspath(output), workers=workers, progress=progress
        )
    if summary.problems:
        raise ValueError(
            f"{summary.output}: damaged records: {summary.problems[0]}; remove this directory and"
            " prepare the clips again"
        )
    if summary.failed and on_failure == "raise":
        path, reason = summary.failed[0]
        raise ValueError(
            f"{path}: the clip cannot be used: {reason} ({len(summary.failed)} clips failed); remove"
            " it, or pass on_failure='skip'"
        )
    return open_records(output)

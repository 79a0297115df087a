"""A directory of records, ready for training."""

import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from emofuse_jax.data import records as record_files
from emofuse_jax.data.dataset import Dataset, list_folds, open_dataset
from emofuse_jax.data.prepared_files import read_prep
from emofuse_jax.data.records import ARRAYS_RECIPE, Record
from emofuse_jax.training.experiment import make_input_spec
from emofuse_jax.types import InputSpec
from emofuse_jax.utils.config_dict import ConfigDict
from emofuse_jax.utils.errors import format_error
from emofuse_jax.utils.optional import require_package

if TYPE_CHECKING:
    import pandas as pd


class Records(Mapping[str, Record]):
    """Records of clips by clip_id, with their classes, speakers and folds.

    `records["clip"]` reads one record from disk; iterating yields the clip_ids.
    """

    def __init__(self, path: str | os.PathLike[str]):
        """Opens a directory that `prepare` or `write_records` wrote.

        Raises:
          FileNotFoundError: the directory holds no records.
          OSError: prep.json or manifest.csv cannot be read.
          ValueError: a file of the directory is damaged or was written by another version.
        """
        self.dataset: Dataset = open_dataset(os.path.abspath(path))

    @property
    def path(self) -> str:
        """Absolute path of the directory."""
        return self.dataset.path

    @property
    def name(self) -> str:
        """Name of the corpus."""
        return self.dataset.prep["corpus"]

    @property
    def recipe(self) -> str:
        """Name of the preprocessing recipe; `arrays` if `write_records` wrote the records."""
        return self.dataset.prep["settings"]["recipe"]

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the labels: label 0 is the first one."""
        return self.dataset.classes

    @property
    def speakers(self) -> tuple[str, ...]:
        """Sorted names of all speakers, as prep.json lists them."""
        return self.dataset.speakers

    @property
    def folds(self) -> dict[str, list[int]]:
        """Numbers of the folds of each evaluation protocol, by its name; empty if there are no splits.

        The numbers are sorted. Raises ValueError if a file `fold_<i>.json` has no number as `<i>`, and
        OSError if a folder cannot be read.
        """
        splits = os.path.join(self.path, "splits")
        names = sorted(os.listdir(splits)) if os.path.isdir(splits) else []
        names = [name for name in names if os.path.isdir(os.path.join(splits, name))]
        return {name: list_folds(self.dataset, name) for name in names}

    def spec(self, config: ConfigDict) -> InputSpec:
        """Returns the shape of one clip as a model of `config` reads it.

        The shape has the numbers of audio steps `t`, frequency bins `f`, video frames `s` and `classes`,
        height `h` and width `w` of a face in pixels, and `feature_steps`, `audio_features` and
        `face_features`, the number of steps and the widths of the features of frozen encoders; 0 for what the
        records do not have.

        Whether the config fits the records is not checked. Raises AttributeError if the config has no
        `data.audio_steps`, ValueError if the records have audio features, but prep.json has no settings of
        their encoder.
        """
        return make_input_spec(config, self.dataset)

    def to_pandas(self) -> "pd.DataFrame":
        """Returns a table with one row per clip of manifest.csv, including clips without a record.

        The rows are in the order of the file. The columns are `clip_id`, `path` (of the media file),
        `speaker`, `label` (name of the class, or None without a label), `status` (`kept`, `masked`: audio or
        video cannot be used, or `failed`: no record), `reason` (why, or other remarks), `shard`, `row` and
        `index` (place of the record: file, row in it, and number among all; -1 without a record), `sha256`
        (of the media file), `take` (name of a recording that several clips show), `start` and `end` (seconds;
        empty: all of the file). All but `label` are text.

        Raises:
          ValueError: pandas is not installed, or manifest.csv is damaged.
          OSError: manifest.csv cannot be read.
          ImportError: pandas is installed, but cannot be imported.
        """
        pandas = require_package("pandas", "tables", "Records.to_pandas")
        names = dict(enumerate(self.classes))
        rows = record_files.read_manifest(self.path)
        table = pandas.DataFrame(rows)
        try:
            table["label"] = [names.get(int(row["label"])) for row in rows]
        except ValueError as error:
            raise ValueError(
                f"{self.path}/manifest.csv: damaged, expected a table with an integer in column label:"
                f" {format_error(error)}; prepare the clips again"
            ) from error
        return table

    def __getitem__(self, clip_id: str) -> Record:
        return self.dataset.read(self.dataset.index[clip_id])

    def __iter__(self) -> Iterator[str]:
        return iter(self.dataset.clip_ids)

    def __len__(self) -> int:
        return len(self.dataset.index)

    def __repr__(self) -> str:
        counts = f"{len(self)} clips, {len(self.speakers)} speakers, classes {', '.join(self.classes)}"
        return f"Records({self.path!r}: {counts})"


def open_records(path: str | os.PathLike[str]) -> Records:
    """Opens a directory of records.

    Args:
      path: a directory that `prepare` or `write_records` wrote.

    Returns:
      The records, a mapping of the clips by clip_id: `records[clip_id]` reads a Record. It has `clip_id`,
      `speaker`, `corpus`, `label` (index into `records.classes`, -1 without a label), `votes` [c] (1 for the
      label), `spectrogram` float16 [t f], `faces` uint8 [s h w 3] (RGB); for each of the s frames
      `face_valid` (True: a face), `face_time` (seconds), `face_score`, `face_box` [s 4] (x0 y0 x1 y1) and
      `face_landmarks` [s 5 2] (x y of eyes, nose and corners of the mouth), in pixels of the source frame;
      `audio_ok` and `video_ok` (False: cannot be used); and, None if they are not stored, `face_features`
      [s d], `audio_features` [u d] and `waveform` int16 [n] (16 kHz).

    Raises:
      FileNotFoundError: the directory holds no records.
      OSError: prep.json or manifest.csv cannot be read.
      ValueError: a file of the directory is damaged or was written by another version.

    Example:
      >>> records = ef.open_records("records")
      >>> records.classes
      ('sad', 'happy')
    """
    return Records(path)


def with_records(config: ConfigDict, records: Records | str | os.PathLike[str]) -> ConfigDict:
    """Returns a copy of a config whose `data.path` is the absolute path of the records.

    Records that `write_records` made from arrays fit configs of any recipe: `data.recipe` of the copy is then
    `arrays`. Whether other records have the recipe of the config is not checked.

    Args:
      config: config of an experiment; it is not changed.
      records: records or their directory.

    Raises:
      FileNotFoundError: the directory holds no records.
      OSError: prep.json cannot be read.
      ValueError: prep.json is damaged or was written by another version.
      AttributeError: the config has no part `data`.
    """
    if isinstance(records, Records):
        path, recipe = records.path, records.recipe
    else:
        path = os.path.abspath(records)
        recipe = read_prep(path)["settings"]["recipe"]
    config = config.copy_and_resolve_references()
    config.data.path = path
    if recipe == ARRAYS_RECIPE:
        config.data.recipe = ARRAYS_RECIPE
    return config

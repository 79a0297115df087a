"""Adds a published split to prepared records; its name can then be used as a protocol.

    emofuse split --data=/data/records/crema --name=public --table=split.csv [--allow_leak]

The table is a CSV with the columns clip_id and part (train, validation, test). If it has no validation clips,
a fifth of the training speakers is used for validation. A split whose parts share speakers, takes or files is
rejected; --allow_leak accepts it, and all its results are marked LEAKY.
"""

from collections.abc import Sequence

from absl import flags

_DATA = flags.DEFINE_string("data", None, "Directory of records.")
_NAME = flags.DEFINE_string("name", None, "Name of the split, for --config.data.protocol.")
_TABLE = flags.DEFINE_string("table", None, "CSV with the columns clip_id and part.")
_ALLOW_LEAK = flags.DEFINE_bool("allow_leak", False, "Accept a split that leaks, and mark its results LEAKY.")


def main(argv: Sequence[str]) -> None:
    """Adds the split to the records and prints its leaks.

    The split in --table, a CSV with the columns clip_id and part (train, validation or test), becomes the
    protocol --name: splits/<name>/fold_0.json and stats/<name>/fold_0.npz in --data. `argv` has the name of
    the program and the words that are no flags; none are allowed.

    Raises:
      ValueError: a flag is missing, the name or the table is invalid, a protocol of this name exists,
        prep.json, manifest.csv or a shard is damaged, another process works in the records, or the split
        leaks and --allow_leak is not set.
      OSError: a file is missing, or cannot be read or written.
    """
    if argv[1:]:
        raise ValueError(f"unexpected argument {argv[1]!r}; write flags as --name=value")
    data, name, table = _DATA.value, _NAME.value, _TABLE.value
    if data is None or name is None or table is None:
        raise ValueError("--data, --name and --table are required; see emofuse split --help")
    from data_prep.custom_split import add_split

    leaks = add_split(data, name, table, allow_leak=_ALLOW_LEAK.value)
    for leak in leaks:
        print(f"LEAKY: {leak}")
    print(f"{data}: added protocol {name}")

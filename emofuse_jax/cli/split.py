"""Adds a published split to prepared records, to compare with: its name is then a protocol.

  emofuse split --data=/data/records/crema --name=public --table=split.csv [--allow_leak]

The table is a CSV with the columns clip_id and part (train, validation, test). Without validation clips a
fifth of the training speakers validates. A split whose parts share speakers, takes or files is refused;
with --allow_leak it is taken, and every result made from it is marked LEAKY.
"""

from collections.abc import Sequence

from absl import flags

_DATA = flags.DEFINE_string("data", None, "Directory of records.")
_NAME = flags.DEFINE_string("name", None, "Of the split; --config.data.protocol then asks for it.")
_TABLE = flags.DEFINE_string("table", None, "CSV with the columns clip_id and part.")
_ALLOW_LEAK = flags.DEFINE_bool("allow_leak", False, "Take a split that leaks, and mark its results.")


def main(argv: Sequence[str]) -> None:
    """Adds the split and says what it shares."""
    if argv[1:]:
        raise ValueError(f"unexpected argument {argv[1]!r}; flags are written --name=value")
    if None in (_DATA.value, _NAME.value, _TABLE.value):
        raise ValueError("--data, --name and --table are needed; see emofuse split --help")
    from data_prep.custom_split import add_split

    leaks = add_split(_DATA.value, _NAME.value, _TABLE.value, allow_leak=_ALLOW_LEAK.value)
    for leak in leaks:
        print(f"LEAKY: {leak}")
    print(f"{_DATA.value}: protocol {_NAME.value}")

"""`ml_collections.ConfigDict` with types, which ml_collections lacks; without them a string passes for one.

At run time `ConfigDict` is the class of ml_collections.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager
    from typing import Any, Protocol

    class ConfigDict(Protocol):
        """Fields of a config: values, and parts that are configs themselves."""

        def __getattr__(self, name: str, /) -> Any: ...  # noqa: ANN401

        def __setattr__(self, name: str, value: Any, /) -> None: ...  # noqa: ANN401

        def __getitem__(self, name: str, /) -> Any: ...  # noqa: ANN401

        def __setitem__(self, name: str, value: Any, /) -> None: ...  # noqa: ANN401

        def to_dict(self) -> dict[str, Any]:
            """Returns the fields as nested dicts."""

        def update(self, *other: Mapping[str, Any], **fields: Any) -> None:  # noqa: ANN401
            """Changes the values of fields in place; the new fields of a part are a nested mapping.

            Raises KeyError if the config is locked and has no such field, and TypeError if a value has
            another type than the field.
            """

        def copy_and_resolve_references(self) -> "ConfigDict":
            """Returns an independent copy; references to other fields become their values."""

        def ignore_type(self) -> AbstractContextManager[object]:
            """Returns a context manager; in its block, a field may get a value of another type."""

        def unlocked(self) -> AbstractContextManager[object]:
            """Returns a context manager; in its block, fields may be added to a locked config."""

else:
    from ml_collections import ConfigDict as ConfigDict

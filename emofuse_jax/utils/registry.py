"""Implementations by name: those of emofuse, those that a program registers, those of installed packages."""

import importlib.metadata
from collections.abc import Callable, Iterator, Mapping
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Registry(Mapping[str, Value], Generic[Value]):
    """Maps names to implementations of one kind, such as fusions.

    Names come from emofuse itself, from `register`, and from the entry points of installed packages, which
    are imported when they are first used.
    """

    def __init__(
        self, kind: str, group: str, builtin: Mapping[str, Value], validate: Callable[[Value], None]
    ) -> None:
        """Creates a registry.

        Args:
          kind: what the values are, for error messages ("fusion").
          group: entry point group of third-party packages ("emofuse.fusions").
          builtin: the values of emofuse by name; they are not validated.
          validate: function that raises ValueError if a value does not have what this kind needs.
        """
        self.kind, self.group = kind, group
        self._values, self._validate = dict(builtin), validate
        self._entry_points: dict[str, importlib.metadata.EntryPoint] | None = None

    def register(self, name: str, value: Value, *, replace: bool = False) -> None:
        """Adds an implementation under a new name.

        Args:
          name: a name that can stand in a config, such as `maxout`.
          value: the implementation.
          replace: True replaces an implementation of that name, so that a notebook cell can run twice.

        Raises:
          ValueError: the name is not an identifier, the name is taken and `replace` is False, or the function
            `validate` of the registry rejects the implementation.
        """
        if not isinstance(name, str) or not name.isidentifier():
            raise ValueError(
                f"name={name!r}: expected the name of a {self.kind} (letters, digits, _), such as 'maxout'"
            )
        if name in self and not replace:
            raise ValueError(
                f"name={name!r}: this {self.kind} exists already; pass replace=True to replace it"
            )
        self._check(name, value)
        self._values[name] = value

    def unregister(self, name: str) -> None:
        """Removes the implementation of that name, whether it was registered or is one of emofuse.

        Raises KeyError if there is none of that name; one of an installed package counts only after its first
        use, and is loaded again when it is used again. An implementation that was replaced does not return.
        """
        del self._values[name]

    def _check(self, name: str, value: Value) -> None:
        try:
            self._validate(value)
        except ValueError as error:
            raise ValueError(f"{name!r} is not a valid {self.kind}: {error}") from error

    def _installed(self) -> dict[str, importlib.metadata.EntryPoint]:
        """Returns the entry points of installed packages as a dict by name; read once, and not imported."""
        if self._entry_points is None:
            entry_points = importlib.metadata.entry_points(group=self.group)
            self._entry_points = {entry_point.name: entry_point for entry_point in entry_points}
        return self._entry_points

    def __getitem__(self, name: str) -> Value:
        """Returns the implementation of that name.

        Raises:
          KeyError: there is none of that name.
          ValueError: an installed package provides it, but it can't be imported (ImportError or
            AttributeError), or the function `validate` of the registry rejects it. Other errors of its import
            pass through.
        """
        if name not in self._values:
            self._values[name] = self._load(self._installed()[name])
        return self._values[name]

    def _load(self, entry_point: importlib.metadata.EntryPoint) -> Value:
        try:
            value = entry_point.load()
        except (ImportError, AttributeError) as error:
            source = f"{self.group}: {entry_point.name} = {entry_point.value}"
            raise ValueError(
                f"entry point {source}: can't be imported: {error}; update or remove the package that"
                " provides it"
            ) from error
        self._check(entry_point.name, value)
        return value

    def __contains__(self, name: object) -> bool:
        return name in self._values or name in self._installed()

    def __iter__(self) -> Iterator[str]:
        return iter({**self._values, **self._installed()})

    def __len__(self) -> int:
        return len({**self._values, **self._installed()})

    def require(self, name: str, field: str) -> Value:
        """Returns the implementation that a config field names.

        Args:
          name: value of the field.
          field: name of the field, for the error message.

        Raises:
          ValueError: there is no implementation of that name (the message names the field and the names that
            exist); or an installed package provides it, but it can't be imported (ImportError or
            AttributeError), or the function `validate` of the registry rejects it. Other errors of its import
            pass through.
        """
        if not isinstance(name, str) or name not in self:
            raise ValueError(
                f"{field}: {name!r}, expected one of {', '.join(self)}; register your own {self.kind} first"
                " (docs/extending.md)"
            )
        return self[name]

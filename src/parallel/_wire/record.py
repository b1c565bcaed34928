"""A record: a class of named fields, as `NamedTuple` makes them, in a tenth of the time.

`NamedTuple` writes methods for each class as text and compiles that, which takes 0.1 ms. There are
two dozen kinds of message, and every program that imports this package would wait for them; here
they share their methods.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Self, dataclass_transform


@dataclass_transform(frozen_default=True)
class Record:
    """Derive from it and annotate the fields; a value that the class gives one is its default."""

    _fields: ClassVar[tuple[str, ...]]
    _field_defaults: ClassVar[dict[str, object]]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls._fields = tuple(cls.__annotations__)
        setattr(cls, "__match_args__", cls._fields)  # noqa: B010  # mypy knows it, and as its own
        cls._field_defaults = {name: vars(cls)[name] for name in cls._fields if name in vars(cls)}

    def __init__(self, *values: Any, **named: Any) -> None:
        given = dict(zip(self._fields, values, strict=False))
        facts = {**self._field_defaults, **given, **named}
        if len(given) < len(values) or given.keys() & named or facts.keys() ^ self._fields:
            raise TypeError(f"{type(self).__name__} takes {self._fields}, not {values}, {named}")
        self.__dict__.update({name: facts[name] for name in self._fields})

    def __iter__(self) -> Iterator[Any]:
        return iter(self.__dict__.values())

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.__dict__ == self.__dict__

    def __hash__(self) -> int:
        return hash((type(self), *self))

    def __repr__(self) -> str:
        facts = ", ".join(f"{name}={value!r}" for name, value in self.__dict__.items())
        return f"{type(self).__name__}({facts})"

    def _asdict(self) -> dict[str, Any]:
        return dict(self.__dict__)

    def _replace(self, **changes: Any) -> Self:
        """The same with other values for these fields."""
        return type(self)(**{**self.__dict__, **changes})

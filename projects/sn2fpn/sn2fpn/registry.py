"""A registry of objects by name, whose error suggests the nearest name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from .errors import ArgumentError, UserError, did_you_mean

__all__ = ["Registry"]


class Registry:
    """A mapping from names to objects that refuses duplicates and suggests the nearest known name.

    Args:
        kind: the kind of the objects in the words of messages ("pyramid", "data set").
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, Any] = {}

    def register(self, name: str, obj: Any = None) -> Callable[[Any], Any] | Any:
        """Register `obj` as `name` and return it; without `obj`, return a decorator that does so.

        Raises:
            ArgumentError: the name is registered already, or it is no name.
        """
        if not isinstance(name, str) or not name:
            raise ArgumentError("name", f"expected the name of a {self.kind}, found {name!r}")
        if obj is None:
            return lambda o: self.register(name, o)
        if name in self._entries:
            raise ArgumentError(
                "name", f"the {self.kind} {name!r} is registered already; choose another name, or remove this one first"
            )
        self._entries[name] = obj
        return obj

    def get(self, name: str, where: str = "") -> Any:
        """Return the object that is registered as `name`.

        Args:
            name: the name.
            where: the key or flag that the name came from, for the message.

        Raises:
            UserError: there is no such name.
        """
        if name not in self._entries:
            source = f"{where}: " if where else ""
            raise UserError(f"{source}unknown {self.kind} {name!r}{did_you_mean(name, self._entries)}")
        return self._entries[name]

    def remove(self, name: str) -> None:
        """Remove `name` if it is registered."""
        self._entries.pop(name, None)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

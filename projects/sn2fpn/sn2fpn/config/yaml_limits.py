"""Limits on what a YAML file may ask for, so that a small file cannot take all memory or run forever.

The configurations of this project stay far below all limits.
"""

from __future__ import annotations

from typing import Any

import yaml

__all__ = ["LimitedLoader", "check_yaml"]

_LONGEST = 2**20
"""The most characters of a text. The largest configuration that this project writes has 12,000."""

_MOST_VALUES = 100_000
"""The most values, where those behind an alias count again each time. A data set of 1,000 classes adds 1,000."""

_DEEPEST = 50
"""The most groups and lists inside each other. The configurations of this project have 9."""

_LONGEST_NUMBER = 100
"""The most characters of a number. Reading a number takes time that grows with the square of its length."""

_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")


class LimitedLoader(yaml.SafeLoader):
    """PyYAML's safe loader, which refuses texts that are too long, too deep or too large when aliases are expanded.

    All errors are `yaml.YAMLError`s, also those of values that Python cannot hold.
    """

    def __init__(self, stream: Any) -> None:
        if len(stream) > _LONGEST:
            raise yaml.YAMLError(f"expected at most {_LONGEST} characters, found {len(stream)}")
        super().__init__(stream)
        self._depth = 0
        self._sizes: dict[yaml.Node, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose a node as PyYAML does, and count the values in it."""
        mark = self.peek_event().start_mark
        if self._depth > _DEEPEST:
            raise yaml.composer.ComposerError(None, None, f"values are nested more than {_DEEPEST} deep", mark)
        is_alias = self.check_event(yaml.AliasEvent)
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        if is_alias and node not in self._sizes:
            raise yaml.composer.ComposerError(None, None, "an alias stands inside of what it names", mark)
        size = self._sizes.setdefault(node, 1 + sum(self._sizes[child] for child in _children(node)))
        if size > _MOST_VALUES:
            problem = f"it has more than {_MOST_VALUES} values, where those behind an alias count each time"
            raise yaml.composer.ComposerError(None, None, problem, mark)
        if node.tag in _NUMBERS and len(node.value) > _LONGEST_NUMBER:
            problem = f"expected a number of at most {_LONGEST_NUMBER} characters, found {len(node.value)}"
            raise yaml.composer.ComposerError(None, None, problem, mark)
        if node.tag in _NUMBERS and ":" in node.value:
            problem = f"YAML reads {node.value} as a number to the base 60; write a plain number"
            raise yaml.composer.ComposerError(None, None, problem, mark)
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Construct a value as PyYAML does, whose errors for numbers and dates are no `YAMLError`s."""
        try:
            return super().construct_object(node, deep)
        except (ValueError, OverflowError) as e:
            raise yaml.constructor.ConstructorError(None, None, str(e), node.start_mark) from None


def _children(node: Any) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return node.value if isinstance(node, yaml.SequenceNode) else []


def check_yaml(text: str) -> None:
    """Check a text that another reader of YAML is about to read.

    Raises:
        YAMLError: the text exceeds a limit, or is not YAML.
    """
    loader = LimitedLoader(text)
    try:
        loader.get_single_node()
    finally:
        loader.dispose()

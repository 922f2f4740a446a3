"""YAML from files that people write: structure and text, without YAML's guesses about types.

A tag `1.10` is no number and a tag `on` is no truth value, so every scalar stays the text that was written;
whoever reads a field decides what it has to be. Refused beyond the grammar: a key that stands twice, tags
(`!!python/...`), several documents, and whatever makes a small file large.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Self

from ocitool.errors import InvalidContent, UnsafeContent

if TYPE_CHECKING:
    from yaml.events import Event
    from yaml.nodes import MappingNode, Node, ScalarNode

MAX_BYTES: Final = 1 << 20
MAX_DEPTH: Final = 20
MAX_ALIASES: Final = 100
MAX_NODES: Final = 100_000  # with every alias written out

_STANDARD: Final = "tag:yaml.org,2002:"
_UNTAGGED: Final = {None, "!"}


class Text(str):
    """A scalar as it was written, and the line it stands in, counted from 1."""

    __slots__ = ("line", "plain")

    line: int
    plain: bool  # not quoted, so that `true` may mean truth

    @classmethod
    def at(cls, value: str, line: int, *, plain: bool) -> Self:
        """Make one."""
        text = cls(value)
        text.line = line
        text.plain = plain
        return text


def load(raw: bytes, what: str) -> Any:
    """Read one YAML document.

    Args:
        raw: UTF-8.
        what: how to call it in an error.

    Returns:
        `dict`, `list`, `Text` and None.

    Raises:
        InvalidContent: it is not YAML, or not of the kind above.
        UnsafeContent: it is larger, deeper or more repetitive than any mirror file.
    """
    import yaml

    if len(raw) > MAX_BYTES:
        raise UnsafeContent(f"{what} has {len(raw)} bytes; at most {MAX_BYTES} are read")
    try:
        text = raw.decode("utf-8-sig")
        # Before anything recursive meets it.
        _check_events(yaml.parse(text, Loader=yaml.SafeLoader), what)
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except UnicodeDecodeError as error:
        raise InvalidContent(f"{what} is not UTF-8 (byte {error.start})") from error
    except yaml.YAMLError as error:
        raise InvalidContent(f"{what} is not YAML: {_where(error)}") from error
    return None if root is None else _Builder(what).build(root, 0)


def _where(error: Exception) -> str:
    """PyYAML's several lines as one."""
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    return f"{problem} (line {mark.line + 1})" if mark else str(problem)


def _check_events(events: Any, what: str) -> None:
    import yaml

    depth = aliases = documents = 0
    event: Event
    for event in events:
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.AliasEvent):
            aliases += 1
        elif isinstance(event, yaml.DocumentStartEvent):
            documents += 1
        if depth > MAX_DEPTH:
            raise UnsafeContent(f"{what} is nested deeper than {MAX_DEPTH} levels")
        if aliases > MAX_ALIASES:
            raise UnsafeContent(f"{what} has more than {MAX_ALIASES} aliases")
        if documents > 1:
            raise InvalidContent(f"{what} holds several YAML documents")
        tag = getattr(event, "tag", None)
        line = event.start_mark.line + 1 if event.start_mark else 0
        if tag not in _UNTAGGED and not isinstance(event, yaml.AliasEvent):
            raise InvalidContent(f"{what} has the YAML tag {tag!r:.60} (line {line})")


class _Builder:
    """Turns nodes into plain data and counts them, because an alias is written once and read often."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._count = 0

    def build(self, node: Node, depth: int) -> Any:
        import yaml

        self._count += 1
        if self._count > MAX_NODES or depth > MAX_DEPTH:
            raise UnsafeContent(
                f"{self._what} is larger than {MAX_NODES} values or deeper than {MAX_DEPTH} levels"
                " once its aliases are written out"
            )
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, depth)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(item, depth + 1) for item in node.value]
        assert isinstance(node, yaml.ScalarNode)  # noqa: S101 - there is no fourth kind
        return self._scalar(node)

    def _scalar(self, node: ScalarNode) -> Text | None:
        if node.tag == f"{_STANDARD}null":
            return None
        return Text.at(node.value, node.start_mark.line + 1, plain=node.style is None)

    def _mapping(self, node: MappingNode, depth: int) -> dict[str, Any]:
        import yaml

        result: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise InvalidContent(f"{self._what} has a key that is not text (line {line})")
            key = Text.at(key_node.value, line, plain=True)
            value = self.build(value_node, depth + 1)
            if key_node.tag == f"{_STANDARD}merge":
                for other in reversed(value if isinstance(value, list) else [value]):
                    if not isinstance(other, dict):
                        raise InvalidContent(f"{self._what} merges what is no mapping (line {line})")
                    merged.update(other)
            elif key in result:
                raise InvalidContent(f"{self._what} has the key {str(key)!r:.60} twice (line {line})")
            else:
                result[key] = value
        return {**merged, **result}

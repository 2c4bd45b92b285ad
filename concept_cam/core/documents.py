"""Files that people and other programs write, read so that whatever they hold ends in what it means or in one error of ours."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from concept_cam.core.errors import ConceptCamError, DataError, reason_of

__all__ = ["read_json", "read_yaml", "understood"]

MOST_BYTES = 4 << 30
MOST_NODES = 2_000_000
"""Most values of a YAML file once its references are followed: a few lines can stand for billions."""


@contextmanager
def understood(where: str | os.PathLike[str], error: type[ConceptCamError] = DataError) -> Iterator[None]:
    """Turns whatever is raised while a file is made sense of into one error that names the file.

    Readers check what they can say something about; this is for the rest: a list where a name should be, a number of 5,000 digits, half a
    character, nesting without end.

    Args:
        where: The file.
        error: Class of the error.
    """
    try:
        yield
    except (ConceptCamError, Warning):
        raise
    except OSError as problem:
        raise error(f"{os.fspath(where)} cannot be read: {problem.strerror or problem}.") from problem
    except Exception as problem:
        raise error(f"{os.fspath(where)} cannot be read: {_spoken(problem)}.") from problem


def _spoken(problem: Exception) -> str:
    if isinstance(problem, KeyError) and problem.args:
        return f"{str(problem.args[0])[:80]!r} is missing or unknown"
    return reason_of(problem)


def read_json(path: str | os.PathLike[str], error: type[ConceptCamError] = DataError) -> Any:
    """Reads JSON in UTF-8, with or without a mark at its start.

    Raises:
        ConceptCamError: Of class ``error``: the file cannot be read, is too large, or is no JSON.
    """
    source = Path(path)
    with understood(source, error):
        if source.is_file() and source.stat().st_size > MOST_BYTES:
            raise error(f"{source} has more than {MOST_BYTES >> 30} GiB, which is too much for one JSON document.")
        text = source.read_text(encoding="utf-8-sig")
        try:
            return json.loads(text)
        except ValueError as problem:
            raise error(f"{source} cannot be read: it is not a JSON file: {problem}.") from problem


def read_yaml(path: str | os.PathLike[str], error: type[ConceptCamError] = DataError) -> Any:
    """Reads YAML safely: no objects, no references that expand without end.

    Raises:
        ConceptCamError: Of class ``error``: the file cannot be read or is no YAML.
    """
    import yaml

    source = Path(path)
    with understood(source, error):
        text = source.read_text(encoding="utf-8-sig")
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            if expanded(node) > MOST_NODES:
                raise error(f"{source}: its references stand for more than {MOST_NODES:,} values.")
            if (double := doubled(node)) is not None:
                raise error(f"{source}, line {double.start_mark.line + 1}: {double.value!r} stands there twice. Keep one of the two.")
            return loader.construct_document(node)
        except yaml.YAMLError as problem:
            raise error(f"{source} is not valid YAML: {problem}") from problem
        finally:
            loader.dispose()


def doubled(node: Any) -> Any:
    """Returns the first key of a node of PyYAML that its mapping has already, or ``None``; PyYAML drops the value before it silently."""
    import yaml

    seen: set[int] = set()
    waiting = [node]
    while waiting:
        item = waiting.pop()
        if isinstance(item, yaml.ScalarNode) or id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, yaml.MappingNode):
            keys: set[tuple[str, str]] = set()
            for key, value in item.value:
                if isinstance(key, yaml.ScalarNode):
                    if (key.tag, key.value) in keys:
                        return key
                    keys.add((key.tag, key.value))
                waiting += [key, value]
        else:
            waiting += item.value
    return None


def expanded(node: Any) -> int:
    """Returns how many values a node of PyYAML stands for once its references are followed; one that holds itself counts as too many."""
    import yaml

    known: dict[int, int] = {}
    open_nodes: set[int] = set()

    def count(item: Any) -> int:
        if isinstance(item, yaml.ScalarNode):
            return 1
        key = id(item)
        if key in open_nodes:
            return MOST_NODES + 1
        if key not in known:
            open_nodes.add(key)
            children = [part for pair in item.value for part in pair] if isinstance(item, yaml.MappingNode) else item.value
            known[key] = 1 + sum(count(child) for child in children)
            open_nodes.discard(key)
        return known[key]

    return count(node)

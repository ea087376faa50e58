"""Reads config files and options; errors name the source and the closest known key."""

from __future__ import annotations

import difflib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from detectron2.config import CfgNode

from querypose.config.defaults import default_config
from querypose.config_files import find_base_file, find_config_file


def read_config(config_file: str | Path, opts: Sequence[str] = ()) -> CfgNode:
    """Merges a config file and options into the default config.

    Args:
        config_file: YAML; or the name of a packaged config, see
            :func:`querypose.config_files.find_config_file`. A ``_BASE_`` in it is a path, or the
            name of a packaged config with ".yaml".
        opts: alternating keys and values, as on a command line; they override the file.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is not YAML, a key is unknown or a value has the wrong type.
    """
    config_file = find_config_file(config_file)
    if config_file.suffix == ".py":
        raise ValueError(
            f"{config_file} is a LazyConfig, which Detectron2's tools/lazyconfig_train_net.py "
            "trains; name a YAML config here."
        )
    cfg = default_config()
    with _explained(str(config_file), cfg):
        reader = _ConfigWithPackagedBases(cfg)
        # Detectron2 would run Python objects in the file.
        reader.merge_from_file(str(config_file), allow_unsafe=False)
        cfg.merge_from_other_cfg(reader)
        cfg.merge_from_list(list(opts))
    return cfg


class _ConfigWithPackagedBases(CfgNode):
    """A config whose file may name a packaged config in ``_BASE_``."""

    @classmethod
    def _open_cfg(cls, filename: str) -> Any:
        return super()._open_cfg(find_base_file(filename))


def config_to_json(cfg: CfgNode) -> str:
    """All keys and values of a config as JSON, which strangers' files may contain safely."""
    return json.dumps(yaml.safe_load(cfg.dump()), indent=1)


def config_from_json(text: str, source: str) -> CfgNode:
    """Reads a config that another version of this package or of Detectron2 may have written.

    Keys that are not known here are left out, with a line in the log.

    Args:
        text: of :func:`config_to_json`.
        source: where it comes from, for errors and the log.

    Raises:
        ValueError: it is not JSON, or a value has the wrong type.
    """
    cfg = default_config()
    with _explained(source, cfg):
        values = leaves(json.loads(text))
        known = [key for key, _ in _items(cfg) if key in values]
        cfg.merge_from_list([item for key in known for item in (key, values[key])])
    unknown = sorted(values.keys() - {*known})
    if unknown:
        logging.getLogger(__name__).warning(
            "The config in %s has keys that are not known here and are left out: %s.",
            source,
            ", ".join(unknown),
        )
    return cfg


def merge_options(cfg: CfgNode, opts: Sequence[str]) -> None:
    """Merges options into a config, in place.

    Args:
        cfg: not frozen.
        opts: alternating keys and values, as on a command line.

    Raises:
        ValueError: a key is unknown or a value has the wrong type.
    """
    with _explained("options", cfg):
        cfg.merge_from_list(list(opts))


@contextmanager
def _explained(source: str, cfg: CfgNode) -> Iterator[None]:
    """Turns errors of a merge into a ValueError that names the source."""
    try:
        yield
    except (yaml.YAMLError, RecursionError, UnicodeDecodeError) as error:
        raise ValueError(f"{source} is not valid YAML: {error}") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"{source}: the config is not valid JSON: {error}") from error
    except (AttributeError, TypeError) as error:
        raise ValueError(f"{source} does not map config keys to values.") from error
    except (KeyError, AssertionError, ValueError) as error:
        reason = str(error.args[0] if error.args else error)
        raise ValueError(f"{source}: {reason}{_suggestion(reason, cfg)}") from error


def _suggestion(reason: str, cfg: CfgNode) -> str:
    """The known key closest to an unknown one; empty for any other error."""
    if not reason.startswith("Non-existent"):
        return ""
    unknown = reason.rsplit(": ", 1)[-1]
    if unknown.startswith("-"):
        return "; options of the command come before the config's keys"
    close = difflib.get_close_matches(unknown, dict(_items(cfg)), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def leaves(node: Mapping[str, Any]) -> dict[str, Any]:
    """The values of nested mappings, such as a config, by their full keys."""
    return {key: value for key, value in _items(node) if not isinstance(value, Mapping)}


def _items(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Full keys and values of nested mappings; a section comes before what it holds."""
    for key, value in node.items():
        yield prefix + key, value
        if isinstance(value, Mapping):
            yield from _items(value, f"{prefix}{key}.")

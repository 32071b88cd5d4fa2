"""Configurations from JSON: dataclasses of dataclasses, every value of the type it says.

A wrong value is to fail when a model is loaded, and not in the middle of its first batch.
"""

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

Config = TypeVar("Config")

MOST = 2**31 - 1


def config_from(kind: type[Config], fields: Mapping[str, Any]) -> Config:
    """Return ``kind``, a dataclass of dataclasses, from JSON; lists become tuples.

    Raises TypeError for a field it does not have or lacks, or a value of another type;
    ValueError for a negative whole number or one beyond MOST, which no size or count is.
    """
    hints = typing.get_type_hints(kind)
    values: dict[str, Any] = {}
    for name, value in fields.items():
        values[name] = value
        if name in hints:  # else the constructor says that it has no such field
            values[name] = _value(f"{kind.__name__}.{name}", hints[name], value)
    return kind(**values)


def _value(name: str, hint: Any, value: Any) -> Any:  # noqa: ANN401 - any JSON
    options = _options(hint)  # a hint may be a union: `AdapterConfig | None`
    for option in options:
        if dataclasses.is_dataclass(option) and isinstance(value, Mapping):
            return config_from(typing.cast(type[Any], option), value)
    value = _tuples(value)
    if not any(_fits(value, option) for option in options):
        wanted = " or ".join(getattr(option, "__name__", str(option)) for option in options)
        raise TypeError(f"{name} is {value!r}, not {wanted}")
    if type(value) is int and value < 0:
        raise ValueError(f"{name} is {value}, and cannot be negative")
    if type(value) is int and value > MOST:
        raise ValueError(f"{name} is {value}, and cannot be more than {MOST}")
    return value


def _options(hint: Any) -> tuple[Any, ...]:  # noqa: ANN401 - any annotation
    is_union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return typing.get_args(hint) if is_union else (hint,)


def _tuples(value: Any) -> Any:  # noqa: ANN401 - any JSON
    return tuple(_tuples(one) for one in value) if isinstance(value, list) else value


def _fits(value: Any, hint: Any) -> bool:  # noqa: ANN401 - any JSON, any annotation
    """Return whether ``value`` is of the type ``hint``; True is no number."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple and isinstance(value, tuple):
        if len(args) == 2 and args[1] is Ellipsis:
            return all(_fits(one, args[0]) for one in value)
        return len(args) == len(value) and all(map(_fits, value, args))
    if hint is float:
        return type(value) in (int, float) and math.isfinite(value)
    if origin is not None:
        return isinstance(value, origin)
    if hint is Any:
        return True
    return type(value) is hint

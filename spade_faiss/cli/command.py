"""From a function that takes records of options to a command that Typer understands."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import wraps
from inspect import Parameter, Signature, signature
from typing import Any, get_type_hints

from .console import Console


def command_of(work: Callable[..., None]) -> Callable[..., None]:
    """Return a command that opens a console, puts options into records, and does the work.

    Parameters
    ----------
    work : callable
        Takes a `Console` first. A parameter that is annotated with a dataclass stands for the
        fields of that, which are options with annotations and defaults of their own; a field may
        stand for such a record, too. Every other parameter is an option or argument itself.
    """
    _, *parameters = signature(work).parameters.values()
    hints = get_type_hints(work, include_extras=True)

    @wraps(work)
    def command(**given: Any) -> None:
        with Console.open() as console:
            work(
                console,
                **{one.name: _value(one.name, hints[one.name], given) for one in parameters},
            )

    options = [
        own for one in parameters for own in _options(one.name, hints[one.name], one.default)
    ]
    command.__signature__ = Signature(options)  # type: ignore[attr-defined]
    command.__annotations__ = {one.name: one.annotation for one in options}
    return command


def _options(name: str, hint: Any, default: object) -> Iterator[Parameter]:
    """Yield the option of a name, or those that its record stands for, in their order."""
    if not _is_record(hint):
        yield Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=hint)
        return
    hints = get_type_hints(hint, include_extras=True)
    for field in fields(hint):
        own = Parameter.empty if field.default is MISSING else field.default
        yield from _options(field.name, hints[field.name], own)


def _value(name: str, hint: Any, given: Mapping[str, Any]) -> Any:
    """Return the value of an option, or a record of those that were given."""
    if not _is_record(hint):
        return given[name]
    hints = get_type_hints(hint)
    return hint(**{one.name: _value(one.name, hints[one.name], given) for one in fields(hint)})


def _is_record(hint: Any) -> bool:
    return is_dataclass(hint)

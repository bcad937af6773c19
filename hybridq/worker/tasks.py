"""Handlers: which function does which type of job, and what it is called with, by its signature."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from ..errors import InvalidArgument
from ..job import Lease

__all__ = ["Task"]

_SIGNATURES: Final = "a function of (payload, lease), (payload), (lease) or (); further parameters need defaults"
_NAMED: Final = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.POSITIONAL_ONLY)


@dataclass(frozen=True, slots=True)
class Task:
    """The handler of one type of job."""

    type: str
    function: Callable[..., Any]
    is_async: bool
    timeout_s: float | None
    arguments: Callable[[Lease], list[Any]]
    """Makes the arguments of one run; raises `msgspec.DecodeError` when the payload does not fit."""

    @classmethod
    def read(cls, type: str, function: Callable[..., Any], timeout_s: float | None) -> Task:
        """Understand a handler. Raises `InvalidArgument` when it cannot be called with a payload and a lease.

        A parameter annotated `Lease`, or named `lease`, gets the lease. The first other one gets the payload,
        read as JSON into its annotation (none: whatever the JSON holds); annotated `bytes` it gets the bytes
        as they are.
        """
        if not callable(function) or inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise InvalidArgument("handler", function, _SIGNATURES)
        return cls(
            type=type,
            function=function,
            is_async=_is_async(function),
            timeout_s=timeout_s,
            arguments=_arguments_of(function),
        )


def _is_async(function: Callable[..., Any]) -> bool:
    call = getattr(function, "__call__", None)  # noqa: B004 - an object whose __call__ is async
    return inspect.iscoroutinefunction(inspect.unwrap(function)) or inspect.iscoroutinefunction(call)


def _arguments_of(function: Callable[..., Any]) -> Callable[[Lease], list[Any]]:
    hints = _hints_of(function)
    readers: list[Callable[[Lease], Any]] = []
    payload_taken = False
    for parameter in inspect.signature(function).parameters.values():
        annotation = hints.get(parameter.name, Any)
        if parameter.kind not in _NAMED:
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY and parameter.default is not parameter.empty:
                continue
            raise InvalidArgument("handler", function, _SIGNATURES)
        if annotation is Lease or parameter.name == "lease":
            readers.append(_lease)
        elif not payload_taken:
            readers.append(_payload_reader(function, annotation))
            payload_taken = True
        elif parameter.default is parameter.empty:
            raise InvalidArgument("handler", function, _SIGNATURES)
        else:
            break  # what follows has a default as well, and is the handler's own affair
    return lambda lease: [read(lease) for read in readers]


def _hints_of(function: Callable[..., Any]) -> dict[str, Any]:
    annotated = function if inspect.isroutine(function) else type(function).__call__
    try:
        return typing.get_type_hints(inspect.unwrap(annotated), include_extras=True)
    except NameError as problem:
        raise InvalidArgument(
            "handler", function, f"annotated with names of its module's top level ({problem})"
        ) from problem


def _payload_reader(function: Callable[..., Any], annotation: Any) -> Callable[[Lease], Any]:
    if annotation is bytes:
        return _raw
    try:
        decoder = msgspec.json.Decoder(annotation)
    except TypeError as problem:
        raise InvalidArgument("handler", function, f"annotated with types msgspec can read ({problem})") from problem
    return lambda lease: decoder.decode(lease.payload)


def _lease(lease: Lease) -> Lease:
    return lease


def _raw(lease: Lease) -> bytes:
    return lease.payload

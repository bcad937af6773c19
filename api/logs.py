"""How the server logs: one line an event, with its component, request id and trace id, and nothing that is secret.

Everything goes one way: the library's and our own events (structlog), and what uvicorn and others say (logging).
Production, and a file, get JSON; a person in development gets text. What other packages have to say below WARNING
is not asked for: at DEBUG they would print headers and bodies.
"""

from __future__ import annotations

import logging
import logging.handlers
import re
import sys
from collections.abc import MutableMapping
from typing import Any, Final, TextIO

import msgspec
import structlog

from hybridq import guard

from .settings import Settings, SettingsError

__all__ = ["configure", "without_secrets"]

SECRET_NAME: Final = re.compile(
    r"(?:.*_)?(?:authorization|cookie|password|passwd|passphrase|secret|token|jwt|assertion|verifier|csrf)"
    r"|key|(?:.*_)?(?:api|access|private|secret|signing)_?key"
)
CONTENT_NAMES: Final = frozenset({"payload", "body", "result", "data", "env", "headers", "query", "steps", "metadata"})
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
_OWN: Final = ("hybridq", "api")
_SERVERS: Final = ("uvicorn", "granian")

Event = MutableMapping[str, Any]


def configure(settings: Settings, *, stream: TextIO | None = None) -> None:
    """Send every log line of this process to the settings' file, else to `stream` (None: standard error).

    Raises `SettingsError` for a file that cannot be written.
    """
    stream = stream or sys.stderr
    handler = _handler(settings, stream)
    chain: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
        structlog.processors.format_exc_info,
        without_secrets,
    ]
    plain = settings.production or settings.log_file is not None
    last: list[Any] = [structlog.processors.JSONRenderer(serializer=_json)] if plain else [_visible, _console(stream)]
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[_name_foreign, *chain],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    level = logging.getLevelName(settings.level)
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    for name in _OWN:
        logging.getLogger(name).setLevel(level)
    for name in _SERVERS:
        # Their INFO tells twice what we tell; at DEBUG it is welcome, and more of theirs would show headers.
        logging.getLogger(name).setLevel(logging.INFO if level == logging.DEBUG else max(level, logging.WARNING))
    structlog.configure(
        processors=[_name_component, *chain, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(level),
    )


def _handler(settings: Settings, stream: TextIO) -> logging.Handler:
    if settings.log_file is None:
        return logging.StreamHandler(stream)
    try:
        return logging.handlers.WatchedFileHandler(settings.log_file, encoding="utf-8")
    except OSError as wrong:
        raise SettingsError(f"HYBRIDQ_LOG_FILE: {settings.log_file} cannot be written: {wrong.strerror}") from None


def _json(event: Event, default: Any) -> str:
    return msgspec.json.encode(event, enc_hook=str).decode()


def _console(stream: TextIO) -> Any:
    return structlog.dev.ConsoleRenderer(
        colors=stream.isatty(), timestamp_key="at", exception_formatter=structlog.dev.plain_traceback
    )


def _name_component(_logger: Any, _method: str, event: Event) -> Event:
    """An event is called `<component>.<what>`."""
    event.setdefault("component", str(event.get("event", "")).partition(".")[0] or "hybridq")
    return event


def _name_foreign(_logger: Any, _method: str, event: Event) -> Event:
    record: logging.LogRecord = event["_record"]
    event.setdefault("component", record.name.partition(".")[0])
    return event


def _visible(_logger: Any, _method: str, event: Event) -> Event:
    """Write control characters out, so that no text forges a line or steers a terminal; tracebacks keep theirs."""
    for name, value in event.items():
        if isinstance(value, str) and name != "exception":
            event[name] = _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", value)
    return event


def without_secrets(_logger: Any, _method: str, event: Event) -> Event:
    """Leave out what is secret by its name, what belongs to a job, and what looks like a secret wherever it stands."""
    for name, value in list(event.items()):
        if not name.startswith("_"):
            event[name] = _safe(name, value)
    return event


def _safe(name: str, value: Any) -> Any:
    plain = name.lower().replace("-", "_")
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if SECRET_NAME.fullmatch(plain):
        return "[redacted]"
    if plain in CONTENT_NAMES:
        return "[left out]"
    if isinstance(value, dict):
        return {str(key): _safe(str(key), one) for key, one in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_safe(name, one) for one in value]
    return guard.redact(value if isinstance(value, str) else str(value))[0]

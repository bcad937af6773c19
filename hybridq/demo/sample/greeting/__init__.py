"""A package small enough to be built, compiled and tested in a second."""

from __future__ import annotations

__all__ = ["greet"]

WORDS = {"en": "Hello", "de": "Hallo", "fr": "Bonjour", "es": "Hola", "it": "Ciao"}


def greet(name: str, language: str = "en") -> str:
    """Return a greeting. Raises `ValueError` for an empty name or a language it does not speak."""
    if not name.strip():
        raise ValueError("a name is needed")
    if language not in WORDS:
        raise ValueError(f"{language!r} is not one of {', '.join(WORDS)}")
    return f"{WORDS[language]}, {name.strip()}!"

"""Packages that live beside the library: inside the wheel as `hybridq/_NAME`, in a checkout as the folder NAME."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import rich_click as click

__all__ = ["load_beside"]


def load_beside(name: str, module: str, *, called: str, extra: str) -> ModuleType:
    """Return a module of the package `name`: of the packaged copy, else of the folder beside a checkout's library.

    Raises `click.UsageError` when there is none, or when a package that it needs is not installed: `called` is what
    the message calls it, `extra` what brings the package.
    """
    package = _package(name, called)
    try:
        return importlib.import_module(f"{package}.{module}")
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] in {"hybridq", package.partition(".")[0]}:
            raise
        raise click.UsageError(
            f"{called} needs {missing.name}, which is not installed: pip install 'hybridq[{extra}]'"
        ) from None


def _package(name: str, called: str) -> str:
    """Return the name of the package, importing it from beside the library where it has to be."""
    library = Path(__file__).parents[1]
    if (library / f"_{name}" / "__init__.py").is_file():
        return f"hybridq._{name}"
    init = library.parent / name / "__init__.py"
    if not init.is_file():
        raise click.UsageError(f"{called} is neither in {library} nor beside it; reinstall hybridq")
    known = sys.modules.get(name)
    if known is None:
        # By its path: the name may be somebody else's, further up on the path.
        spec = importlib.util.spec_from_file_location(name, init, submodule_search_locations=[str(init.parent)])
        assert spec is not None and spec.loader is not None
        known = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(known)
    return name

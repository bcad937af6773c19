"""Data directories for embedded servers, none of which outlives its test."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hybridq.embedded import down


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """A directory that does not exist yet, with a short path; its server is stopped at the end."""
    parent = Path(tempfile.mkdtemp(prefix="hq-"))
    yield parent / "data"
    if (parent / "data").is_dir():
        down(parent / "data")
    shutil.rmtree(parent, ignore_errors=True)

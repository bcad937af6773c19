"""A build backend (PEP 517) of the standard library alone: the sample can be built where nothing is installed."""

from __future__ import annotations

import base64
import hashlib
import tarfile
import zipfile
from pathlib import Path
from typing import Any

NAME = "greeting-1.0"
METADATA = "Metadata-Version: 2.1\nName: greeting\nVersion: 1.0\n"
WHEEL = "Wheel-Version: 1.0\nGenerator: backend\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def build_sdist(sdist_directory: str, config_settings: Any = None) -> str:
    """Pack the sources; returns the file's name."""
    name = f"{NAME}.tar.gz"
    Path("PKG-INFO").write_text(METADATA)
    with tarfile.open(Path(sdist_directory) / name, "w:gz") as archive:
        for path in [Path("PKG-INFO"), Path("pyproject.toml"), Path("backend.py"), *_sources()]:
            archive.add(path, f"{NAME}/{path.as_posix()}")
    return name


def build_wheel(wheel_directory: str, config_settings: Any = None, metadata_directory: Any = None) -> str:
    """Pack what is installed; returns the file's name."""
    name = f"{NAME}-py3-none-any.whl"
    contents = {path.as_posix(): path.read_bytes() for path in _sources() if path.parts[0] == "greeting"}
    contents[f"{NAME}.dist-info/METADATA"] = METADATA.encode()
    contents[f"{NAME}.dist-info/WHEEL"] = WHEEL.encode()
    record = "".join(f"{path},sha256={_digest(data)},{len(data)}\n" for path, data in contents.items())
    contents[f"{NAME}.dist-info/RECORD"] = f"{record}{NAME}.dist-info/RECORD,,\n".encode()
    with zipfile.ZipFile(Path(wheel_directory) / name, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, data in contents.items():
            archive.writestr(path, data)
    return name


def _sources() -> list[Path]:
    return sorted(path for folder in ("greeting", "tests") for path in Path(folder).rglob("*.py"))


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")

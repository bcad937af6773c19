"""Access records of one's own for each test, on each engine."""

from __future__ import annotations

import pytest

from hybridq.connect import SyncRedis
from tests.access.harness import AccessRig
from tests.contract.conftest import client, cluster, engine  # noqa: F401 - fixtures


@pytest.fixture
def rig(client: SyncRedis, engine: str, namespace: str) -> AccessRig:  # noqa: F811
    """The access records of a server nobody has called yet."""
    return AccessRig(client, namespace, shebang=engine != "fake")

"""A place to unpack in, with neighbours that must stay as they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fixtures.archives import Yard


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    return Yard(tmp_path)

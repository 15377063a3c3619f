"""A copy gives way to another: by one rename, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from dm.errors import MachineFailed
from dm.plumbing.store.layout import Layout
from dm.plumbing.store.placing import Placer
from dm.plumbing.store.workspace import Workspace


def test_a_folder_is_back_where_it_was_when_the_new_one_cannot_take_its_place(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    copy = tmp_path / "datasets" / "sst"
    copy.mkdir(parents=True)
    (copy / "a.nc").write_bytes(b"old")
    with Workspace(layout) as work:
        placer = Placer(layout, work, durable=False)
        with pytest.raises(MachineFailed, match="cannot put in place"):
            placer.put(Path(work.new_path()), copy, is_folder=True, replaces=True)  # nothing was staged there
    assert b"old" == (copy / "a.nc").read_bytes()

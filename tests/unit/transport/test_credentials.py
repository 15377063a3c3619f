"""Logins from netrc."""

from __future__ import annotations

from pathlib import Path

import pytest

from dm.plumbing.transport.credentials import Credentials
from tests.fixtures.fetching import make_environment
from tests.fixtures.sinks import RecordingProgress


def test_a_login_is_a_basic_authorization(tmp_path: Path) -> None:
    (tmp_path / ".netrc").write_text("machine h login ada password pä:ss\n", encoding="utf-8")
    credentials = Credentials(make_environment(tmp_path))
    assert "Basic YWRhOnDDpDpzcw==" == credentials.find_authorization("h", RecordingProgress())
    assert None is credentials.find_authorization("other", RecordingProgress())


@pytest.mark.parametrize("host", ["elsewhere", "default"])
def test_a_default_entry_goes_to_no_host(tmp_path: Path, host: str) -> None:
    (tmp_path / ".netrc").write_text("machine h login ada password pass\ndefault login ada password pass\n")
    credentials = Credentials(make_environment(tmp_path))
    assert None is credentials.find_authorization(host, RecordingProgress())
    assert "Basic YWRhOnBhc3M=" == credentials.find_authorization("h", RecordingProgress())


@pytest.mark.parametrize("named", ["logins", "~/logins"])
def test_the_variable_names_another_file(tmp_path: Path, named: str) -> None:
    (tmp_path / "logins").write_text("machine h login ada password pass\n")
    credentials = Credentials(make_environment(tmp_path, NETRC=named))
    assert "Basic YWRhOnBhc3M=" == credentials.find_authorization("h", RecordingProgress())


def test_no_file_means_no_login_and_no_word(tmp_path: Path) -> None:
    progress = RecordingProgress()
    assert None is Credentials(make_environment(tmp_path)).find_authorization("h", progress)
    assert [] == progress.warnings


@pytest.mark.parametrize(
    ("content", "warning"),
    [
        (b"machine h login ada secret pass\n", "line 1: bad follower token 'secret'"),
        (b"machine h login \xff password pass\n", "it is not UTF-8"),
    ],
)
def test_a_file_that_cannot_be_understood_is_told_once(tmp_path: Path, content: bytes, warning: str) -> None:
    path = tmp_path / ".netrc"
    path.write_bytes(content)
    progress = RecordingProgress()
    credentials = Credentials(make_environment(tmp_path))
    assert [None, None] == [credentials.find_authorization("h", progress) for _ in range(2)]
    assert 1 == len(progress.warnings)
    assert str(path) in progress.warnings[0]
    assert warning in progress.warnings[0]
    assert progress.warnings[0].endswith("; no login is sent")

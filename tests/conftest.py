"""What every test may ask for. The fixtures live in tests/fixtures/, one file for one kind of thing."""

from __future__ import annotations

import os
import signal

import pytest
from hypothesis import HealthCheck, settings

# Before any of them is imported: they import each other, and their asserts are rewritten whatever the order below.
pytest.register_assert_rewrite("tests.fixtures")

pytest_plugins = [
    "tests.fixtures.homes",
    "tests.fixtures.commands",  # after what it imports: pytest rewrites asserts of what was not imported before
    "tests.fixtures.artifacts",  # after homes
    "tests.fixtures.machine",
    "tests.fixtures.git_servers",
    "tests.fixtures.peer",
    "tests.fixtures.seaweed",
    "tests.fixtures.servers",
    "tests.fixtures.catalogues",  # after what it imports, as above
    "tests.fixtures.sshd",
    "tests.fixtures.users",
]

# A shared machine stalls now and then: a deadline, or a limit on drawing, would test the machine. The examples are the
# same in every run, so that no change fails for what another one did; `HYPOTHESIS_PROFILE=long` looks for others.
_SLOW = [HealthCheck.too_slow]
settings.register_profile("default", deadline=None, suppress_health_check=_SLOW, derandomize=True)
settings.register_profile("long", deadline=None, suppress_health_check=_SLOW, max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

# Tests name modes as most users have them; those about the umask set their own.
os.umask(0o022)

# A shell that starts the tests in the background has them ignore Ctrl-C, and so would every command they start.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

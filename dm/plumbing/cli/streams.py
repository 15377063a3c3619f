"""Standard streams that may be closed. Imports nothing of `dm`, since ``dm --version`` imports it."""

from __future__ import annotations

import os
import sys


def replace_closed_streams() -> None:
    """Let closed standard streams lead nowhere: else the next file that is opened would take their number, and be
    written to.
    """
    if None not in (sys.stdin, sys.stdout, sys.stderr):
        return
    while (descriptor := os.open(os.devnull, os.O_RDWR)) < 3:
        continue
    os.close(descriptor)
    sys.stdin = sys.stdin or open(0, encoding="utf-8")  # noqa: SIM115 - for as long as the process lives
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8")  # noqa: SIM115 - for as long as the process lives
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8")  # noqa: SIM115 - for as long as the process lives

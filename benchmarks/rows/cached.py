"""Results that are kept: what a hit and a miss cost, against joblib.Memory and the Python peer.

What is measured is a call inside a process that is warm, as in a notebook or a loop; each process does one side, the
sides take turns. The mark of a hit is a millisecond beside what loading the same file costs without any of them.
"""

from __future__ import annotations

import os
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.bench import MIB, Bench, Result
from benchmarks.timing import Command, CommandFailed, Run, run_timed

#: What a hit may cost beside loading (s).
_HIT_S = 0.001
#: What a miss may cost beside computing (s): files, flushes, renames, the record.
_MISS_S = 0.03

#: What every side begins with. ``clock`` prints the seconds of one call and, after it, those of what it is held
#: against, which is done in turns in the same process: what a busy machine does to the loading of 100 MB in another
#: process is more than what is looked for. It is the least of some repeats.
_HEAD = """
import sys, time
def clock(call, load=None, repeats=20, batch=1):
    least = [float("inf")] * 2
    for _ in range(repeats):
        for index, each in enumerate((call, load)):
            if each is not None:
                began = time.perf_counter()
                for _ in range(batch):
                    each()
                least[index] = min(least[index], (time.perf_counter() - began) / batch)
    print(least[0], *least[1:] * (load is not None))
"""
_DM = "import dm\ndef keep(function, **options): return dm.cached(cachetype='bench.make', **options)(function)\n"
_JOBLIB = (
    "import joblib\nmemory = joblib.Memory('kept', verbose=0)\n"
    "def keep(function, **options): return memory.cache(function)\n"
)
_PEER = (
    "from datamanifest.cache import cached\n"
    "def keep(function, **options):\n"
    "    options.pop('check', None)\n"
    "    return cached(cachetype='bench.make', storage_path='kept', project_root='.', **options)(function)\n"
)

_SMALL = "def make(*, n): return {'n': n, 'levels': [1, 2, 3]}\n"
_ARRAY = "import numpy\ndef make(*, n): return numpy.arange({count}, dtype='float64') + n\n"


class _Way(NamedTuple):
    """One side: a program's text and the interpreter that runs it."""

    label: str
    code: str
    python: str = sys.executable


def hit_small(bench: Bench) -> Result:
    """A hit of a small value in a pickle."""
    call = "f = keep(make)\nf(n=1)\nclock(lambda: f(n=1), load, batch=50)\n"
    load = (
        "import pickle\npickle.dump(make(n=1), open('value', 'wb'))\n"
        "def load():\n    with open('value', 'rb') as file: return pickle.load(file)\n"
    )
    ways = [
        _Way("dm", _DM + _SMALL + load + call),
        _Way("joblib", _JOBLIB + _SMALL + load + call),
        *_peers(bench, _PEER + _SMALL + load + call),
    ]
    return _measure(bench, "cached-hit-small", "a hit of a small value, per call", ways, "pickle.load", _HIT_S)


def hit_array(bench: Bench, check: str) -> Result:
    """A hit of 100 MiB of numbers, with one way of checking their bytes."""
    array = _ARRAY.format(count=bench.amount(100 * MIB) // 8)
    load = f"numpy.save('value.npy', make(n=1))\nimport blake3\ndef load():\n    {_HASH}\n    numpy.load('value.npy')\n"
    if check != "always":
        load = "numpy.save('value.npy', make(n=1))\ndef load(): numpy.load('value.npy')\n"
    # A file that has just changed is read again until it is certain that nobody changes it still.
    settle = "f(n=1)\ntime.sleep(2.5)\nf(n=1)\n" if check == "once" else ""
    call = f"f = keep(make, format='npy', check={check!r})\nf(n=1)\n{settle}clock(lambda: f(n=1), load)\n"
    plain = "f = keep(make)\nf(n=1)\nclock(lambda: f(n=1))\n"
    ways = [_Way("dm", _DM + array + load + call)]
    if check == "always":
        ways += [_Way("joblib", _JOBLIB + array + plain), *_peers(bench, _PEER + array + plain)]
    work = f"a hit of 100 MiB in npy, `check={check!r}`"
    beside = "numpy.load and BLAKE3" if check == "always" else "numpy.load"
    return _measure(bench, f"cached-hit-array-{check}", work, ways, beside, _HIT_S)


#: As fast as the bytes can be checked at all.
_HASH = "blake3.blake3(max_threads=blake3.blake3.AUTO).update_mmap('value.npy')"


def hit_array_always(bench: Bench) -> Result:
    """Every byte is compared at every hit: the mark counts beside loading and hashing."""
    return hit_array(bench, "always")


def hit_array_once(bench: Bench) -> Result:
    """Bytes are compared once in a process while the file is unchanged."""
    return hit_array(bench, "once")


def hit_array_never(bench: Bench) -> Result:
    """Bytes are never compared."""
    return hit_array(bench, "never")


def hits(bench: Bench) -> Result:
    """1,000 distinct keys that are there: one hit, in a process that knows nothing of them."""
    count = bench.amount(1000)
    # They are made by a child, so that nothing is remembered.
    fork = "import os\nif os.fork() == 0:\n    run()\n    sys.exit()\nos.wait()\n"
    one = "        with open(f'values/{n}', 'rb') as file: pickle.load(file)\n"
    load = f"{_write_values(count)}load()\ndef load():\n    for n in range({count}):\n{one}"
    return _many(bench, count, "cached-hit-1000", "1,000 first hits", fork, load, "pickle.load", _HIT_S)


def miss(bench: Bench) -> Result:
    """1,000 distinct keys, computed and kept: one miss."""
    count = bench.amount(1000)
    load = _write_values(count)
    return _many(bench, count, "cached-miss-1000", "1,000 misses", "", load, "pickle.dump", _MISS_S)


def _write_values(count: int) -> str:
    return (
        "import os, pickle\nos.mkdir('values')\n"
        f"def load():\n    for n in range({count}):\n"
        "        with open(f'values/{n}', 'wb') as file: pickle.dump(make(n=n), file)\n"
    )


def _many(
    bench: Bench, count: int, row: str, work: str, before: str, load: str, beside: str, limit_s: float
) -> Result:
    run = f"f = keep(make)\nf(n=-1)\ndef run():\n    for n in range({count}): f(n=n)\n"
    code = f"{_SMALL}{load}{run}{before}clock(run, load, repeats=1)\n"
    ways = [_Way("dm", _DM + code), _Way("joblib", _JOBLIB + code), *_peers(bench, _PEER + code)]
    return _measure(bench, row, f"{work} of a small value, per call", ways, beside, limit_s, calls=count)


def _peers(bench: Bench, code: str) -> list[_Way]:
    """The Python peer's side, where there is one (``--peer``)."""
    return [] if bench.peer is None else [_Way("peer", code, bench.peer)]


def _measure(
    bench: Bench, row: str, work: str, ways: Sequence[_Way], beside: str, limit_s: float, *, calls: int = 1
) -> Result:
    """Run the ways in turns; each clocks ``calls`` calls as one. ``beside`` is what the first clocks next to them."""
    runs: list[list[tuple[list[float], Run]]] = [[] for _ in ways]
    for number in range(bench.pairs_of(5) + 1):
        order = range(len(ways)) if number % 2 == 0 else reversed(range(len(ways)))
        for index in order:
            run = _run(bench, row, ways[index])
            if number > 0:
                runs[index].append((_read_seconds(ways[index], run, calls), run))
    seconds = [statistics.median(each[0] for each, _ in of_way) for of_way in runs]
    extra_s = [each[0] - each[1] for each, _ in runs[0]]
    told = [f"{beside} {_tell(statistics.median(each[1] for each, _ in runs[0]))}"]
    told += [f"{way.label} {_tell(second)}" for way, second in zip(ways[1:], seconds[1:], strict=True)]
    return Result(
        row,
        work,
        _tell(seconds[0]),
        ", ".join(told),
        f"{_tell(statistics.median(extra_s), sign='+')} ({_tell(min(extra_s))}–{_tell(max(extra_s))})",
        f"≤ {limit_s * 1000:.0f} ms beside {beside}",
        statistics.median(extra_s) <= limit_s,
        f"{max(run.peak_bytes for _, run in runs[0]) / MIB:.0f} MiB",
    )


def _tell(seconds: float, *, sign: str = "") -> str:
    """The time of one call; the other rows take seconds."""
    digits = 2 if abs(seconds) < 0.01 else 1
    return f"{seconds * 1000:{sign}.{digits}f} ms"


def _run(bench: Bench, row: str, way: _Way) -> Run:
    folder = bench.fresh(row)
    (folder / "datamanifest.toml").write_text("[_META]\nschema = 1\n")
    script = folder / "side.py"
    script.write_text(_HEAD + way.code)
    checkout = Path(__file__).resolve().parents[2]
    variables = {**bench.variables(folder), "PYTHONPATH": os.fspath(checkout) if way.python == sys.executable else ""}
    os.sync()
    return run_timed(Command([way.python, script], folder, variables))


def _read_seconds(way: _Way, run: Run, calls: int) -> list[float]:
    """The seconds of one call, then of what it is held against."""
    try:
        found = [float(word) / calls for word in run.output.split()]
    except ValueError:
        found = []
    if not found:
        raise CommandFailed(f"{way.label} gave no number: {run.output[-200:]!r}")
    return found


ROWS = {
    "cached-hit-small": hit_small,
    "cached-hit-array-always": hit_array_always,
    "cached-hit-array-once": hit_array_once,
    "cached-hit-array-never": hit_array_never,
    "cached-hit-1000": hits,
    "cached-miss-1000": miss,
}

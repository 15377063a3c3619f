"""The ladder and the expressions against an independent table of cases."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from dm.environment import Environment
from dm.plumbing.records.ladder import Ladder, Source
from dm.plumbing.records.places import Places

FOLDERS = {"XDG_DATA_HOME": "/u/data", "XDG_CACHE_HOME": "/u/cache"}
HOST = "node7"

#: The rungs as SCHEMA.md lists them, the first one first: where each value stands.
TABLE = [
    ("environment", "DATAMANIFEST_SCRATCH_DIR"),
    ("environment", "DATAMANIFEST_SCRATCH"),
    ("checkout", "node?"),
    ("checkout", None),
    ("manifest", "node[0-9]"),
    ("manifest", "node\\d"),
    ("manifest", None),
    ("user", "*7"),
    ("user", "node7"),
    ("user", None),
]


@given(st.sets(st.integers(0, len(TABLE) - 1), min_size=1), st.sets(st.sampled_from(["login*", "node", "[", "7"])))
def test_the_first_rung_that_is_set_wins(chosen: set[int], foreign: set[str]) -> None:
    variables = dict(FOLDERS)
    tables: dict[str, dict[str, object]] = {"checkout": {}, "manifest": {}, "user": {}}
    for number in sorted(chosen, reverse=True):
        where, name = TABLE[number]
        if where == "environment":
            variables[str(name)] = f"/{number}"
        elif name is None:
            tables[where]["scratch"] = f"/{number}"
        else:
            tables[where].setdefault("_HOST", {})[name] = {"scratch": f"/{number}"}  # type: ignore[index]
    for table in tables.values():
        for pattern in foreign:
            table.setdefault("_HOST", {})[pattern] = {"scratch": "/other host"}  # type: ignore[index]
    ladder = Ladder(
        Environment(variables, Path("/u"), Path("/w"), HOST, 1),
        Source(Path("/p/c"), tables["checkout"]),
        Source(Path("/p/m"), tables["manifest"], ("_STORAGE",)),
        Source(Path("/u/c"), tables["user"]),
    )
    rung = ladder.lookup("scratch")
    assert rung is not None
    assert rung.value == f"/{min(chosen)}"
    assert [each.value for each in ladder.explain("scratch") if each.wins] == [f"/{min(chosen)}"]
    assert {each.value for each in ladder.explain("scratch") if each.value} == {f"/{number}" for number in chosen}


names = st.sampled_from(["alpha", "beta", "gamma", "delta"])
pieces = st.lists(st.sampled_from(["/x", "y", "-", ".nc", "/", "é"]) | st.integers(0, 3), max_size=5)


@given(st.lists(pieces, min_size=4, max_size=4), pieces, st.booleans())
def test_symbols_are_replaced_as_text(values: list[list[str | int]], expression: list[str | int], braced: bool) -> None:
    """Symbol n names earlier ones only, so there is no circle; the expected text is put together piece by piece."""
    symbols = ["alpha", "beta", "gamma", "delta"]
    texts: list[str] = []
    table: dict[str, object] = {}

    def write(parts: list[str | int], known: int) -> tuple[str, str]:
        written = expanded = ""
        for part in parts:
            if isinstance(part, int):
                if part < known:
                    # Bare names end where no letter, digit or '_' follows: the pieces that could follow are kept off.
                    written += f"${{{symbols[part]}}}" if braced else f"${symbols[part]}/"
                    expanded += texts[part] if braced else f"{texts[part]}/"
            else:
                written += part
                expanded += part
        return written, expanded

    for number, value in enumerate(values):
        written, expanded = write(["r", *value], number)
        table[symbols[number]] = written
        texts.append(expanded)
    environment = Environment(FOLDERS, Path("/u"), Path("/w"), HOST, 1)
    places = Places(Ladder(environment, Source(None, table)), Path("/p"), environment)
    written, expanded = write(expression, 4)
    assert places.expand(written, used_in="a test") == expanded

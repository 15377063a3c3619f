"""Arguments become the key of a result: completed, by name, and refused where that cannot be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dm.decorating.arguments import Parameters
from dm.errors import UsageError


def bind(function: Callable[..., Any], *args: object, **kwargs: object) -> dict[str, object]:
    return Parameters(function, name="make").bind(args, kwargs).table


def test_the_key_is_the_same_however_the_arguments_are_given() -> None:
    def make(a: int, b: int = 2, *, c: int = 3) -> None: ...

    expected = {"a": 1, "b": 2, "c": 3}
    assert [expected] * 4 == [bind(make, 1), bind(make, a=1), bind(make, 1, 2, c=3), bind(make, c=3, b=2, a=1)]


def test_a_changed_default_is_another_key() -> None:
    def before(a: int = 1) -> None: ...
    def after(a: int = 2) -> None: ...

    assert ({"a": 1}, {"a": 2}) == (bind(before), bind(after))


def test_keywords_beyond_the_named_ones_enter_by_their_names() -> None:
    def make(a: int, **others: int) -> None: ...

    assert bind(make, 1, z=3) == {"a": 1, "z": 3}


def test_names_that_begin_with_an_underscore_stay_out_and_reach_the_function() -> None:
    def make(a: int, _jobs: int = 4, **others: int) -> None: ...

    call = Parameters(make, name="make").bind((1,), {"_debug": 1})
    assert ({"a": 1}, {"a": 1, "_jobs": 4, "_debug": 1}) == (call.table, call.kwargs)


def test_the_function_gets_the_values_themselves_and_the_key_their_plain_form() -> None:
    def make(place: Path, /, levels: tuple[int, ...]) -> None: ...

    call = Parameters(make, name="make").bind((Path("a/b"), (1, 2)), {})
    assert call.table == {"place": "a/b", "levels": [1, 2]}
    assert ((Path("a/b"),), {"levels": (1, 2)}) == (call.args, call.kwargs)


def test_ignored_arguments_may_be_anything() -> None:
    def make(a: int, client: object) -> None: ...

    parameters = Parameters(make, name="make", ignore=["client"])
    assert parameters.bind((1, object()), {}).table == {"a": 1}


@pytest.mark.parametrize("key", [["a"], "a", ("a", "b"), lambda table: {"a": table["a"]}])
def test_a_key_takes_names_or_makes_a_table(key: Any) -> None:
    def make(a: int, _b: int = 0, c: object = None) -> None: ...
    def with_b(a: int, b: int = 5) -> None: ...

    if key == ("a", "b"):
        assert Parameters(with_b, name="make", key=key).bind((1,), {}).table == {"a": 1, "b": 5}
    else:
        assert Parameters(make, name="make", key=key).bind((1,), {"c": object()}).table == {"a": 1}


def test_a_key_function_sees_the_values_themselves_without_those_that_never_count() -> None:
    seen: list[dict[str, object]] = []

    def make(a: object, _b: int = 0, c: int = 1) -> None: ...

    def key(table: dict[str, object]) -> dict[str, object]:
        seen.append(table)
        return {"length": len(str(table["a"])), "_kept": 1}

    value = {3, 4}
    table = Parameters(make, name="make", key=key, ignore=["c"]).bind((value,), {}).table
    assert ([{"a": value}], {"length": 6, "_kept": 1}) == (seen, table)


def test_a_key_function_must_give_a_table() -> None:
    def make(a: int) -> None: ...

    with pytest.raises(UsageError) as caught:
        Parameters(make, name="make", key=lambda table: table["a"]).bind((1,), {})
    assert str(caught.value) == "cannot key a call of 'make': its key function gave 'int', not a table"
    assert caught.value.hint == "return a dict of what tells one result from another"


def test_a_value_without_a_plain_form_is_named() -> None:
    def make(grid: object) -> None: ...

    with pytest.raises(UsageError, match=r"cannot make a key of 'grid.levels\[1\]': it is None"):
        bind(make, {"levels": [1, None]})


def test_a_wrong_call_is_refused_as_python_refuses_it() -> None:
    def make(a: int) -> None: ...

    with pytest.raises(TypeError, match=r"^make\(\): missing a required argument: 'a'$"):
        bind(make)
    with pytest.raises(TypeError, match=r"^make\(\): got an unexpected keyword argument 'b'$"):
        bind(make, 1, b=2)


def test_two_arguments_of_one_name_are_refused() -> None:
    def make(a: int, /, **others: int) -> None: ...

    with pytest.raises(UsageError) as caught:
        bind(make, 1, a=2)
    assert str(caught.value) == "cannot key a call of 'make': it has two arguments called 'a'"
    assert caught.value.hint == "rename the positional-only parameter"


def test_what_the_function_writes_to_is_not_for_callers() -> None:
    def make(_path: Path, a: int, **others: int) -> None: ...

    parameters = Parameters(make, name="make")
    assert parameters.takes_path
    assert list(parameters.signature.parameters) == ["a", "others"]
    assert parameters.bind((1,), {}).kwargs == {"a": 1}
    with pytest.raises(TypeError, match=r"make\(\) is told '_path' by dm.cached, not by its caller"):
        parameters.bind((1,), {"_path": Path("x")})


def varied(*args: int) -> None: ...
def path_first(_path: Path, /) -> None: ...
def plain(a: int, b: int, _c: int = 0) -> None: ...
def open_ended(a: int, **others: int) -> None: ...


@pytest.mark.parametrize(
    ("function", "options", "message", "hint"),
    [
        (
            varied,
            {},
            "cannot cache 'make': '*args' has no names, and a result is known by its parameters' names",
            "take a list as one parameter instead",
        ),
        (path_first, {}, "cannot cache 'make': '_path' is positional-only", "write it behind the '/'"),
        (
            plain,
            {"ignore": ["d"]},
            "cannot cache 'make': 'ignore' names 'd', which is no parameter of it",
            "its parameters are: a, b",
        ),
        (
            plain,
            {"key": ["d"]},
            "cannot cache 'make': 'key' names 'd', which is no parameter of it",
            "its parameters are: a, b",
        ),
        (
            plain,
            {"key": "_c"},
            "cannot cache 'make': 'key' names '_c', and parameters that begin with '_' are never in the key",
            None,
        ),
    ],
)
def test_a_declaration_that_cannot_be_is_refused(
    function: Callable[..., Any], options: dict[str, Any], message: str, hint: str | None
) -> None:
    with pytest.raises(UsageError) as caught:
        Parameters(function, name="make", **options)
    assert (message, hint) == (str(caught.value), caught.value.hint)


def test_where_any_keyword_is_taken_any_name_may_be_ignored() -> None:
    assert Parameters(open_ended, name="make", ignore="z").bind((1,), {"z": object()}).table == {"a": 1}

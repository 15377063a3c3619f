"""What a function is called as a maker of results; what has no lasting name is told what to do."""

from __future__ import annotations

import functools
import gc
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from types import FunctionType
from typing import Any

import pytest

from dm.decorating.naming import Name, check_function, claim, find_name
from dm.errors import DmError, Refused, UsageError


def top(a: int) -> int:
    return a


class Model:
    def method(self, a: int) -> int:
        return a

    @classmethod
    def of_class(cls, a: int) -> int:
        return a

    @staticmethod
    def free(a: int) -> int:
        return a

    def __call__(self, a: int) -> int:
        return a


def generate() -> Iterator[int]:
    yield 1


async def generate_async() -> AsyncIterator[int]:
    yield 1


def make_inner() -> Callable[[int], int]:
    def inner(a: int) -> int:
        return a

    return inner


def as_if_in(module: str, function: Callable[..., Any], **surroundings: object) -> Callable[..., Any]:
    """The same function as if its module were another."""
    assert isinstance(function, FunctionType)
    other = FunctionType(function.__code__, {**surroundings}, function.__name__)
    other.__module__, other.__qualname__ = module, function.__qualname__
    return other


def test_a_function_is_called_by_module_and_qualified_name() -> None:
    assert Name(f"{__name__}.top", "", f"{__name__}:top") == find_name(top, cachetype=None, version="")
    assert Name("sst", "v2", f"{__name__}:Model.free") == find_name(Model.free, cachetype="sst", version="v2")


@pytest.mark.parametrize("module", ["__main__", "__mp_main__"])
def test_what_python_was_started_with_is_called_by_its_module(module: str) -> None:
    spec = type(sys)("spec")
    spec.name = "pkg.mod"  # type: ignore[attr-defined]
    function = as_if_in(module, top, __spec__=spec)
    assert find_name(function, cachetype=None, version="") == Name("pkg.mod.top", "", "pkg.mod:top")


@pytest.mark.parametrize("module", ["__main__", "__mp_main__"])
def test_a_script_or_notebook_is_told_what_to_do(module: str) -> None:
    function = as_if_in(module, top, __spec__=None)
    with pytest.raises(UsageError) as caught:
        find_name(function, cachetype=None, version="")
    assert str(caught.value) == (
        "cannot cache 'top': it is defined in a script, a notebook or at a prompt, "
        "so its module has no name to find its results by"
    )
    assert caught.value.hint == (
        'give it one: @dm.cached(cachetype="my_project.top"), or put it into a module and import it'
    )
    assert find_name(function, cachetype="my_project.top", version="").ref == "__main__:top"


def test_nested_functions_and_lambdas_need_a_name() -> None:
    for function, what, suggestion in (
        (make_inner(), "defined inside another function", "inner"),
        (lambda a: a, "a lambda", "name"),
    ):
        with pytest.raises(UsageError) as caught:
            find_name(function, cachetype=None, version="")
        assert str(caught.value).endswith(f": it is {what}, so its name is not its own")
        assert caught.value.hint == (
            f'give it one: cachetype="{__name__}.{suggestion}"; what it takes from around it is not in the key'
        )
        assert find_name(function, cachetype="named", version="").cachetype == "named"


@pytest.mark.parametrize(("cachetype", "version"), [("../up", ""), ("a@b", ""), ("sst", "../up"), ("", "")])
def test_a_name_that_is_no_safe_path_is_refused(cachetype: str, version: str) -> None:
    with pytest.raises(Refused):
        find_name(top, cachetype=cachetype, version=version)


STATE = "decorate a function that takes what it needs as parameters, and call that from the method"
CALLS_IT = "write a function with 'def' that calls it"
PARTIAL = "it is a functools.partial, and what it fills in is not in the key"


@pytest.mark.parametrize(
    ("function", "message", "hint"),
    [
        (Model.method, "it is a method, and what it depends on in its object is not in the key", STATE),
        (Model().method, "it is a method, and what it depends on in its object is not in the key", STATE),
        (Model.__dict__["of_class"].__func__, "it is a method", STATE),
        (Model.__dict__["of_class"], "it is a classmethod already", STATE),
        (Model.__dict__["free"], "it is a staticmethod already", "write @staticmethod above @dm.cached"),
        (Model, "it is a class", "decorate a function that returns an instance of it"),
        (Model(), "it has no name of its own", CALLS_IT),
        (functools.partial(top, 1), PARTIAL, CALLS_IT),
        (functools.update_wrapper(functools.partial(top, 1), top), PARTIAL, CALLS_IT),
        (len, "it is built in, and its code changes with Python", CALLS_IT),
        (generate, "it is a generator, which has no one value to keep", "return a list of what it would yield"),
        (generate_async, "it is a generator, which has no one value to keep", "return a list of what it would yield"),
        (min, "it tells no signature", CALLS_IT),
    ],
)
def test_what_cannot_be_cached_is_refused_with_the_reason(function: Any, message: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_function(function)
    assert str(caught.value).startswith("cannot cache '")
    assert f"': {message}" in str(caught.value)
    assert caught.value.hint == hint


def test_what_is_no_function_at_all_is_a_type_error() -> None:
    with pytest.raises(TypeError, match=r"dm\.cached takes a function, not a value of type 'str'"):
        check_function("pickle")


def test_functions_and_those_that_other_decorators_wrapped_may_be_cached() -> None:
    check_function(top)
    check_function(Model.free)
    check_function(functools.lru_cache(top))


def test_two_live_functions_cannot_have_one_name() -> None:
    claim(Name("one-name", "v1", f"{__name__}:top"), top)
    claim(Name("one-name", "v2", f"{__name__}:generate"), generate)
    with pytest.raises(UsageError) as caught:
        claim(Name("one-name", "v1", f"{__name__}:generate"), generate)
    assert str(caught.value) == (
        f"cannot cache '{__name__}:generate' as 'one-name' version 'v1': "
        f"'{__name__}:top' is cached under this name"
    )
    assert caught.value.hint == "give one of them another cachetype= or version=; a function that is gone holds none"


def test_the_same_function_again_keeps_its_name() -> None:
    first, again = as_if_in("notebook", top), as_if_in("notebook", top)
    claim(Name("cell", "", "notebook:top"), first)
    claim(Name("cell", "", "notebook:top"), again)


def test_a_function_that_is_gone_holds_no_name() -> None:
    gone = as_if_in("notebook", top)
    claim(Name("freed", "", "notebook:before"), gone)
    del gone
    gc.collect()
    claim(Name("freed", "", "notebook:after"), top)


def test_errors_of_declarations_are_dm_errors_of_the_caller() -> None:
    with pytest.raises(DmError) as caught:
        check_function(generate)
    assert (2, "cached-declaration") == (caught.value.exit_status, caught.value.code)

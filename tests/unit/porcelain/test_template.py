"""The words of a ``shell`` template: split first, substituted then."""

from __future__ import annotations

from pathlib import Path

import pytest

from dm.errors import Malformed
from dm.porcelain.order import Required
from dm.porcelain.template import expand_template, sanitize_identifier

VARIABLES = {"download_path": "/p q/x.nc", "key": "h/x.nc", "version": "v1", "uri": "https://h/x.nc?a=$key", "doi": ""}


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("get $uri -o $download_path", ["get", "https://h/x.nc?a=$key", "-o", "/p q/x.nc"]),
        ("get '$download_path'", ["get", "/p q/x.nc"]),
        ('get "--to=$download_path"', ["get", "--to=/p q/x.nc"]),
        ("get --to=${download_path}.part", ["get", "--to=/p q/x.nc.part"]),
        ("get 'a b' \"c\\\"d\" e\\ f", ["get", "a b", 'c"d', "e f"]),
        ("get $unknown ${other} $ $$key", ["get", "$unknown", "${other}", "$", "$h/x.nc"]),
        ("get $doi", ["get", ""]),
        ("get $version_2 $versions", ["get", "v1_2", "v1s"]),
        ("get a;rm -rf *", ["get", "a;rm", "-rf", "*"]),
        ("get # $key", ["get", "#", "h/x.nc"]),
    ],
)
def test_a_template_is_split_into_words_and_then_substituted(template: str, words: list[str]) -> None:
    assert words == expand_template(template, VARIABLES)


def test_paths_of_required_datasets_are_had_by_name_by_number_and_all_together() -> None:
    required = [
        Required("group/a.nc", "group/a.nc", Path("/one a")),
        Required("10.1/x", "b", Path("/two")),
        Required("1", "one", Path("/three")),
    ]
    assert ["/one a", "/two", "/two"] == expand_template("$path_group_a_nc $path_10_1_x $path_b", {}, required)
    assert ["/three", "/two", "/three"] == expand_template("$path_1 $path_2 $path_3", {}, required)  # a name beats
    assert ["cat", "/one a", "/two", "/three"] == expand_template("cat $requires_paths", {}, required)
    assert ["cat", "--in=/one a /two /three"] == expand_template("cat --in=${requires_paths}", {}, required)
    assert ["cat"] == expand_template("cat $requires_paths", {})


def test_number_ten_is_not_number_one_and_a_nought() -> None:
    required = [Required(f"d{number}", f"d{number}", Path(f"/{number}")) for number in range(1, 11)]
    assert ["/10", "/1"] == expand_template("$path_10 $path_1", {}, required)


def test_identifiers_are_written_in_variables_as_the_peers_write_them() -> None:
    assert ["a_b_c", "x-y z"] == [sanitize_identifier("a/b.c"), sanitize_identifier("x-y z")]


def test_a_dataset_without_a_path_is_an_error_only_where_its_path_is_used() -> None:
    required = [Required("lazy", "lazy", None), Required("a", "a", Path("/a"))]
    assert ["cat", "/a", "/a", "/a"] == expand_template("cat $requires_paths $path_a $path_2", {}, required)
    for variable in ("$path_lazy", "x${path_1}y"):
        with pytest.raises(Malformed) as caught:
            expand_template(f"cat {variable}", {}, required)
        told = "'shell' uses the path of 'lazy', which has none: it is opened in place (lazy_access)"
        assert told == str(caught.value)
        assert "path-missing" == caught.value.code


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("get 'x", "cannot read 'shell': no closing quotation"),
        ("get x\\", "cannot read 'shell': no escaped character"),
        ("  ", "'shell' names no program"),
        ("'' x", "'shell' names no program"),
    ],
)
def test_a_template_that_is_no_command_is_malformed(template: str, message: str) -> None:
    with pytest.raises(Malformed) as caught:
        expand_template(template, VARIABLES)
    assert (message, "shell-malformed") == (str(caught.value), caught.value.code)

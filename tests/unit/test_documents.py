"""The documents are true: they list all there is, what they compute comes out, where they point is something."""

from __future__ import annotations

import ast
import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from blake3 import blake3

from dm.errors import GRAVITY
from dm.plumbing.hashing import blake3_of, hash_folder_contents
from dm.plumbing.records.dataset_fields import FIELD_NAMES
from dm.plumbing.records.fields import FIELDS, KIND_TABLES, OBJECT_KINDS
from dm.plumbing.records.key import derive_key, landing_key
from dm.plumbing.records.manifest import MANIFEST_NAMES, Manifest
from dm.plumbing.records.params import canonical_json, hash_params
from dm.plumbing.records.schema import validate
from dm.plumbing.records.sidecars import Metadata, decode_config, encode_config, encode_metadata
from dm.plumbing.store.objects import TreeEntry, encode_tree, tree_id
from dm.porcelain.cli.app import PLUMBING, PORCELAIN, Commands
from dm.porcelain.states import REMEDIES
from dm.values import DIGEST_HEX_LENGTHS

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted(
    path
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").glob("*.md")]
    if not path.is_symlink()
)
SCHEMA = (ROOT / "SCHEMA.md").read_text(encoding="utf-8")
CLI = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
PLUMBING_PAGE = (ROOT / "docs" / "plumbing.md").read_text(encoding="utf-8")
CONFIGURATION = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")

#: What the options of every command are documented as, once.
COMMON_OPTIONS = {"--json", "--help", "--quiet", "--verbose", "--no-progress", "--color", "--debug", "--root", "-z"}


def find_section(text: str, title: str) -> str:
    """The text below a heading, up to the next one of the same or a higher level."""
    head = re.search(rf"^(#+) (?:[\d.]+ )?{re.escape(title)}$", text, re.MULTILINE)
    assert head is not None, f"no section '{title}'"
    rest = text[head.end() :]
    end = re.search(rf"^#{{1,{len(head[1])}}} ", rest, re.MULTILINE)
    return rest if end is None else rest[: end.start()]


def read_rows(text: str) -> list[list[str]]:
    """The cells of every table row in a text, without headers' rules; code marks are taken off whole cells."""
    rows = []
    for line in text.splitlines():
        if line.startswith("|") and not set(line) <= set("|-: "):
            cells = [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line.strip()[1:-1])]
            rows.append([re.sub(r"^`([^`]*)`$", r"\1", cell) for cell in cells])
    return rows


def list_blocks(text: str, language: str) -> list[str]:
    """The code blocks whose fence says exactly this."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def slug(heading: str) -> str:
    """The anchor of a heading, as GitHub makes it."""
    plain = re.sub(r"[`*]", "", heading.strip().lower())
    return re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")


def list_anchors(path: Path) -> set[str]:
    text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return {slug(heading) for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE)}


def list_links(path: Path) -> Iterator[str]:
    text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    yield from re.findall(r"\]\(([^)\s]+)\)", text)


# Commands -------------------------------------------------------------------------------------------------------------


def test_every_porcelain_command_has_its_section() -> None:
    headings = re.findall(r"^### `dm ([a-z-]+)", CLI, re.MULTILINE)
    assert headings == list(PORCELAIN)


def test_every_plumbing_command_has_its_row() -> None:
    named = [match[1] for row in read_rows(PLUMBING_PAGE) if (match := re.match(r"dm ([a-z-]+)", row[0]))]
    assert [name for name in PLUMBING if name not in named] == []
    assert set(named) <= set(PLUMBING)


def find_command(name: str) -> str:
    """What is said of one command: its section of docs/cli.md, or its rows of docs/plumbing.md."""
    if name in PORCELAIN:
        start = CLI.index(f"### `dm {name}")
        return re.split(r"^##+ ", CLI[start + len("### ") :], flags=re.MULTILINE)[0]
    return "\n".join("|".join(row) for row in read_rows(PLUMBING_PAGE) if re.match(rf"dm {name}(?![\w-])", row[0]))


@pytest.mark.parametrize("name", [*PORCELAIN, *PLUMBING])
def test_every_option_of_a_command_is_described(name: str) -> None:
    context = click.Context(click.Group("dm"))
    command = Commands("dm").get_command(context, name)
    assert command is not None
    commands = list(command.commands.values()) if isinstance(command, click.Group) else [command]
    section = find_command(name)
    missing = [
        option.opts[-1]
        for each in commands
        for option in each.params
        if isinstance(option, click.Option)
        and not option.hidden
        and COMMON_OPTIONS.isdisjoint(option.opts)
        and not any(re.search(rf"(?<![\w-]){re.escape(text)}(?![\w-])", section) for text in option.opts)
    ]
    assert missing == []


def test_the_changelog_names_every_command() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert [name for name in (*PORCELAIN, *PLUMBING) if f"`{name}`" not in changelog] == []


@pytest.mark.parametrize(("text", "title"), [(CLI, "Exit statuses"), (SCHEMA, "Exit statuses")])
def test_every_exit_status_is_in_the_tables(text: str, title: str) -> None:
    told = {int(number) for row in read_rows(find_section(text, title)) for number in re.findall(r"\b\d+\b", row[0])}
    assert told == {*GRAVITY, 130, 141, 143}


@pytest.mark.parametrize("text", [CLI, SCHEMA])
def test_the_order_of_gravity_is_told(text: str) -> None:
    order = re.search(r"gravest[^:]*: 70, then ([\d,\s]+)\.", text)
    assert order is not None
    assert [70, *(int(number) for number in re.findall(r"\d+", order[1])), 0] == list(GRAVITY)


def test_the_parameter_hashes_are_those_of_the_vectors() -> None:
    vectors = [(row[0], row[1]) for row in read_rows(find_section(SCHEMA, "The parameter hash"))[1:]]
    assert len(vectors) > 5
    for table, expected in vectors:
        assert (table, expected) == (canonical_json(json.loads(table)).decode(), hash_params(json.loads(table)))


def test_the_sidecar_of_the_page_is_what_is_written() -> None:
    (text,) = list_blocks(find_section(SCHEMA, "Sidecars"), "toml")
    config = decode_config(text.encode())
    assert text == encode_config(config.cachetype, config.version, config.params, config.hash).decode()


def test_every_field_of_the_metadata_is_described() -> None:
    told = " ".join(" ".join(row) for row in read_rows(find_section(SCHEMA, "Sidecars")))
    full = Metadata("1", "2", "3", "4", "5", 6.0, {"commit": "7", "branch": "8", "dirty": True}, "9", "10", {"p": "11"})
    document = tomllib.loads(encode_metadata(full).decode())
    names = [name for name in document if name != "_META"]
    names += [name for table in ("git", "origin", "code") for name in document[table]]
    assert [name for name in names if not re.search(rf"(?<!\w){name}(?!\w)", told)] == []


# Fields ---------------------------------------------------------------------------------------------------------------


def test_every_setting_is_described_and_the_personal_ones_are_marked() -> None:
    told = {}
    for row in read_rows(find_section(CONFIGURATION, "Fields"))[1:]:
        for name in re.findall(r"[\w.]+", row[0]):
            told[name] = row[3] == "P"
    kinds = {f"{table}.{kind}": False for table in KIND_TABLES for kind in OBJECT_KINDS}
    assert told == {**{name: field.personal for name, field in FIELDS.items()}, **kinds}


def test_every_personal_setting_is_in_the_specification() -> None:
    section = find_section(SCHEMA, "What a cloned project may not decide")
    assert [name for name, field in FIELDS.items() if field.personal and f"`{name}`" not in section] == []


def test_every_field_of_a_dataset_is_in_the_specification() -> None:
    rows = read_rows(find_section(SCHEMA, "Fields of a dataset"))[1:]
    told = {name for row in rows for name in re.findall(r"\w+", row[0])}
    assert told == {*FIELD_NAMES, "downloads"}


def test_every_digest_algorithm_is_in_the_specification() -> None:
    rows = read_rows(find_section(SCHEMA, "Checksums").partition("### ")[0])[1:]
    assert {name: int(digits) for name, digits in rows} == DIGEST_HEX_LENGTHS


def test_every_state_is_in_the_specification() -> None:
    told = {row[0] for row in read_rows(find_section(SCHEMA, "States"))[1:]}
    assert told == {*REMEDIES, "missing", "modified", "clean", "skipped"}


def test_the_names_of_a_manifest_are_told_in_their_order() -> None:
    section = find_section(SCHEMA, "File and discovery")
    names = [name for name in re.findall(r"`(\w+\.toml)`", section) if name in MANIFEST_NAMES]
    assert list(dict.fromkeys(names)) == list(MANIFEST_NAMES)


# Vectors --------------------------------------------------------------------------------------------------------------


def test_the_blob_vectors_hold() -> None:
    rows = [row for row in read_rows(find_section(SCHEMA, "Objects")) if row[0].startswith('"')]
    assert len(rows) == 3
    for content, expected in rows:
        data = ast.literal_eval(f"b{content}")
        assert blake3(data).hexdigest() == expected == blake3_of(data).hex()


def test_the_tree_vectors_hold_by_the_code_and_by_hand() -> None:
    blocks = list_blocks(find_section(SCHEMA, "Objects"), "tree")
    assert len(blocks) == 4
    for block in blocks:
        expected, *lines = block.splitlines()
        entries = []
        for line in lines:
            mode, hexadecimal, size, name = line.split(" ", 3)
            entries.append(TreeEntry(ast.literal_eval(f"b{name}"), mode, bytes.fromhex(hexadecimal), int(size)))
        data = b"".join(
            f"{entry.mode} {entry.id.hex()} {entry.size}\t".encode() + entry.name + b"\0" for entry in entries
        )
        assert encode_tree(entries) == data
        assert blake3(data, derive_key_context="dm tree v1").hexdigest() == expected == tree_id(entries).hex()


def test_the_folder_digest_vector_holds(tmp_path: Path) -> None:
    section = find_section(SCHEMA, "Digest of a folder in a plain algorithm")
    for name, content in read_rows(section)[1:]:
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text(content)
    expected = re.search(r"`(sha256:[0-9a-f]{64})`", section)
    assert expected is not None
    assert str(hash_folder_contents(tmp_path, "sha256")) == expected[1]


def test_the_keys_of_the_table_are_derived() -> None:
    rows = read_rows(find_section(SCHEMA, "Keys"))[1:]
    assert len(rows) == 6
    assert [derive_key(uri, version or None) for uri, version, _ in rows] == [key for _, _, key in rows]


def test_the_landing_paths_of_the_table_are_derived() -> None:
    rows = read_rows(find_section(SCHEMA, "Landing paths"))[1:]
    assert len(rows) == 5
    assert [landing_key(key, extract=True) for key, _ in rows] == [landing for _, landing in rows]


# Examples -------------------------------------------------------------------------------------------------------------


def list_examples() -> list[tuple[str, str, str]]:
    found = []
    for path in DOCUMENTS:
        for kind in ("manifest", "config", "state"):
            for block in list_blocks(path.read_text(encoding="utf-8"), f"toml {kind}"):
                found.append((path.name, kind, block))
    return found


@pytest.mark.parametrize(("page", "kind", "text"), list_examples())
def test_the_toml_examples_are_in_order(page: str, kind: str, text: str) -> None:
    assert validate(kind, text) == []
    if kind == "manifest":
        manifest = Manifest.parse(text)
        assert manifest.find_collisions() == {}
        assert all(dataset.key.text for dataset in manifest.datasets.values())


def test_there_are_examples_of_every_kind_and_all_other_toml_parses() -> None:
    assert {kind for _, kind, _ in list_examples()} == {"manifest", "config", "state"}
    assert {page for page, kind, _ in list_examples() if kind == "manifest"} >= {"README.md", "SCHEMA.md"}
    for path in DOCUMENTS:
        for block in list_blocks(path.read_text(encoding="utf-8"), "toml"):
            tomllib.loads(block)


def test_the_python_examples_compile() -> None:
    for path in DOCUMENTS:
        for block in list_blocks(path.read_text(encoding="utf-8"), "python"):
            compile(block, str(path), "exec")


# Links ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(path: Path) -> None:
    broken = []
    for link in list_links(path):
        if re.match(r"[a-z]+:", link):
            continue
        target, _, anchor = link.partition("#")
        place = (path.parent / target).resolve() if target else path
        if not place.exists() or (anchor and anchor not in list_anchors(place)):
            broken.append(link)
    assert broken == []


def test_the_index_leads_to_every_page() -> None:
    linked = {(ROOT / "docs" / link.partition("#")[0]).resolve() for link in list_links(ROOT / "docs" / "index.md")}
    pages = {path for path in (ROOT / "docs").glob("*.md") if path.name != "index.md"}
    assert pages <= linked


def test_what_the_code_calls_a_section_of_the_specification_is_one() -> None:
    titles = {re.sub(r"^[\d.]+ ", "", title) for title in re.findall(r"^##+ (.*)$", SCHEMA, re.MULTILINE)}
    sources = [*(ROOT / "dm").rglob("*.py"), *(ROOT / "schemas").glob("*.json")]
    named = set()
    for path in sources:
        text = re.sub(r"\n\s*#?:?\s*", " ", path.read_text(encoding="utf-8"))
        named |= set(re.findall(r'SCHEMA\.md(?:\'s|,)? "([^"]+?)[,.]?"', text))
    assert len(named) > 10
    assert {name for name in named if name not in titles} == set()

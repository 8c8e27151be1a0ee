"""The strict reader: what YAML 1.1 would get wrong, what is refused, and where things stand."""

import math
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from galdiff.config.yaml import MAX_BYTES, MAX_DEPTH, Document, read_file, read_text
from galdiff.errors import CatalogFileError


def read(text: str) -> Document:
    return read_text(text, source="x.yaml")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1.0e-3", 1e-3),
        ("-1E5", -1e5),
        (".5", 0.5),
        ("5.", 5.0),
        ("12", 12),
        ("-3", -3),
        ("0", 0),
        ("0x1F", 31),
        ("0o17", 15),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        (".inf", math.inf),
        ("-.INF", -math.inf),
        ("587722981742084144", 587722981742084144),
    ],
)
def test_scalars_of_yaml_1_2(text, value):
    found = read(f"key: {text}").value["key"]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    "text",
    ["no", "Yes", "on", "off", "y", "012", "12:30:45", "190:20:30", "1_000", "2026-01-01", "0b1", "=", "1e"],
)
def test_text_that_yaml_1_1_would_convert(text):
    assert read(f"key: {text}").value["key"] == text


def test_quoted_scalars_are_text():
    assert read("""{a: "1", b: 'true', c: "null"}""").value == {"a": "1", "b": "true", "c": "null"}


def test_integer_keys_are_integers_and_others_text():
    assert read("{0: a, no: b, 1.5: c, true: d, '7': e}").value == {
        0: "a",
        "no": "b",
        "1.5": "c",
        "true": "d",
        "7": "e",
    }


def test_places_count_from_one():
    document = read("a:\n  b: 1\n  c: [x, y]\n")
    assert str(document.keys["a", "c"]) == "x.yaml:3:3"
    assert str(document.places["a", "c", 1]) == "x.yaml:3:10"


def test_duplicate_keys_name_both_lines():
    (problem,) = read("a: 1\nb:\n  c: 2\n  d: 3\n  c: 4\n").problems
    assert str(problem) == "x.yaml:5:3: b.c: the key is there twice, first in line 3"


@pytest.mark.parametrize(
    ("text", "word", "where"),
    [
        ("a: !!python/object/apply:os.system ['true']", "tags", "1:4"),
        ("a: !custom 1", "tags", "1:4"),
        ("a: &x 1", "anchors", "1:4"),
        ("a: &x 1\nb: *x", "aliases", "2:4"),
        ("a: 1\n<<: {b: 2}", "merge", "2:1"),
    ],
)
def test_features_that_are_refused(text, word, where):
    problems = read(text).problems
    assert any(word in p.message and str(p.place) == f"x.yaml:{where}" for p in problems)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("a: [1, 2", "x.yaml:1:9"),
        ("a: b: c", "x.yaml:1:5"),
        ("a: 1\n\tb: 2", "x.yaml:2:1"),
        ("a: 1\n---\nb: 2", "x.yaml:2:1"),
        ("? [a]\n: 1", "x.yaml:1:3"),
        ("a: '", "x.yaml:1:5"),
    ],
)
def test_what_is_no_yaml_names_its_line(text, place):
    with pytest.raises(CatalogFileError) as caught:
        read(text)
    assert str(caught.value).startswith(place)


def test_depth_is_capped():
    assert read("[" * MAX_DEPTH + "]" * MAX_DEPTH).value
    with pytest.raises(CatalogFileError, match="nested deeper"):
        read("[" * 3000)
    with pytest.raises(CatalogFileError, match="nested deeper"):
        read("\n".join(" " * i + "a:" for i in range(MAX_DEPTH + 5)))


def test_a_billion_laughs_are_not_expanded():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9)]
    document = read("\n".join(lines))
    assert document.value["a8"] == [None] * 9
    assert len(document.problems) == 9 + 8 * 9


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(CatalogFileError, match="no such file"):
        read_file(tmp_path / "none.yaml")
    with pytest.raises(CatalogFileError, match="no such file"):
        read_file(tmp_path)
    large = tmp_path / "large.yaml"
    large.write_bytes(b"#" * (MAX_BYTES + 1))
    with pytest.raises(CatalogFileError, match="larger than 256 KiB"):
        read_file(large)
    latin = tmp_path / "latin.yaml"
    latin.write_bytes(b"a: 1\nb: caf\xe9\n")
    with pytest.raises(CatalogFileError, match=r"latin\.yaml:2: is not UTF-8"):
        read_file(latin)


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path):
    path = tmp_path / "bom.yaml"
    path.write_bytes("\ufeffname: x\n".encode())
    assert read_file(path).value == {"name": "x"}


_YAML = st.text(st.sampled_from("ab01 \n\t:-?,[]{}&*!|>'\"%@`#~<.\\uUx\x00\ud800é"), max_size=60)


@settings(max_examples=400, deadline=None)
@given(st.one_of(_YAML, st.text(max_size=80)))
def test_any_text_is_read_or_refused(text):
    with suppress(CatalogFileError):
        read(text)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=80))
def test_any_bytes_are_read_or_refused(tmp_path_factory, raw):
    path = tmp_path_factory.mktemp("fuzz") / "x.yaml"
    path.write_bytes(raw)
    with suppress(CatalogFileError):
        read_file(path)

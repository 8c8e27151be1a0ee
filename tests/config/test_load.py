"""Catalog files: every mistake at once and in its place; overrides are edits; the shipped ones are right."""

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from galdiff.config import catalog_path, dump, load, packaged_catalogs
from galdiff.config.build import fit_settings, flatten
from galdiff.errors import CatalogFileError

GOOD = """\
name: demo
data:
  kind: image_folder
  root: stamps
  classes: {0: smooth, 1: left, 2: right}
  mirror: [[left, right]]
denoiser:
  backbone: {kind: unet, widths: [32, 64]}
"""


@pytest.fixture
def write(tmp_path):
    def _write(text: str, name: str = "demo.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return _write


def problems(path, *overrides) -> list[str]:
    with pytest.raises(CatalogFileError) as caught:
        load(path, *overrides)
    first, *lines = str(caught.value).replace(f"{path.parent}/", "").splitlines()
    assert first.split()[0] == str(len(lines))
    return [line.strip() for line in lines]


def test_five_mistakes_are_five_reports(write):
    path = write("""\
name: demo
data:
  kind: image_folder
  root: stamps
  sise: 64
autoencoder:
  bach: 32
  learning_rate: -1e-4
denoiser:
  backbone: unett
  dihedral: no
""")
    assert problems(path) == [
        "demo.yaml:5:3: data.sise: there is no such key (did you mean 'size'?)",
        "demo.yaml:7:3: autoencoder.bach: there is no such key (did you mean 'batch'?)",
        "demo.yaml:8:18: autoencoder.learning_rate: should be greater than 0, not -0.0001",
        "demo.yaml:10:13: denoiser.backbone.kind: should be unet or edm2 or dit, not 'unett' (did you mean 'unet'?)",
        "demo.yaml:11:13: denoiser.dihedral: should be true or false, not 'no'",
    ]


def test_mistakes_in_sections_do_not_hide_those_between_them(write):
    path = write("""\
name: demo
data: {kind: image_folder, root: stamps, classes: {0: disk, 1: round}, size: 60, sise: 64, crop: 3}
autoencoder: {width: 17}
denoiser: {batch: 0}
sampling: {asks: {a: {morphology: diks}}, sweeps: {b: {morpholgy: [disk, round]}}}
""")
    assert sorted(line.split(": ")[1] for line in problems(path)) == [
        "autoencoder.factor",
        "autoencoder.width",
        "data.crop",
        "data.sise",
        "denoiser.batch",
        "sampling.asks.a.morphology",
        "sampling.sweeps.b.morpholgy",
    ]


@pytest.mark.parametrize(
    ("override", "found"),
    [
        ("data.size=many", ["data.size", "seed"]),
        ("data={kind: gz2, simulate: 3}", ["data.simulate", "seed"]),
        ("split={train: many, validation: 0.3, test: 0.3}", ["seed", "split.train"]),
        ("autoencoder={factor: 3, batch: 0}", ["autoencoder.batch", "autoencoder.factor", "seed"]),
        ("data={kind: image_folder, size: 60}", ["autoencoder.factor", "data.root", "seed"]),
    ],
)
def test_what_was_left_out_makes_no_mistakes(write, override, found):
    """A default in the place of a wrong value may not fit the rest, which nobody wrote."""
    path = write("name: demo\ndata: {kind: gz2, root: x}\nseed: -1\n")
    assert sorted(line.split(": ")[1] for line in problems(path, [override])) == found


EXTREMES = [
    ("denoiser.backbone.widths", "[100000000]"),
    ("denoiser.backbone", "{kind: dit, width: 1000000000000, depth: 1, heads: 1}"),
    ("autoencoder.width", "10000000"),
    ("autoencoder.learning_rate", "1e30"),
    ("denoiser.learning_rate", "2"),
    ("denoiser.batch", "10000000000000"),
    ("denoiser.images", "100000000000000000000000"),
    ("autoencoder.kl", "1e300"),
    ("data.size", "100000"),
    ("data.root", "'" + 300 * "x" + "'"),
    ("data.root", '"a\\0b"'),
    ("data.images", "'" + 200 * "é" + "'"),
    ("sampling.steps", "1000000000"),
    ("sampling.n", "10000000000000"),
    ("evaluation.draws", "1000000"),
    ("threads", "100000000"),
    ("seed", "9223372036854775808"),
    ("name", "'../x'"),
    ("name", "'" + 101 * "x" + "'"),
]


@pytest.mark.parametrize(("key", "value"), EXTREMES)
def test_what_no_machine_could_do_is_refused_by_its_key(write, key, value):
    (line,) = problems(write(GOOD), [f"{key}={value}"])
    assert line.startswith(f"--set {key}: {key}")


def test_a_misspelt_kind_does_not_hide_the_mistakes_beside_it(write):
    path = write("name: demo\ndata:\n  kind: image_foldr\n  root: x\n  sise: 64\n  crop: 2\n")
    assert [line.split(": ")[1] for line in problems(path)] == ["data.kind", "data.sise", "data.crop"]


def test_mistakes_of_the_reader_and_of_the_schema_come_together(write):
    path = write("name: demo\nseed: 1\nseed: 2\ndata: {kind: gz2, root: x, size: many}\nthreads: !!int 0\n")
    assert problems(path) == [
        "demo.yaml:3:1: seed: the key is there twice, first in line 2",
        "demo.yaml:4:34: data.size: should be a whole number, not 'many'",
        "demo.yaml:5:10: threads: tags (tag:yaml.org,2002:int) are not allowed; write plain YAML",
    ]


@pytest.mark.parametrize(
    ("text", "report"),
    [
        ("data: {kind: gz2, root: x}", "demo.yaml:1:1: name: is required"),
        ("name: demo", "demo.yaml:1:1: data: is required"),
        ("name: demo\ndata: {kind: gz2}", "demo.yaml:2:1: data.root: is required: the folder of the data"),
        ("name: demo\ndata: {root: x}", "demo.yaml:2:1: data.kind: is required: gz2 or image_folder or "),
        ("name: demo\ndata: [1]", "demo.yaml:2:7: data: should be a section (key: value)"),
        ("name: ../demo\ndata: {kind: gz2, root: x}", "demo.yaml:1:7: name: should match pattern"),
        ("name: demo\ndata: {kind: gz2, root: x}\nseed: true", "demo.yaml:3:7: seed: should be a number, not True"),
        ("name: demo\ndata: {kind: gz2, root: x}\nseed: 1.5", "demo.yaml:3:7: seed: should be a whole number, not 1.5"),
        ("name: demo\ndata: {kind: gz2, root: x}\nsplit: {train: 0.5}", "demo.yaml:3:8: split: shares should sum to 1"),
        (
            "name: demo\ndata: {kind: gz2, root: x, size: 50}",
            "demo.yaml:1:1: autoencoder.factor: 8 does not divide the side of the images, 50",
        ),
        (
            "name: demo\ndata: {kind: gz2, root: x}\ndenoiser: {backbone: {kind: dit, width: 100}}",
            "demo.yaml:3:41: denoiser.backbone.width: should be a multiple of 4 x heads = 24",
        ),
        (
            "name: demo\ndata: {kind: gz2, root: x}\nautoencoder: {clip: .inf}",
            "demo.yaml:3:21: autoencoder.clip: should be a finite number, not inf",
        ),
        (
            "name: demo\ndata: {kind: gz2, root: x}\nsampling: {asks: {s: {votes: {spirall: 1}}}}",
            "demo.yaml:3:40: sampling.asks.s.votes.spirall: is not an answer of Galaxy Zoo 2 or Galaxy Zoo DECaLS (did",
        ),
        (
            "name: demo\ndata: {kind: gz2, root: x, table_format: decals}\nsampling: {asks: {s: {votes: {bar: 1}}}}",
            "demo.yaml:3:36: sampling.asks.s.votes.bar: is not an answer of Galaxy Zoo DECaLS (did you mean 'no_bar'?)",
        ),
        (
            "name: demo\ndata: {kind: gz2, root: x, table_format: kaggle}\nsampling: {asks: {s: {votes: {big: 1}}}}",
            "demo.yaml:3:36: sampling.asks.s.votes.big: is not an answer of Galaxy Zoo 2",
        ),
        (
            "name: demo\ndata: {kind: gz2, root: x}\nsampling: {asks: {s: {votes: {weak_bar: 1, odd: 1}}}}",
            "demo.yaml:3:30: sampling.asks.s.votes: are answers of different surveys, Galaxy Zoo 2 or",
        ),
        (
            "name: demo\ndata: {kind: gz2, root: x}\nsampling: {asks: {s: {votes: {spiral: 2}}}}",
            "demo.yaml:3:39: sampling.asks.s.votes.spiral: should be a vote fraction within [0, 1], not 2",
        ),
        (
            "name: demo\ndata: {kind: deeplense, root: x}\nsampling: {asks: {s: {votes: {spiral: 1}}}}",
            "demo.yaml:3:30: sampling.asks.s.votes: is not a condition of this data, substructure or log10_mass is",
        ),
        (
            "name: demo\ndata: {kind: image_folder, root: x, classes: {0: a}, mirror: [[a, b]]}",
            "demo.yaml:2:67: data.mirror.0.1: 'b' is not one of the classes",
        ),
    ],
)
def test_one_mistake_is_one_report(write, text, report):
    (line,) = problems(write(text))
    assert line.startswith(report)


@pytest.mark.parametrize(
    "key",
    [
        "data.crop",
        "autoencoder.ema",
        "denoiser.ema",
        "denoiser.objective.location",
        "denoiser.null",
        "sampling.floor",
    ],
)
@pytest.mark.parametrize("value", ["true", "false"])
def test_true_and_false_are_no_numbers(write, key, value):
    (line,) = problems(write(GOOD), [f"{key}={value}"])
    assert line.startswith(f"--set {key}: {key}: should be a number")


@pytest.mark.parametrize("key", ["start", "end"])
def test_a_schedule_begins_and_ends_where_numbers_do(write, key):
    (line,) = problems(write(GOOD), [f"denoiser.schedule={{kind: sigmoid, {key}: 1e300}}"])
    assert f"denoiser.schedule.{key}: should be" in line


@pytest.mark.parametrize("text", ["", "[1, 2]", "text", "3"])
def test_a_file_that_is_no_mapping(write, text):
    with pytest.raises(CatalogFileError, match="mapping of sections"):
        load(write(text))


def test_overrides_are_edits_of_the_file(write):
    path = write(GOOD)
    edited = GOOD.replace("[32, 64]", "[16]").replace("1: left", "1: left, 3: odd") + "  learning_rate: 1e-4\nseed: 3\n"
    by_text = load(
        path, ["denoiser.backbone.widths=[16]", "data.classes.3=odd", "denoiser.learning_rate=1e-4", "seed=3"]
    )
    assert by_text == load(write(edited, "edited.yaml"))
    assert by_text == load(
        path,
        flatten({"denoiser__backbone__widths": [16], "denoiser": {"learning_rate": 1e-4}, "seed": 3}),
        {"data.classes.3": "odd"},
    )


def test_the_last_override_wins(write):
    assert load(write(GOOD), ["seed=1", "seed=2"], {"seed": 3}).seed == 3


def test_an_override_mends_a_mistake_of_the_file(write):
    assert load(write(GOOD + "seed: -1\nthreads: !x 2\n"), ["seed=1", "threads=4"]).threads == 4


def test_mistakes_in_overrides_point_to_them(write):
    assert problems(
        write(GOOD + "seed: -1\n"),
        ["denoiser.bach=3", "data.classes={0: a, 0: b}", "name.x=1", "sampling.steps=0", "threads=*x"],
        {"split.train": 2},
    ) == [
        "--set data.classes: data.classes.0: the key is there twice",
        "--set denoiser.bach: denoiser.bach: there is no such key (did you mean 'batch'?)",
        "--set name.x: name: is not a section, so nothing in it can be set",
        "--set sampling.steps: sampling.steps: should be greater than or equal to 1, not 0",
        "--set threads: threads: aliases (*x) are not allowed; write the value out",
        "demo.yaml:6:13: data.mirror.0.0: 'left' is not one of the classes",
        "demo.yaml:6:19: data.mirror.0.1: 'right' is not one of the classes",
        "demo.yaml:9:7: seed: should be greater than or equal to 0, not -1",
        "override split.train: split.train: should be less than or equal to 1, not 2",
    ]


@pytest.mark.parametrize("override", ["seed", "=3", "a..b=1", ".a=1"])
def test_an_override_that_is_none(write, override):
    with pytest.raises(CatalogFileError, match="an override reads"):
        load(write(GOOD), [override])


def test_paths_of_the_file_and_of_overrides(write, tmp_path, monkeypatch):
    path = write(GOOD)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert load(path).data.root == tmp_path / "stamps"
    assert load("../demo.yaml").data.root.resolve() == tmp_path / "stamps"
    assert load(path, ["data.root=stamps"]).data.root == elsewhere / "stamps"
    assert load(path, {"data.root": Path("/stamps")}).data.root == Path("/stamps")


@pytest.mark.parametrize("name", ["quickstart", "gz1", "gz2", "deeplense", "deeplense_ddpm", "mnist_ddpm"])
def test_shipped_catalogs_are_found_by_name_and_right(name):
    spec = load(name)
    assert spec.name == name
    assert spec.simulates == (name == "quickstart")
    assert catalog_path(name) == packaged_catalogs()[name]


def test_an_unknown_catalog_has_the_nearest_name():
    with pytest.raises(CatalogFileError, match=r"did you mean 'quickstart'\?.*Packaged: .*gz1"):
        load("quikstart")


@pytest.mark.parametrize("name", ["quickstart", "gz1", "gz2", "deeplense", "deeplense_ddpm", "mnist_ddpm"])
def test_the_complete_file_reads_back_the_same(name, write):
    spec = load(name)
    assert load(write(dump(spec))) == spec


@settings(max_examples=150, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["kind", "size", "gz2", "unet", "votes", "asks", "x", "backbone", "widths"])
                | st.integers(0, 2),
                inner,
                max_size=3,
            )
        ),
        max_leaves=12,
    ),
    st.sampled_from(
        ["name", "data", "data.kind", "data.mirror", "denoiser.backbone", "sampling.asks", "split", "zzz.z"]
    ),
)
def test_no_value_can_do_more_than_be_refused(value, key):
    with suppress(CatalogFileError):
        load("quickstart", {key: value})


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("denoiser.schedule", {"kind": "cosine", "zero_terminal": True}, "is an option of the schedule linear"),
        ("sampling.eta", 0.5, "is an option of ddim, not of unipc"),
        ("sampling.interval", [0.9, 0.2], "from a smaller time"),
    ],
)
def test_options_of_another_kind_are_refused(key, value, words):
    with pytest.raises(CatalogFileError, match=words):
        load("quickstart", {key: value})


def test_a_prediction_that_the_schedule_makes_no_sense_of_is_refused_with_the_reason():
    with pytest.raises(CatalogFileError, match="slope of straight lines"):
        fit_settings({"denoiser": {"schedule": "edm", "prediction": "flow"}})


@pytest.mark.parametrize(
    ("schedule", "prediction", "time"),
    [("rectified_flow", "flow", "logit_normal"), ("edm", "edm", "log_normal"), ("cosine", "v", "uniform")],
)
def test_what_is_left_open_follows_from_the_schedule(schedule, prediction, time):
    chosen = fit_settings({"denoiser": {"schedule": {"kind": schedule, "shift": 2}}}).denoiser
    assert (chosen["prediction"], chosen["objective"]["time"]) == (prediction, time)
    assert chosen["schedule"] == {"kind": schedule, "shift": 2.0}


def test_a_folder_is_no_catalog_file(tmp_path):
    with pytest.raises(CatalogFileError, match="is a folder, not a catalog file"):
        load(tmp_path)

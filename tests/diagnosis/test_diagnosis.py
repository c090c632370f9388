import dataclasses
import io
import json
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as stnp

from sparsemend.diagnosis import Diagnosis
from sparsemend.errors import SparsemendError

ARRAYS = ("densities", "raw", "residual", "rr")


def make_diagnosis(layers=("conv1", "layer1.0.conv1", "fc"), count=24, **changes):
    rng = np.random.default_rng(0)
    raw = rng.random((len(layers), count)) / 3
    rr = rng.random((len(layers), count)) * 1.5
    rr[:, -1] = np.nan
    values = {
        "layers": tuple(layers),
        "densities": np.geomspace(0.01, 1, count),
        "raw": raw,
        "residual": raw * np.nan_to_num(rr),
        "rr": rr,
        "repair": "shrinkage",
        "mask": "activation",
        "weighting": "energy",
        "left_out": {"fc": 3},
        "inputs": 512,
    }
    return Diagnosis(**(values | changes))


def assert_equal(one, other):
    for field in dataclasses.fields(Diagnosis):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if field.name in ARRAYS:
            assert b.dtype == np.float64
            np.testing.assert_array_equal(a, b)  # NaN equals NaN here
        else:
            assert a == b
            assert type(a) is type(b)


# Files


@pytest.mark.parametrize("ending", [".json", ".npz"])
@pytest.mark.parametrize("as_text", [False, True])
def test_files_hold_everything_exactly(tmp_path, ending, as_text):
    path = tmp_path / f"diagnosis{ending}"
    diagnosis = make_diagnosis()
    diagnosis.save(str(path) if as_text else path)
    assert_equal(Diagnosis.load(str(path) if as_text else path), diagnosis)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@settings(max_examples=25)
@given(
    stnp.arrays(np.float64, (2, 3), elements=st.floats(0, 1e300)),
    st.lists(st.text(min_size=1), min_size=2, max_size=2, unique=True),
)
def test_any_numbers_and_names_survive(tmp_path_factory, values, layers):
    folder = tmp_path_factory.mktemp("files")
    rr = np.where(values > 1, np.nan, values)
    diagnosis = make_diagnosis(layers, 3, raw=values, residual=values / 3, rr=rr, left_out={})
    for ending in (".json", ".npz"):
        diagnosis.save(folder / f"x{ending}")
        assert_equal(Diagnosis.load(folder / f"x{ending}"), diagnosis)


def test_json_is_strict(tmp_path):
    make_diagnosis().save(tmp_path / "x.json")

    def refuse(constant):
        raise AssertionError(constant)

    values = json.loads((tmp_path / "x.json").read_text(), parse_constant=refuse)
    assert values["format"] == "sparsemend-diagnosis"
    assert values["rr"][0][-1] is None
    assert_equal(Diagnosis.from_dict(values), make_diagnosis())


def test_diagnoses_are_compared_by_their_numbers():
    assert make_diagnosis() == make_diagnosis()
    assert make_diagnosis() != make_diagnosis(repair="affine")
    assert make_diagnosis() != 3


def test_saving_replaces(tmp_path):
    path = tmp_path / "x.json"
    make_diagnosis().save(path)
    make_diagnosis(repair="affine").save(path)
    assert Diagnosis.load(path).repair == "affine"


def test_unknown_endings(tmp_path):
    path = tmp_path / "x.csv"
    text = rf"^a diagnosis file has an unknown ending: got '{path}'; allowed: \.json or \.npz$"
    with pytest.raises(SparsemendError, match=text):
        make_diagnosis().save(path)
    assert not path.exists()
    path.touch()
    with pytest.raises(SparsemendError, match=text):
        Diagnosis.load(path)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(SparsemendError, match=r"^there is no diagnosis file: got '.*x\.json'"):
        Diagnosis.load(tmp_path / "x.json")
    with pytest.raises(SparsemendError, match=r"^cannot write there .*; choose an existing folder"):
        make_diagnosis().save(tmp_path / "nowhere" / "x.json")


def npz_of(**arrays):
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def npy_of(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def whole(ending, **changes):
    """The bytes of a file with some entries changed."""
    values = make_diagnosis().to_dict() | changes
    if ending == ".json":
        return json.dumps(values).encode()
    arrays = {key: np.array(values.pop(key), dtype=float) for key in ARRAYS}
    return npz_of(header=np.array(json.dumps(values)), **arrays)


@pytest.mark.parametrize("ending", [".json", ".npz"])
@pytest.mark.parametrize(
    "content",
    [
        lambda _: b"",
        lambda _: b"rubbish",
        lambda _: b"\xff\xfe\x00",
        lambda ending: whole(ending)[:300],
        lambda ending: whole(ending)[:-40],
        lambda _: b"[1, 2]",
        lambda _: b"null",
        lambda _: b'{"format": "sparsemend-diagnosis"}',
        lambda _: npz_of(raw=np.ones(3)),
        lambda _: npz_of(header=np.array("[]")),
        lambda _: npy_of(np.ones(3)),
        lambda ending: whole(ending, left_out=[1]),
        lambda ending: whole(ending, layers=3),
        lambda ending: whole(ending, inputs=None),
        lambda ending: whole(ending, rr=[[1.0], [2.0]]),
        lambda ending: whole(ending, raw=[1.0, 2.0]),
        lambda ending: whole(ending, densities=[[0.5]]),
    ],
)
def test_damaged_files(tmp_path, ending, content):
    path = tmp_path / f"x{ending}"
    path.write_bytes(content(ending))
    with pytest.raises(SparsemendError, match=r"^(the )?diagnosis file( '.*':| cannot be read)"):
        Diagnosis.load(path)


def test_a_flipped_bit_is_noticed(tmp_path):
    path = tmp_path / "x.npz"
    make_diagnosis().save(path)
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo("raw.npy").header_offset + 300
    content = bytearray(path.read_bytes())
    content[start] ^= 1
    path.write_bytes(content)
    with pytest.raises(SparsemendError, match=r"^the diagnosis file cannot be read"):
        Diagnosis.load(path)


@pytest.mark.parametrize("ending", [".json", ".npz"])
def test_other_files_are_no_diagnosis(tmp_path, ending):
    path = tmp_path / f"x{ending}"
    path.write_bytes(whole(ending, format="something"))
    with pytest.raises(SparsemendError, match=r"this is not a diagnosis: got \['coverage', "):
        Diagnosis.load(path)


def test_pickles_are_never_read(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("unpickled",))

    path = tmp_path / "x.npz"
    header = np.array([Bomb()], dtype=object)
    path.write_bytes(npz_of(header=header))
    with pytest.raises(SparsemendError, match=r"^the diagnosis file cannot be read"):
        Diagnosis.load(path)


# Showing


def test_text_is_a_table_with_every_layer():
    diagnosis = make_diagnosis()
    head, columns, *rows = str(diagnosis).splitlines()
    assert "'shrinkage'" in head
    assert "activation masks, 512 inputs" in head
    assert [row.split()[0] for row in rows] == list(diagnosis.layers)
    assert len({len(row) for row in rows}) == 1
    shown = [float(word) / 100 for word in columns.replace("%", "").split()[1:-1]]
    assert shown == sorted(set(shown))
    for density in shown:  # a point of the grid each, with its ratio in the row
        column = int(np.abs(diagnosis.densities - density).argmin())
        assert diagnosis.densities[column] == pytest.approx(density, rel=5e-3)
        for row, values in zip(rows, diagnosis.rr, strict=True):
            assert f" {values[column]:.2f} (" in row


@pytest.mark.parametrize("densities", [[1.0], [0.1, 0.11], list(np.linspace(0.001, 0.01, 5))])
def test_text_of_any_grid(densities):
    diagnosis = make_diagnosis(("a",), len(densities), densities=np.array(densities))
    assert len(str(diagnosis).splitlines()) == 3


def test_pandas():
    pandas = pytest.importorskip("pandas")
    diagnosis = make_diagnosis()
    table = diagnosis.to_pandas()
    assert isinstance(table, pandas.DataFrame)
    assert list(table.columns) == ["layer", "density", "raw", "residual", "rr"]
    assert len(table) == 3 * 24
    for name in ("raw", "residual", "rr"):
        wide = table.pivot_table(index="layer", columns="density", values=name, dropna=False)
        np.testing.assert_array_equal(wide.loc[list(diagnosis.layers)], getattr(diagnosis, name))


def test_pandas_is_asked_for(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    with pytest.raises(SparsemendError) as caught:
        make_diagnosis().to_pandas()
    assert str(caught.value) == 'pandas is not installed; pip install "sparsemend[pandas]"'

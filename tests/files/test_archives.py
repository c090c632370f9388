"""Files of arrays that claim more than they hold, or hold more than numbers."""

import contextlib
import io
import pickle
import struct
import tempfile
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from sparsemend.files import check_archive, npz_arrays, npz_keys

SAMPLE = {"a": np.arange(6.0).reshape(2, 3), "b": np.array("text")}

kept = st.dictionaries(
    st.text("abc_1", min_size=1, max_size=4),
    arrays.arrays(
        st.sampled_from(["u1", "<i8", ">f4", "<f8", "<U3", "?"]),
        arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
    ),
    max_size=3,
)


@given(kept, st.booleans())
def test_what_numpy_writes_is_read(held, compressed):
    content = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(content, **held)
    with tempfile.NamedTemporaryFile(suffix=".npz") as file:
        file.write(content.getvalue())
        file.flush()
        assert npz_keys(Path(file.name)) == list(held)
        found = npz_arrays(Path(file.name))
    assert found.keys() == held.keys()
    for key, array in held.items():
        assert found[key].dtype == array.dtype
        np.testing.assert_array_equal(found[key], array)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "x.npz"


def header(shape, descr="<f8", version=b"\x01\x00"):
    text = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    length = struct.pack("<H" if version == b"\x01\x00" else "<I", len(text))
    return b"\x93NUMPY" + version + length + text


def write(path, content, method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("a.npy", content)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("version", [b"\x01\x00", b"\x02\x00"])
@pytest.mark.parametrize(
    "shape",
    ["(797000000000,)", "(892743, 892743)", "(3,)", "(0,)", "()", "(-2,)", "(-1, -2)", "(2, -1)",
     "(99999999999999999999999,)"],
)  # fmt: skip
def test_a_shape_that_does_not_fit_is_refused_before_anything_is_allocated(
    path, shape, version, method
):
    write(path, header(shape, version=version) + bytes(16), method)
    assert npz_keys(path) == ["a"]
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="a"):
            npz_arrays(path)
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("size", [10**6, 2**32 - 2])
def test_sizes_that_the_archive_claims_are_held_against_the_file(path, size):
    write(path, header((size - 128) // 8) + bytes(16))
    content = bytearray(path.read_bytes())
    for mark, place in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        start = content.index(mark) + place
        content[start : start + 4] = struct.pack("<I", size)
    path.write_bytes(content)
    for read in (npz_keys, npz_arrays, check_archive):
        with pytest.raises(ValueError, match="claims more bytes than the file holds"):
            read(path)


def test_objects_are_refused_and_nothing_is_run(path, tmp_path):
    class Trap:
        def __reduce__(self):
            return Path.touch, (tmp_path / "sprung",)

    np.savez(path, a=np.array([Trap()], dtype=object))
    with pytest.raises(ValueError, match="holds Python objects") as caught:
        npz_arrays(path)
    assert "allow_pickle" not in str(caught.value)
    for content in (pickle.dumps(Trap()), b"", b"\x93NUMPY", header("(1,)", "x" * 20_000)):
        write(path, content)
        with pytest.raises(ValueError, match="something else than arrays") as caught:
            npz_arrays(path)
        assert "pickle" not in str(caught.value)
    assert not (tmp_path / "sprung").exists()


def test_half_a_file(path):
    np.savez_compressed(path, **SAMPLE)
    whole = path.read_bytes()
    for end in range(0, len(whole), 7):
        path.write_bytes(whole[:end])
        with pytest.raises(ValueError):  # noqa: PT011 (zipfile's own texts)
            npz_arrays(path)
    for place in range(0, len(whole), 7):
        damaged = bytearray(whole)
        damaged[place] ^= 0xFF
        path.write_bytes(damaged)
        with contextlib.suppress(ValueError):
            npz_arrays(path)


def test_a_key_that_is_not_there(path):
    np.savez(path, **SAMPLE)
    assert list(npz_arrays(path, ["b"])) == ["b"]
    with pytest.raises(ValueError, match="there is no array 'c'"):
        npz_arrays(path, ["c"])


def test_files_that_are_no_archives_pass(tmp_path):
    (tmp_path / "x.pt").write_bytes(b"no archive")
    check_archive(tmp_path / "x.pt")

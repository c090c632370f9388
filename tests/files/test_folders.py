import pytest

from sparsemend.errors import SparsemendError
from sparsemend.files import make_folder


def test_a_folder_is_made_once_or_refused(tmp_path):
    folder = tmp_path / "a" / "b"
    make_folder(folder, "the folder")
    make_folder(folder, "the folder")
    assert folder.is_dir()
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SparsemendError, match=r"^the folder cannot be made \(.*\): got .*file"):
        make_folder(tmp_path / "file" / "b", "the folder")

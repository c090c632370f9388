"""A process that is killed while it writes a checkpoint."""

import os
import signal

import pytest
from tests.faults.networks import small_network

import sparsemend as sm


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks to be quick")
@pytest.mark.parametrize("existing", [False, True])
@pytest.mark.parametrize("moment", ["open", "fsync", "replace"])
def test_a_checkpoint_is_there_or_not(good, tmp_path, monkeypatch, moment, existing):
    path = tmp_path / "c.safetensors"
    if existing:
        path.write_bytes(b"precious")
    child = os.fork()
    if not child:  # it computes nothing: threads are not forked
        kill = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)  # noqa: E731
        where = {"open": "io.open", "fsync": "os.fsync", "replace": "pathlib.Path.replace"}
        monkeypatch.setattr(where[moment], kill)
        good.result.save(path)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    left = [file for file in tmp_path.iterdir() if file != path]
    assert len(left) == (moment != "open")  # before there is anything, and with something
    assert (path.read_bytes() if existing else path.exists()) == (b"precious" if existing else 0)
    good.result.save(path)
    assert list(tmp_path.iterdir()) == [path]
    assert sm.load_checkpoint(small_network(), path)["rule"] == "erk"

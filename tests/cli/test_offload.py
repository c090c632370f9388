"""``--offload`` reaches whatever runs the network."""

import pytest
from tests.execution.second_device import DEVICE, second_device

_NETWORK = ("--model", "digits", "--data", "digits", "--offload", DEVICE)


@pytest.mark.parametrize(
    "command",
    [
        ("evaluate", "--limit", 32),
        (
            *("compress", "--sparsity", 0.5, "--rule", "uniform", "--repair", "none"),
            *("--limit", 32, "--heldout-size", 8, "--calibration-size", 8),
        ),
    ],
    ids=lambda command: command[0],
)
def test_offload(run_json, monkeypatch, command):
    expected = run_json(*command, *_NETWORK[:-2])
    with second_device(monkeypatch) as device:
        found = run_json(*command, *_NETWORK)
        assert device.most
        assert not device.bytes
    for values in (expected, found):
        values.pop("seconds", None)
        values.pop("next", None)
    assert found == expected

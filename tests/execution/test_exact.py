from types import SimpleNamespace

import pytest
import torch

from sparsemend.execution.batches import evaluation_mode


class OnGpu(torch.nn.Module):
    def parameters(self, recurse=True):  # noqa: ARG002
        return iter([SimpleNamespace(device=torch.device("cuda"))])


def settings():
    cudnn, products = torch.backends.cudnn, torch.backends.cuda.matmul
    fine = (cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision, products.fp32_precision)
    return cudnn.deterministic, cudnn.benchmark, *fine


pytestmark = pytest.mark.skipif(not hasattr(torch.backends.cudnn, "conv"), reason="PyTorch 2.9")


def test_a_gpu_computes_in_float32_and_in_one_order_and_its_settings_come_back(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    before = settings()
    with evaluation_mode(torch.nn.Linear(1, 1), OnGpu()):
        assert settings() == (True, False, "ieee", "ieee", "ieee")
    assert settings() == before


def test_a_cpu_leaves_the_settings_alone():
    before = settings()
    with evaluation_mode(torch.nn.Linear(1, 1)):
        assert settings() == before

"""A network of your own with two inputs: chosen layers, a judge of your own, a diagnosis."""

import torch
from torch import Tensor, nn

import sparsemend as sm


class Denoiser(nn.Module):
    """Predicts the noise in an image, given how much there is."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.middle = nn.Conv2d(width, width, 3, padding=1)
        self.last = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        x = self.first(x).relu() + t.view(-1, 1, 1, 1)
        out: Tensor = self.last(self.middle(x).relu())
        return out


def distance(dense: Tensor, sparse: Tensor) -> Tensor:
    """Absolute error of every image, 0 for equal outputs."""
    return (dense - sparse).abs().flatten(1).mean(dim=1)


def main() -> None:
    torch.manual_seed(0)
    network = Denoiser().eval()
    # Dictionaries are keyword arguments, tuples positional ones.
    batches = [{"x": torch.randn(16, 3, 16, 16), "t": torch.rand(16)} for _ in range(6)]

    print(sm.discover(network, batches[0]).coverage)
    result = sm.compress(network, batches, 0.7, exclude="first", judge=distance, budget="1min")
    print(result)
    for layer, density in result.allocation.densities.items():
        print(f"{layer:<8}{100 * density:6.1f} % kept")

    # Where did the damage go, and can it be repaired?
    diagnosis = sm.diagnose(network, sm.calibrate(network, batches), "variance")
    print(diagnosis)


if __name__ == "__main__":
    main()

"""Train the demixing network that comes with the package, on mixes of images that are not private.

    python -m experiments.train_demixing_network --seconds 2000 --threads 1

The mixes are those of `experiments.train_sign_network`: of crops of the shadow photographs, and of
objects in front of plain backgrounds, under several schemes. The network starts from the weights of
the shipped sign network and learns to recover the private image with the largest coefficient. It is
saved every 500 steps, and ``--resume`` continues from it. The last line printed is a JSON object.
"""

from __future__ import annotations

import argparse
import json
import time
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from experiments.train_sign_network import Mixes, mixes, with_anchors
from instahide.attacks.demixing.network import DemixingNetwork
from instahide.attacks.reconstruction.pair_encoder.network_file import load_network, save_network
from instahide.attacks.reconstruction.recovery.sign_network import shipped_network
from instahide.audit.scoring.blank_baseline import C1, C2
from instahide.audit.scoring.metrics import SIGMA, WINDOW

#: Highest learning rate, and weight of the squared error beside SSIM.
RATE, SQUARED = 1e-3, 0.2


def strongest(drawn: Mixes) -> Tensor:
    """Return (n, 3, H, W) the private image of each mix with the largest coefficient."""
    place = drawn.coefficients[: drawn.private_k].argmax(dim=0)
    return drawn.images[place, torch.arange(len(place))]


def loss_of(found: Tensor, wanted: Tensor) -> Tensor:
    """Return the mean loss of ``found`` (n, 3, H, W) images for the ``wanted`` ones, from 0 to 1.

    Both parts ignore the sign, the brightness and the contrast of the channels, as scores do.
    """
    x, y = found.flatten(2), wanted.flatten(2)
    x_mean, y_mean = x.mean(dim=2, keepdim=True), y.mean(dim=2, keepdim=True)
    spread = (x - x_mean).square().mean(dim=2, keepdim=True)
    together = ((x - x_mean) * (y - y_mean)).mean(dim=2, keepdim=True)
    mapped = (x - x_mean) * together / (spread + 1e-5) + y_mean
    energy = (y - y_mean).square().mean(dim=(1, 2)) + 1e-3
    errors = (mapped - y).square().mean(dim=(1, 2)) / energy
    alike = ssim(mapped.reshape(found.shape), wanted)
    return (1 - alike + SQUARED * errors).mean()


def ssim(one: Tensor, other: Tensor) -> Tensor:
    """Return (n,) the structural similarity of images (n, C, H, W) from 0 to 1."""
    rows, columns = (_windows(side) for side in one.shape[2:])

    def around(images: Tensor) -> Tensor:
        return rows @ images @ columns.T

    mean, others_mean = around(one), around(other)
    together = around(one * other) - mean * others_mean
    spread = around(one.square() + other.square()) - mean.square() - others_mean.square()
    bright = (2 * mean * others_mean + C1) / (mean.square() + others_mean.square() + C1)
    return (bright * (2 * together + C2) / (spread + C2)).mean(dim=(1, 2, 3))


def step(network: DemixingNetwork, optimiser: torch.optim.Optimizer) -> float:
    """Take one step, and return the loss."""
    with torch.no_grad():
        drawn = mixes()
        values, anchors = with_anchors(drawn.values)
        wanted = strongest(drawn)
    with torch.autocast("cpu", torch.bfloat16):
        found = network(values.abs(), drawn.mean, anchors)
    loss = loss_of(found.float(), wanted)
    optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimiser.step()
    return float(loss.detach())


@cache
def _windows(side: int) -> Tensor:
    """Return (side - 10, side) weights of the windows of SSIM inside an image, along one axis."""
    places = torch.arange(WINDOW) - WINDOW // 2
    line = torch.exp(-(places.float() ** 2) / (2 * SIGMA**2))
    matrix = torch.zeros(side - WINDOW + 1, side)
    for row in range(len(matrix)):
        matrix[row, row : row + WINDOW] = line / line.sum()
    return matrix


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=2000, help="of processor time")
    parser.add_argument("--threads", type=int, help="of PyTorch; all processors by default")
    parser.add_argument("--out", type=Path, default=Path("demixing_network.safetensors"))
    parser.add_argument("--resume", type=Path, help="weights to go on with")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    network = DemixingNetwork.from_signs(shipped_network())
    if options.resume:
        network = load_network(options.resume, lambda _: DemixingNetwork(), "the network", "")
    optimiser = torch.optim.AdamW(network.train().parameters(), weight_decay=1e-4)
    began, steps, mean = time.process_time(), 0, 0.0
    while (spent := (time.process_time() - began) / options.seconds) < 1:
        for group in optimiser.param_groups:
            group["lr"] = RATE * min(1.0, (steps + 1) / 100) * max(0.02, 1 - spent)
        mean += (step(network, optimiser) - mean) / min(steps + 1, 200)
        steps += 1
        if steps % 500 == 0:
            save_network(options.out, network)
            print(f"{spent:4.0%} step {steps}, loss {mean:.4f}", flush=True)
    save_network(options.out, network)
    print(json.dumps({"seconds": options.seconds, "steps": steps, "loss": round(mean, 4)}))


if __name__ == "__main__":
    main()

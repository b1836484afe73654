"""Train on encodings with Hugging Face Accelerate, in one process or several.

    accelerate launch examples/accelerate_training.py
    torchrun --standalone --nproc-per-node 2 examples/accelerate_training.py

`prepare` distributes the images over the processes. Its loader is wrapped afterwards, so each
process mixes its own images under its own keys. The last line of output is a JSON object.
"""

import json

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from instahide import ImageTable, Scheme, encode_loader, open_split
from instahide.training.models import build

EPOCHS = 8


def tensors(table: ImageTable) -> TensorDataset:
    return TensorDataset(torch.from_numpy(table.normalized()), torch.from_numpy(table.labels))


def accuracy(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    model.eval()
    with torch.no_grad():
        return (model(images).argmax(1) == labels).float().mean().item()


accelerator = Accelerator(cpu=not torch.cuda.is_available())
# Seeds the network, equally in every process. Keys do not depend on it.
set_seed(0)
split = open_split("digits")
model = build("small", 1, 10, sign_invariant=True)
optimizer = torch.optim.Adam(model.parameters(), 3e-3)
loader = DataLoader(tensors(split.train), batch_size=32, shuffle=True, drop_last=True)

model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
# The only added line: the prepared loader now gives encodings.
loader = encode_loader(loader, Scheme.inside(k=2), classes=10)

for _ in range(EPOCHS):
    model.train()
    for encodings, soft_labels in loader:
        loss = nn.functional.cross_entropy(model(encodings), soft_labels)
        optimizer.zero_grad()
        accelerator.backward(loss)
        optimizer.step()

figures = {"processes": accelerator.num_processes, "most": int(loader.exposure.counts.max())}
figures["accuracy"] = accuracy(accelerator.unwrap_model(model), *tensors(split.test).tensors)
accelerator.print(json.dumps(figures))
accelerator.end_training()

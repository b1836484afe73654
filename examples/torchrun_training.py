"""Train on encodings with DistributedDataParallel or FSDP2 in your own script.

    torchrun --standalone --nproc-per-node 2 examples/torchrun_training.py
    torchrun --standalone --nproc-per-node 2 examples/torchrun_training.py --fsdp

`DistributedSampler` gives every process a share of the images. Each process mixes only the images
of its share, under its own keys. The last line of output is a JSON object.
"""

import argparse
import json

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from instahide import Scheme, encode_loader, open_split
from instahide.training.models import build

EPOCHS = 8

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--fsdp", action="store_true", help="shard the network")
options = parser.parse_args()
dist.init_process_group("gloo")

torch.manual_seed(0)
train, test = open_split("digits")
model = build("small", 1, 10, sign_invariant=True)
if options.fsdp:
    model = fully_shard(model, mesh=init_device_mesh("cpu", (dist.get_world_size(),)))
else:
    model = DistributedDataParallel(model)
optimizer = torch.optim.Adam(model.parameters(), 3e-3)

items = TensorDataset(torch.from_numpy(train.normalized()), torch.from_numpy(train.labels))
loader = DataLoader(items, batch_size=32, sampler=DistributedSampler(items), drop_last=True)
loader = encode_loader(loader, Scheme.inside(k=2), classes=10)
for epoch in range(EPOCHS):
    loader.sampler.set_epoch(epoch)
    for encodings, soft_labels in loader:
        optimizer.zero_grad()
        cross_entropy(model(encodings), soft_labels).backward()
        optimizer.step()

model.eval()
with torch.no_grad():
    # All processes must call a sharded network.
    answers = model(torch.from_numpy(test.normalized())).argmax(1).numpy()
if dist.get_rank() == 0:
    accuracy = float((answers == test.labels).mean())
    print(json.dumps({"processes": dist.get_world_size(), "accuracy": accuracy}))
dist.destroy_process_group()

"""SimCLR in a loop with Accelerate, which keeps the harmonizer's state with its own.

accelerate launch examples/accelerate_simclr.py        (any number of processes, one harmonizer's worth of numbers)
"""

import tempfile

import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader

from evensphere import Harmonizer, WithIndex
from evensphere.ops.contrast import batch_info_nce
from long_tailed_digits import LongTailedDigits, accuracy, encoder, random_view

epochs, accelerator = 12, Accelerator()
dataset = WithIndex(LongTailedDigits(lambda image: (random_view(image), random_view(image))))  # GH
loader = DataLoader(dataset, batch_size=64, shuffle=True)
backbone = encoder()
model = nn.Sequential(backbone, nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
harmonizer = Harmonizer(64, len(dataset), anchors=16, warm_up="6 epochs", ramp="3 epochs")  # GH
accelerator.register_for_checkpointing(harmonizer)  # GH

losses = []
for _ in range(epochs):
    for batch in loader:
        z1, z2 = (model(view) for view in batch[0])
        loss = batch_info_nce(z1, z2, temperature=0.2).mean()
        loss = loss + harmonizer((z1, z2), batch[-1]).loss  # GH
        optimizer.zero_grad()
        accelerator.backward(loss)
        optimizer.step()
        losses.append(loss.item())

with tempfile.TemporaryDirectory() as folder:
    accelerator.save_state(folder)
    accelerator.load_state(folder)
if accelerator.is_main_process:
    print("kNN accuracy in percent:", accuracy(backbone))

"""A training loop of one's own in plain torch; the three lines that end in `# GH` are all that was added to it.

With a stream, whose images have no numbers, one of the three goes and another changes:

    harmonizer = Harmonizer(64, population="streaming", warm_up="60 steps", ramp="30 steps", update_every="10 steps")
    loss = loss + harmonizer((z1, z2)).loss
"""

import torch
from torch import nn
from torch.utils.data import DataLoader

from evensphere import Harmonizer, WithIndex
from evensphere.ops.contrast import info_nce
from long_tailed_digits import LongTailedDigits, accuracy, encoder, random_view

epochs = 12
dataset = LongTailedDigits(lambda image: (random_view(image), random_view(image)))
dataset = WithIndex(dataset)  # GH
loader = DataLoader(dataset, batch_size=64, shuffle=True)
backbone = encoder()
model = nn.Sequential(backbone, nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
harmonizer = Harmonizer(64, len(dataset), anchors=16, warm_up="6 epochs", ramp="3 epochs")  # GH

losses = []
for _ in range(epochs):
    for batch in loader:
        z1, z2 = (model(view) for view in batch[0])
        loss = info_nce(z1, z2, temperature=0.2).mean()
        loss = loss + harmonizer((z1, z2), batch[-1]).loss  # GH
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())

# to go on later: torch.save([model.state_dict(), optimizer.state_dict(), harmonizer.state_dict()], "checkpoint.pt")
print("kNN accuracy in percent:", accuracy(backbone))

"""SimCLR of Lightly as a LightningModule: a callback adds GH to it. With `lightning`, import lightning.pytorch instead.

A module that one cannot change takes HarmonizerCallback(..., head="projection_head", index=-1).
"""

import pytorch_lightning as pl
import torch
from lightly.loss import NTXentLoss
from lightly.models.modules import SimCLRProjectionHead
from torch import Tensor
from torch.utils.data import DataLoader

from evensphere import Harmonizer, WithIndex
from evensphere.integrations.lightning import HarmonizerCallback
from long_tailed_digits import LongTailedDigits, accuracy, encoder, random_view


class SimCLR(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.projection_head = encoder(), SimCLRProjectionHead(64, 128, 64)
        self.criterion = NTXentLoss(temperature=0.2)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> dict[str, object]:
        (x0, x1), _, index = batch
        z0, z1 = self.projection_head(self.backbone(x0)), self.projection_head(self.backbone(x1))
        return {"loss": self.criterion(z0, z1), "embeddings": (z0, z1), "index": index}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)


dataset = WithIndex(LongTailedDigits(lambda image: [random_view(image), random_view(image)]))
loader = DataLoader(dataset, batch_size=64, shuffle=True)
harmonizer = Harmonizer(64, len(dataset), anchors=16, warm_up=0.5, ramp=0.25)  # shares of the run
trainer = pl.Trainer(
    max_epochs=12,
    callbacks=[HarmonizerCallback(harmonizer)],
    accelerator="cpu",
    logger=False,
    enable_checkpointing=False,  # a checkpoint of Lightning's has the harmonizer's state
    enable_progress_bar=False,
    enable_model_summary=False,
)
model = SimCLR()
trainer.fit(model, loader)
losses = [float(trainer.callback_metrics["gh"])]
print("kNN accuracy in percent:", accuracy(model.backbone))

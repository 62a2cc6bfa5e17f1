"""SimCLR as a LightningModule, to which a callback adds GH. With pytorch_lightning, import that instead.

A module that one cannot change takes HarmonizerCallback(..., head="projection_head", index=-1).
"""

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from evensphere import Harmonizer, WithIndex
from evensphere.integrations.lightning import HarmonizerCallback
from evensphere.ops.contrast import batch_info_nce
from long_tailed_digits import LongTailedDigits, accuracy, encoder, random_view


class SimCLR(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = encoder()
        self.projection_head = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64))

    def training_step(self, batch: list[Tensor], batch_idx: int) -> dict[str, object]:
        views, _, index = batch
        z1, z2 = (self.projection_head(self.backbone(view)) for view in views)
        loss = batch_info_nce(z1, z2, temperature=0.2).mean()
        return {"loss": loss, "embeddings": (z1, z2), "index": index}

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

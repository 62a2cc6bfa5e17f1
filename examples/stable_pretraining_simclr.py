"""SimCLR of stable-pretraining (0.1.8) with GH. Its modules optimise by hand, which no callback can add to; but what
they learn is a forward function of one's own, and the harmonizer is one more of a module's parts."""

import lightning as pl
import stable_pretraining as spt
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from evensphere import Harmonizer
from long_tailed_digits import LongTailedDigits, accuracy, encoder, random_view


class TwoViews(Dataset):
    """Dictionaries, as its own data sets give them; these too say which sample each is ("sample_idx")."""

    def __init__(self) -> None:
        self.digits = LongTailedDigits()

    def __len__(self) -> int:
        return len(self.digits)

    def __getitem__(self, i: int) -> dict[str, object]:
        image, label = self.digits[i]
        return {"views": [random_view(image), random_view(image)], "label": label, "sample_idx": i}


def forward(self: spt.Module, batch: dict[str, Tensor], stage: str) -> dict[str, Tensor]:
    features = [self.backbone(view) for view in batch["views"]]
    z1, z2 = (self.projector(feature) for feature in features)
    loss = self.simclr_loss(z1, z2)
    loss = loss + self.harmonizer((z1, z2), batch["sample_idx"]).loss  # GH
    return {"loss": loss, "embedding": torch.cat(features), "label": batch["label"].repeat(2)}


loader = DataLoader(TwoViews(), batch_size=64, shuffle=True)
harmonizer = Harmonizer(64, len(loader.dataset), anchors=16, warm_up="6 epochs", ramp="3 epochs")  # GH
module = spt.Module(
    forward=forward,
    backbone=encoder(),
    projector=nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64)),
    simclr_loss=spt.losses.NTXEntLoss(temperature=0.2),
    harmonizer=harmonizer,  # GH
    optim={"optimizer": {"type": "SGD", "lr": 0.1, "momentum": 0.9}, "scheduler": "ConstantLR"},
)
quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
trainer = pl.Trainer(max_epochs=12, accelerator="cpu", **quiet)
trainer.fit(module, loader)
print("kNN accuracy in percent:", accuracy(module.backbone))

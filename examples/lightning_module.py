"""Lightning: the loss is a submodule, so its parameters are trained, moved and saved with the network.

python examples/lightning_module.py
"""

import lightning
import torch
from torch import Tensor

from data import CLASSES, FEATURES, accuracy, backbone, dataset, loader
from fer_fast import losses


class Recogniser(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.backbone = backbone()
        self.loss = losses.JointLoss(
            losses.LMCLLoss(CLASSES, FEATURES, s=16.0, m=0.2), losses.CenterLoss(CLASSES, FEATURES), weight=0.01
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.loss.logits(self.backbone(images))

    def training_step(self, batch: list[Tensor], _: int) -> Tensor:
        images, labels = batch
        return self.loss(self.backbone(images), labels)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=3e-3)


if __name__ == "__main__":
    lightning.seed_everything(0)
    recogniser = Recogniser()
    trainer = lightning.Trainer(
        max_epochs=4, accelerator="auto", devices=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(recogniser, loader())
    images, labels = dataset().tensors
    with torch.inference_mode():
        print(f"accuracy {accuracy(recogniser.eval()(images), labels):.3f}")

"""Hugging Face Trainer: `compute_loss_func`, exact under gradient accumulation.

python examples/hugging_face_trainer.py
"""

import tempfile

import torch
from torch import Tensor, nn
from transformers import Trainer, TrainingArguments, set_seed

from data import CLASSES, FEATURES, accuracy, backbone, dataset
from fer_fast import losses


class Recogniser(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = backbone()
        # In the model, so that the Trainer's optimizer and checkpoints have the class weights. The sum, since the
        # Trainer says over how many items of all accumulated batches the mean is to be taken.
        self.loss = losses.ArcFaceLoss(CLASSES, FEATURES, s=16.0, m=0.2, reduction="sum")

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        features = self.backbone(images)
        return {"logits": self.loss.logits(features), "features": features}


def collate(rows: list[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    images, labels = zip(*rows, strict=True)
    return {"images": torch.stack(images), "labels": torch.stack(labels)}


if __name__ == "__main__":
    set_seed(0)
    model = Recogniser()

    def compute_loss(outputs: dict[str, Tensor], labels: Tensor, num_items_in_batch: Tensor | None = None) -> Tensor:
        return model.loss(outputs["features"], labels) / (
            len(labels) if num_items_in_batch is None else num_items_in_batch
        )

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder, num_train_epochs=4, per_device_train_batch_size=32, gradient_accumulation_steps=2,
            learning_rate=3e-3, save_strategy="no", report_to=[], remove_unused_columns=False, disable_tqdm=True,
        )  # fmt: skip
        Trainer(
            model, arguments, data_collator=collate, train_dataset=dataset(), compute_loss_func=compute_loss
        ).train()
    images, labels = dataset().tensors
    with torch.inference_mode():
        scores = model.eval().cpu()(images)["logits"]
    print(f"accuracy {accuracy(scores, labels):.3f}")

"""Accelerate: network and loss are prepared together.

python examples/accelerate_loop.py, or accelerate launch examples/accelerate_loop.py
"""

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed

from data import CLASSES, FEATURES, accuracy, backbone, dataset, loader
from fer_fast import losses

set_seed(0)
accelerator = Accelerator(gradient_accumulation_steps=2)
model, loss_module = backbone(), losses.ASoftmaxLoss(CLASSES, FEATURES, lambda_max=20.0)
optimizer = torch.optim.AdamW([*model.parameters(), *loss_module.parameters()], lr=3e-3)
model, loss_module, optimizer, batches = accelerator.prepare(model, loss_module, optimizer, loader(32))

for epoch in range(4):
    for images, labels in batches:
        with accelerator.accumulate(model, loss_module):
            loss = loss_module(model(images), labels)
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
    accelerator.print(f"epoch {epoch}: loss {loss.item():.3f}")

images, labels = (t.to(accelerator.device) for t in dataset().tensors)
with torch.inference_mode():
    scores = accelerator.unwrap_model(loss_module).logits(model(images))
accelerator.print(f"accuracy {accuracy(scores, labels):.3f}")

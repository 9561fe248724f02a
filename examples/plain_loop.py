"""A plain PyTorch loop: a classifier with a center loss, and a contrastive loss with a memory bank, in mixed precision.

python examples/plain_loop.py
"""

import torch
from torch.nn.functional import normalize

from data import CLASSES, FEATURES, accuracy, backbone, dataset, loader
from fer_fast import losses

torch.manual_seed(0)
device = "cuda" if torch.cuda.is_available() else "cpu"
model = backbone().to(device)
softmax, variant = losses.SoftmaxLoss(CLASSES, FEATURES), losses.VariantLoss(CLASSES, FEATURES)
joint = losses.JointLoss(softmax, variant, weight=0.001).to(device)
contrast, bank = losses.ENSCLoss(), losses.MemoryBank(capacity=256, feature_dim=FEATURES).to(device)
# The class weights belong to the loss; centers are moved by the loss itself.
optimizer = torch.optim.AdamW([*model.parameters(), *joint.parameters()], lr=3e-3)
scaler = torch.amp.GradScaler(device, enabled=device == "cuda")

for epoch in range(4):
    for images, labels in loader():
        images, labels = images.to(device), labels.to(device)
        with torch.autocast(device, torch.bfloat16 if device == "cpu" else torch.float16):
            features = model(images)
        # Losses take half-precision features and sum in float32: no cast, inside autocast or outside.
        embeddings = normalize(features.float(), dim=1)
        loss = joint(features, labels) + 0.1 * contrast(embeddings, labels, bank=bank)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        bank.enqueue(embeddings.detach(), labels)  # after the backward: a row is no negative of its own
    print(f"epoch {epoch}: loss {loss.item():.3f}")

# Centers, window and bank are buffers: what `state_dict` holds goes on where it stopped.
state = {"model": model.state_dict(), "loss": joint.state_dict(), "bank": bank.state_dict()}
joint.load_state_dict(state["loss"])

images, labels = (t.to(device) for t in dataset().tensors)
with torch.inference_mode():
    print(f"accuracy {accuracy(joint.logits(model(images)), labels):.3f}")

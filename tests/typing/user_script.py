"""What a user writes, for a type checker: every public name, built and called. It runs, too.

Mistakes carry `pyright: ignore`; one that is no mistake to the checker is reported.
"""

from pathlib import Path
from typing import assert_type

import numpy as np
import torch
from torch import Tensor
from torch.nn import Parameter

import fer_fast
from fer_fast import functional, losses
from fer_fast.compat import pml

C, D = 4, 8
x, y = torch.randn(12, D, requires_grad=True), torch.arange(12) % C
z = torch.nn.functional.normalize(x, dim=1)
e = torch.stack([x, x.flip(1)])
weight, centers, class_weights = torch.randn(C, D), torch.randn(C, D), torch.rand(C)


def classifiers() -> list[Tensor]:
    softmax = losses.SoftmaxLoss(num_classes=C, feature_dim=D, class_weights=[1.0] * C, reduction="sum")
    assert_type(softmax.weight, Parameter)
    assert_type(softmax.bias, Parameter)
    lmcl = losses.LMCLLoss(C, D, s=20.0, m=0.2, backend="blocked")
    assert_type(lmcl.m, float)
    angular = losses.ASoftmaxLoss(C, D, lambda_min=0.0), losses.LSoftmaxLoss(C, D, 2)
    assert_type(angular[0].lambda_, Tensor)
    arcface = losses.ArcFaceLoss(C, D, 30.0, 0.4)
    assert_type(arcface.logits(x), Tensor)
    sharded = losses.LMCLLoss(C, D, sharded=True, negative_share=0.5)
    assert_type(sharded.whole("weight"), Tensor)
    assert_type(functional.lmcl_loss(x, y, weight, num_classes=C), Tensor)
    joint = losses.JointLoss(lmcl, losses.VariantLoss(C, D, feature_gradient="paper"), weight=0.001)
    return [assert_type(loss(x, y), Tensor) for loss in (softmax, lmcl, *angular, arcface, joint)]


def center_family() -> list[Tensor]:
    island = losses.IslandLoss(C, D, lambda1=1.0)
    assert_type(island.centers, Tensor)
    cluster = losses.WeightedClusterLoss(C, D, class_weights, gamma=0.5)
    family = losses.CenterLoss(C, D), island, cluster, losses.AffinityLoss(C, D, alpha=0.1)
    bank = losses.MemoryBank(capacity=32, feature_dim=D, dtype=torch.float16)
    bank.enqueue(x.detach(), y)
    assert_type(len(bank), int)
    return [losses.MVALoss(C, D, groups=3)(x, y, bank), *(assert_type(loss(x, y), Tensor) for loss in family)]


def correlations() -> list[Tensor]:
    plain = losses.NFDLoss(C), losses.MDLoss(C), losses.EDLoss()
    assert_type(losses.EDLoss(reduction="none")(e, sample_weights=torch.rand(12)), Tensor)
    windowed = losses.FDLoss(C, history=3), losses.AdCorreLoss(C)
    return [*(loss(e, y) for loss in plain), *(assert_type(loss(e, y, predictions=y), Tensor) for loss in windowed)]


def pairs() -> list[Tensor]:
    bank = losses.MemoryBank(32, D, process_group=None, sharded=True)
    contrastive = losses.ESCLoss(temperature=0.2)(z, y, bank), losses.ENSCLoss()(z, y, ref_emb=z.detach(), ref_labels=y)
    batch = losses.SelfConLoss()(z), losses.SupConLoss(0.2, reduction="sum")(z, y)
    return [*contrastive, *batch, losses.MarginalLoss(theta=1.0)(x, y), losses.RangeLoss(k=3)(x, y)]


def functions() -> list[Tensor]:
    term = functional.Term("center", centers, params=losses.CenterLoss(C, D).params)
    difficulty = losses.AdCorreLoss(C).class_difficulty
    with fer_fast.backend("reference"):
        classifier = [
            functional.softmax_loss(features=x, labels=y, weight=weight, class_weights=class_weights),
            functional.lmcl_loss(x, y, weight, s=20.0, m=0.2),
            functional.arcface_loss(x, y, weight, reduction="sum"),
            functional.a_softmax_loss(x, y, weight, m=3, lambda_=0.0),
            functional.l_softmax_loss(x, y, weight),
            functional.joint_loss(x, y, auxiliary=term, weight=0.5),
        ]
    center = [
        functional.center_loss(x, y, centers, update=True),
        functional.island_loss(x, y, centers, lambda1=1.0),
        functional.variant_loss(x, y, centers, feature_gradient="exact"),
        functional.weighted_cluster_loss(x, y, centers, class_weights=class_weights),
        functional.affinity_loss(x, y, centers, alpha=0.1),
        functional.mva_loss(x, y, centers, groups=[(x.detach(), y)]),
    ]
    correlation = [
        functional.nfd_loss(e, y, C),
        functional.fd_loss(e, y, difficulty),
        functional.md_loss(e, y, C),
        functional.ed_loss(e),
        functional.ad_corre_loss(e, y, difficulty),
    ]
    contrastive = [
        functional.selfcon_loss(z, temperature=0.2),
        functional.supcon_loss(z, y),
        functional.esc_loss(z, y, z.detach(), y),
        functional.ensc_loss(embeddings=z, labels=y, bank_embeddings=z.detach(), bank_labels=y, backend="blocked"),
    ]
    return [
        *(assert_type(functional.range_loss(x, y, k=1), Tensor), functional.marginal_loss(x, y, xi=0.1)),
        *(*classifier, *center, *correlation, *contrastive),
        functional.correlation_matrix(x).sum(),
        functional.center_distances(x, centers).sum(),
        functional.anti_center_distances(x, y, centers).sum(),
        functional.contrastive_log_denominator(z, y, mode="supcon").sum(),
    ]


def of_other_libraries() -> list[Tensor]:
    supcon = pml.SupConLoss(temperature=0.1, embedding_reg_weight=1)
    memory = pml.CrossBatchMemory(pml.NTXentLoss(), embedding_size=D, memory_size=64)
    margins = pml.CosFaceLoss(C, D, margin=0.3), pml.ArcFaceLoss(num_classes=C, embedding_size=D, scale=32)
    angular = pml.SphereFaceLoss(C, D), pml.LargeMarginSoftmaxLoss(C, D, margin=2, weight_init_func=torch.nn.init.ones_)
    assert_type(margins[0].W, Parameter)
    return [
        supcon(x, y, ref_emb=x.detach(), ref_labels=y.clone()),
        memory(x, y),
        *(loss(x, y) for loss in (*margins, *angular)),
    ]


def in_use(run: Path) -> dict[str, float]:
    """What a trained model is asked; not called here, where there is none."""
    model = fer_fast.load(run, device="cpu")
    photo = np.zeros((120, 90, 3), np.uint8)
    model.enrol("contempt", [run / "1.jpg", photo], refresh=None)
    assert_type(model.undo(), str)
    assert_type(model.embed(photo, faces="whole"), Tensor)
    for seen in model.see(run.glob("*.jpg"), faces="all"):
        assert_type(seen.error, str | None)
    ((face, *_),) = model.predict(photo)
    assert_type(face.label, str)
    assert_type(face.cosine, float | None)
    assert_type(model.save(run / "taught.safetensors"), Path)
    return face.scores


def mistakes() -> None:
    fer_fast.load("run").predict("photo.jpg", faces="some")  # pyright: ignore[reportArgumentType]
    losses.LMCLLoss(C, D, margin=0.2)  # pyright: ignore[reportCallIssue]
    losses.LMCLLoss(C, D, reduction="average")  # pyright: ignore[reportArgumentType]
    losses.SupConLoss(backend="cuda")  # pyright: ignore[reportArgumentType]
    losses.VariantLoss(C, D, feature_gradient="printed")  # pyright: ignore[reportArgumentType]
    functional.correlation_matrix(x=x)  # pyright: ignore[reportCallIssue]
    functional.supcon_loss(z, y, tau=0.1)  # pyright: ignore[reportCallIssue]
    functional.contrastive_log_denominator(z, y, mode="selfcon")  # pyright: ignore[reportArgumentType]
    fer_fast.backend("torch")  # pyright: ignore[reportArgumentType]
    pml.SupConLoss(tau=0.1)  # pyright: ignore[reportCallIssue]
    pml.CrossBatchMemory(pml.CosFaceLoss(C, D), D)  # pyright: ignore[reportArgumentType]


def main() -> None:
    families = classifiers, center_family, correlations, pairs, functions, of_other_libraries
    total = torch.stack([loss for family in families for loss in family()]).sum()
    total.backward()
    print(total.item(), x.grad is not None, [row.name for row in losses.available()])


if __name__ == "__main__":
    main()

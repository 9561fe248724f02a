"""Each loss against its printed formula, evaluated term by term in Python, and against numbers worked out by hand."""

import math
from functools import partial

import pytest
import torch
from torch import Tensor

from fer_fast import reference as ref
from strategies import LOSSES, Batch, combinations, make_batch

Vector = list[float]
# Five samples, class 3 absent, class 2 with one sample; then one class only; then every sample its own class.
LABELS = ([0, 1, 0, 2, 1], [1, 1, 1, 1], [2, 0, 1, 3])


def dot(u: Vector, v: Vector) -> float:
    return sum(a * b for a, b in zip(u, v, strict=True))


def minus(u: Vector, v: Vector) -> Vector:
    return [a - b for a, b in zip(u, v, strict=True)]


def mean(rows: list[Vector]) -> Vector:
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)]


def reduced(total: float, count: float, reduction: str) -> float:
    return total / count if reduction == "mean" else total


def squared(u: Vector, v: Vector) -> float:
    return dot(minus(u, v), minus(u, v))


def direction(u: Vector) -> Vector:
    return [a / math.sqrt(dot(u, u)) for a in u]


def cosine(u: Vector, v: Vector) -> float:
    return dot(u, v) / math.sqrt(dot(u, u) * dot(v, v))


def corr(u: Vector, v: Vector) -> float:
    return cosine([a - sum(u) / len(u) for a in u], [b - sum(v) / len(v) for b in v])


def cross_entropy(rows: list[Vector], y: list[int]) -> float:
    return sum(math.log(sum(math.exp(f) for f in row)) - row[y_i] for row, y_i in zip(rows, y, strict=True))


def psi(theta: float, m: int) -> float:
    k = min(int(theta * m / math.pi), m - 1)
    return (-1) ** k * math.cos(m * theta) - 2 * k


def angular(b: Batch, reduction: str, normalised: bool, m: int = 4, lambda_: float = 5.0) -> float:
    logits = []
    for x, y in zip(b.x.tolist(), b.y.tolist(), strict=True):
        row = []
        for j, w in enumerate(b.weight.tolist()):
            theta = math.acos(cosine(x, w))
            factor = (lambda_ * math.cos(theta) + psi(theta, m)) / (1 + lambda_) if j == y else math.cos(theta)
            row.append(math.sqrt(dot(x, x)) * (1.0 if normalised else math.sqrt(dot(w, w))) * factor)
        logits.append(row)
    return reduced(cross_entropy(logits, b.y.tolist()), len(b.y), reduction)


def softmax(b: Batch, reduction: str, bias: bool = True, weighted: bool = False) -> float:
    total = weights = 0.0
    for x, y in zip(b.x.tolist(), b.y.tolist(), strict=True):
        logits = [dot(x, w) + (c if bias else 0) for w, c in zip(b.weight.tolist(), b.bias.tolist(), strict=True)]
        probability = math.exp(logits[y]) / sum(math.exp(f) for f in logits)
        weight = b.class_weights[y].item() if weighted else 1.0
        total -= weight * math.log(probability)
        weights += weight
    return reduced(total, weights, reduction)


def lmcl(b: Batch, reduction: str, s: float = 30.0, m: float = 0.35) -> float:
    y = b.y.tolist()
    logits = [
        [s * (cosine(x, w) - m * (j == y_i)) for j, w in enumerate(b.weight.tolist())]
        for x, y_i in zip(b.x.tolist(), y, strict=True)
    ]
    return reduced(cross_entropy(logits, y), len(y), reduction)


def arcface(b: Batch, reduction: str, s: float = 64.0, m: float = 0.5) -> float:
    y = b.y.tolist()
    logits = [[s * cosine(x, w) for w in b.weight.tolist()] for x in b.x.tolist()]
    for row, y_i in zip(logits, y, strict=True):
        theta = math.acos(row[y_i] / s)
        row[y_i] = s * (math.cos(theta + m) if theta < math.pi - m else math.cos(theta) - m * math.sin(m))
    return reduced(cross_entropy(logits, y), len(y), reduction)


def own_total(x: list[Vector], y: list[int], centers: list[Vector]) -> float:
    return sum(squared(x_i, centers[y_i]) for x_i, y_i in zip(x, y, strict=True))


def center(b: Batch, reduction: str) -> float:
    return reduced(own_total(b.x.tolist(), b.y.tolist(), b.centers.tolist()) / 2, len(b.y), reduction)


def island(b: Batch, reduction: str, lambda1: float = 10.0) -> float:
    c = b.centers.tolist()
    apart = sum(cosine(c[j], c[k]) + 1 for j in range(len(c)) for k in range(len(c)) if k != j)
    return center(b, reduction) + lambda1 * apart


def variant(
    b: Batch, reduction: str, lambda1: float = 0.4, lambda2: float = 0.6, eps1: float = 0.01, eps2: float = 0.01
) -> float:
    c, total = b.centers.tolist(), 0.0
    for x, y in zip(b.x.tolist(), b.y.tolist(), strict=True):
        anti = sum(squared(x, c[j]) for j in range(len(c)) if j != y)
        total += (squared(x, c[y]) + lambda1 / (eps1 + anti)) / 2
    spread = sum(squared(c[m], c[n]) for m in range(len(c)) for n in range(len(c)) if n != m)
    return reduced(total, len(b.y), reduction) + lambda2 / (eps2 + spread)


def weighted_cluster(b: Batch, reduction: str, alpha: float = 1.0) -> float:
    c, total = b.centers.tolist(), 0.0
    for x, y in zip(b.x.tolist(), b.y.tolist(), strict=True):
        others = sum(squared(c[j], c[y]) for j in range(len(c)) if j != y)
        total += b.class_weights[y].item() * squared(x, c[y]) / (others + alpha) / 2
    return reduced(total, len(b.y), reduction)


def affinity_of(x: list[Vector], y: list[int], centers: list[Vector], reduction: str) -> float:
    c_mean = mean(centers)
    variance = sum((c[t] - c_mean[t]) ** 2 / (len(centers) - 1) for c in centers for t in range(len(c_mean)))
    return reduced(own_total(x, y, centers) / variance, len(x), reduction)


def affinity(b: Batch, reduction: str) -> float:
    return affinity_of(b.x.tolist(), b.y.tolist(), b.centers.tolist(), reduction)


def mva(b: Batch, reduction: str) -> float:
    earlier = [affinity_of(x.tolist(), y.tolist(), b.centers.tolist(), reduction) for x, y in b.groups]
    values = [affinity(b, reduction), *earlier]
    average = sum(values) / len(values)
    return (1 + sum((value - average) ** 2 for value in values) / len(values)) * values[0]


def fd(b: Batch, reduction: str, difficulty: Tensor | None = None) -> float:
    w = (b.difficulty if difficulty is None else difficulty).tolist()
    y, total = b.y.tolist(), 0.0
    for e in b.e.tolist():
        for i in range(len(y)):
            for j in range(len(y)):
                if i != j:
                    same = 1 if y[i] == y[j] else -1
                    total += (w[y[i]] + w[y[j]]) * abs(same - corr(e[i], e[j]))
    return reduced(total, len(b.e) * len(y) ** 2, reduction)


def nfd(b: Batch, reduction: str) -> float:
    return fd(b, reduction, torch.full_like(b.difficulty, 0.5))


def md(b: Batch, reduction: str) -> float:
    y, num_classes, total = b.y.tolist(), len(b.centers), 0.0
    for e in b.e.tolist():
        means = {a: mean([row for row, y_i in zip(e, y, strict=True) if y_i == a]) for a in set(y)}
        total += sum(abs(1 + corr(means[p], means[q])) for p in means for q in means if p != q)
    return reduced(total, len(b.e) * num_classes**2, reduction)


def ed(b: Batch, reduction: str) -> float:
    e, k = b.e.tolist(), len(b.e)
    pairs = [(p, q) for p in range(k) for q in range(k) if p != q]
    total = sum(abs(1 + corr(e[p][i], e[q][i])) for i in range(len(b.y)) for p, q in pairs)
    return reduced(total, len(b.y) * k**2, reduction)


def ad_corre(b: Batch, reduction: str) -> float:
    return fd(b, reduction) + md(b, reduction) + ed(b, reduction)


def marginal(b: Batch, reduction: str, theta: float = 1.2, xi: float = 0.3) -> float:
    x, y, total = b.x.tolist(), b.y.tolist(), 0.0
    for i in range(len(y)):
        for j in range(len(y)):
            if i != j:
                sign = 1 if y[i] == y[j] else -1
                total += max(0.0, xi - sign * (theta - squared(direction(x[i]), direction(x[j]))))
    return reduced(total, len(y) ** 2 - len(y), reduction)


def range_loss(b: Batch, k: int = 2, alpha: float = 5e-5, beta: float = 1e-4, margin: float = 2e4) -> float:
    rows: dict[int, list[Vector]] = {}
    for x, y in zip(b.x.tolist(), b.y.tolist(), strict=True):
        rows.setdefault(y, []).append(x)
    intra = 0.0
    for members in rows.values():
        pairs = [squared(members[i], members[j]) for i in range(len(members)) for j in range(i)]
        widest = sorted(pairs, reverse=True)[:k]
        if widest:
            intra += len(widest) / sum(1 / distance for distance in widest)
    means = [mean(members) for members in rows.values()]
    nearest = [squared(means[i], means[j]) for i in range(len(means)) for j in range(i)]
    return alpha * intra + beta * (max(0.0, margin - min(nearest)) if nearest else 0.0)


def contrast(z: list[Vector], y: list[int], extra: list[list[Vector]], temperature: float, reduction: str) -> float:
    total, anchors = 0.0, 0
    for i in range(len(z)):
        positives = [p for p in range(len(z)) if p != i and y[p] == y[i]]
        others = [z[a] for a in range(len(z)) if a != i] + extra[i]
        for p in positives:
            ratio = math.exp(dot(z[i], z[p]) / temperature) / sum(math.exp(dot(z[i], a) / temperature) for a in others)
            total -= math.log(ratio) / len(positives)
        anchors += bool(positives)
    return reduced(total, max(anchors, 1), reduction)


def selfcon(b: Batch, reduction: str, temperature: float = 0.1) -> float:
    n = len(b.z)
    return contrast(b.z.tolist(), [i % (n // 2) for i in range(n)], [[]] * n, temperature, reduction)


def with_bank(b: Batch, reduction: str, mode: str, temperature: float = 0.1) -> float:
    bank = [(z, y) for z, y in zip(b.bank_z.tolist(), b.bank_y.tolist(), strict=True) if y >= 0]
    extra = {
        "supcon": lambda y_i: [],
        "esc": lambda y_i: [z for z, _ in bank],
        "ensc": lambda y_i: [z for z, y in bank if y != y_i],
    }[mode]
    return contrast(b.z.tolist(), b.y.tolist(), [extra(y_i) for y_i in b.y.tolist()], temperature, reduction)


FORMULAS = {
    "softmax": softmax,
    "weighted_softmax": partial(softmax, weighted=True),
    "softmax_no_bias": partial(softmax, bias=False),
    "lmcl": lmcl,
    "arcface": arcface,
    "a_softmax": partial(angular, normalised=True),
    "l_softmax": partial(angular, normalised=False),
    "center": center,
    "island": island,
    "variant": variant,
    "weighted_cluster": weighted_cluster,
    "affinity": affinity,
    "mva": mva,
    "nfd": nfd,
    "fd": fd,
    "md": md,
    "ed": ed,
    "ad_corre": ad_corre,
    "marginal": marginal,
    "range": range_loss,
    "selfcon": selfcon,
    "supcon": partial(with_bank, mode="supcon"),
    "esc": partial(with_bank, mode="esc"),
    "ensc": partial(with_bank, mode="ensc"),
}


@pytest.mark.parametrize("y", LABELS, ids=str)
@pytest.mark.parametrize(("name", "keywords"), combinations())
def test_loss_equals_its_formula_term_by_term(name: str, keywords: dict, y: list[int]):
    rows = y[:4] if name == "selfcon" else y  # two views of two images
    batch = make_batch(rows, num_classes=4, d=3, seed=len(y))
    torch.testing.assert_close(
        LOSSES[name](batch, **keywords).item(), float(FORMULAS[name](batch, **keywords)), rtol=1e-12, atol=1e-13
    )


def test_every_loss_has_a_formula():
    assert FORMULAS.keys() == LOSSES.keys()


# Points of the plane whose distances, angles and correlations are whole numbers.
X = torch.tensor([[3.0, 4.0], [0.0, 0.0], [6.0, 8.0]], dtype=torch.float64)
CENTERS = torch.tensor([[0.0, 0.0], [3.0, 0.0]], dtype=torch.float64)
Y = torch.tensor([0, 1, 0])


def close(value: float) -> object:
    return pytest.approx(value, rel=1e-12)


def test_center_by_hand():
    # ‖(3,4)‖² = 25, ‖(3,0)‖² = 9, ‖(6,8)‖² = 100: half the sum is 67.
    assert ref.center(X, Y, CENTERS, reduction="sum") == close(67)
    assert ref.center(X, Y, CENTERS) == close(67 / 3)
    # Two in class 0: Δ = (0-3 + 0-6, 0-4 + 0-8) / 3 = (-3, -4); one in class 1: Δ = (3, 0) / 2. Half of it is taken.
    moved = torch.tensor([[1.5, 2.0], [2.25, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(ref.center_update(X, Y, CENTERS), moved)


def test_variant_by_hand():
    # S: to the other center, ‖(0,4)‖² = 16, ‖(0,0)‖² = 0, ‖(3,8)‖² = 73; T = 9 + 9. ε = 1, λ₁ = 2, λ₂ = 3.
    expected = (134 + 2 / 17 + 2 / 1 + 2 / 74) / 2 + 3 / 19
    value = ref.variant(X, Y, CENTERS, lambda1=2.0, lambda2=3.0, eps1=1.0, eps2=1.0, reduction="sum")
    assert value == close(expected)


def test_affinity_and_weighted_cluster_by_hand():
    # The centers' variance is 4.5 + 0 (3/2 either side of their mean, divisor 1); the squares sum to 134.
    assert ref.affinity(X, Y, CENTERS, reduction="sum") == close(134 / 4.5)
    # Σ_{j≠k} ‖c_j - c_k‖² = 9 for both classes, α = 1.
    weights = torch.tensor([1.0, 0.5], dtype=torch.float64)
    assert ref.weighted_cluster(X, Y, CENTERS, weights, reduction="sum") == close((125 + 0.5 * 9) / 10 / 2)


def test_island_by_hand():
    # cos = 0 for the two axes and -1/√2, -1/√2 with the third: ordered pairs sum to 2·(0+1) + 4·(1 - 1/√2).
    centers = torch.tensor([[1.0, 0.0], [0.0, 5.0], [-2.0, -2.0]], dtype=torch.float64)
    value = ref.island(centers, torch.arange(3), centers, lambda1=0.5)
    assert value == close(0.5 * (2 + 4 * (1 - math.sqrt(0.5))))


def test_correlation_losses_by_hand():
    # corr(1 2 3, 2 4 6) = 1, corr(1 2 3, 3 2 1) = -1, corr(1 2 3, 1 0 1) = 0, and 0 of any of them with 1 0 1.
    e = torch.tensor([[[1.0, 2, 3], [2, 4, 6], [3, 2, 1], [1, 0, 1]]], dtype=torch.float64)
    # Same class {0,1} agree: 0. {2,3}: |1-0| = 1. Across: rows 0,1 with row 2: |-1+1| = 0; with row 3: 1 each.
    assert ref.nfd(e, torch.tensor([0, 0, 1, 1]), reduction="sum") == close(2 * (1 + 1 + 1))
    assert ref.nfd(e, torch.tensor([0, 0, 1, 1])) == close(6 / 16)
    # Two embeddings of four samples, opposite for the first, equal for the second, unrelated for the others.
    pair = torch.stack([e[0], e[0][[2, 1, 3, 0]]])
    assert ref.ed(pair, reduction="sum") == close(2 * (0 + 2 + 1 + 1))
    # Means of classes 0 and 2: 1.5 3 4.5 and 3 2 1, opposite; class 3 correlates 0 with both; class 1 is absent.
    assert ref.md(e, torch.tensor([0, 0, 2, 3]), 4) == close(2 * (0 + 1 + 1) / 16)


def test_class_difficulty_by_hand():
    # Truth 0: right twice of three; truth 1: never of one; truth 2: no sample, so 0 on the diagonal.
    counts = ref.confusion_counts(torch.tensor([0, 0, 0, 1]), torch.tensor([0, 1, 0, 2]), 3)
    assert counts.tolist() == [[2, 1, 0], [0, 0, 1], [0, 0, 0]]
    assert ref.class_difficulty(counts.double()).tolist() == [close(1 / 3 + 1e-6), close(1 + 1e-6), close(1 + 1e-6)]


def test_marginal_by_hand():
    # Directions (1,0), (0,1), (-1,0): squared distances 2 (0,1), 4 (0,2), 2 (1,2); θ = 1.2, ξ = 0.3.
    x = torch.tensor([[2.0, 0.0], [0.0, 5.0], [-1.0, 0.0]], dtype=torch.float64)
    # Same class (0,1): .3 - (1.2 - 2) = 1.1; others .3 + (1.2 - 4) < 0 and .3 + (1.2 - 2) < 0.
    assert ref.marginal(x, torch.tensor([0, 0, 1])) == close(2 * 1.1 / 6)


def test_range_by_hand():
    # Class 0 at 0, 1, 3 on a line: squared distances 1, 9, 4; the widest two give 2 / (1/9 + 1/4) = 72/13.
    # Class 1 has one pair: 4. Means 4/3 and 11: their squared distance is (29/3)². Class 2 has no pair; mean 20.
    x = torch.tensor([[0.0], [1.0], [3.0], [10.0], [12.0], [20.0]], dtype=torch.float64)
    value = ref.range_loss(x, torch.tensor([0, 0, 0, 1, 1, 2]), alpha=1.0, beta=0.5, margin=100.0)
    assert value == close(72 / 13 + 4 + 0.5 * (100 - 81))


def test_lmcl_by_hand():
    # cos θ = (1, 0): logits s·(1 - m) and 0.
    value = ref.lmcl(torch.tensor([[5.0, 0.0]]).double(), torch.tensor([0]), torch.eye(2).double() * 3, s=2.0, m=0.25)
    assert value == close(math.log1p(math.exp(-1.5)))


@pytest.mark.parametrize(("degrees", "own"), [(0, 3**0.5 / 2), (60, 0), (120, -(3**0.5) / 2), (180, -1 - math.pi / 12)])
def test_arcface_by_hand(degrees: int, own: float):
    # m = π/6: cos(θ + 30°), but past 150° cos θ - (π/6)·(1/2). The other logit is 0.
    x = torch.tensor([[math.cos(math.radians(degrees)), math.sin(math.radians(degrees))]], dtype=torch.float64)
    weight = torch.tensor([[3.0, 0.0], [0.0, 0.0]], dtype=torch.float64)
    value = ref.arcface(x, torch.tensor([0]), weight, s=2.0, m=math.pi / 6)
    torch.testing.assert_close(value.item(), math.log1p(math.exp(-2 * own)), rtol=1e-12, atol=0)


@pytest.mark.parametrize(("degrees", "psi_4"), [(0, 1), (45, -1), (60, -1.5), (90, -3), (135, -5), (180, -7)])
def test_psi_by_hand(degrees: int, psi_4: float):
    # ψ = (-1)^k cos 4θ - 2k. At 60°: k = 1, -cos 240° - 2 = 1/2 - 2. It falls from 1 to 1 - 2m without a jump.
    x = torch.tensor([[math.cos(math.radians(degrees)), math.sin(math.radians(degrees))]], dtype=torch.float64)
    weight = torch.tensor([[1.0, 0.0], [0.0, 0.0]], dtype=torch.float64)  # the second logit is 0
    value = ref.l_softmax(x, torch.tensor([0]), weight, m=4, lambda_=0.0)
    torch.testing.assert_close(value.item(), math.log1p(math.exp(-psi_4)), rtol=1e-12, atol=0)


def test_contrastive_by_hand():
    # τ = 1/ln 2, so that e^{s/τ} = 2^s. z_0·z_1 = 1, z_0·z_2 = z_1·z_2 = 0: D_0 = D_1 = 2 + 1; row 2 has no positive.
    z, y = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=torch.float64), torch.tensor([0, 0, 1])
    tau = 1 / math.log(2)
    assert ref.supcon(z, y, tau) == close(-math.log(2 / 3))
    assert ref.supcon(z, y, tau, reduction="sum") == close(-2 * math.log(2 / 3))
    # The bank adds 2^-1 (another class), 2^1 (the same class; ESC only) and an unfilled row (never).
    bank_z, bank_y = torch.tensor([[-1.0, 0.0], [1.0, 0.0], [1.0, 0.0]], dtype=torch.float64), torch.tensor([1, 0, -1])
    assert ref.esc(z, y, bank_z, bank_y, tau) == close(-math.log(2 / 5.5))
    assert ref.ensc(z, y, bank_z, bank_y, tau) == close(-math.log(2 / 3.5))


def test_selfcon_pairs_the_two_views():
    # Rows i and i + N: (0, 2) and (1, 3) agree, all else is orthogonal; D = e^{1/τ} + 2.
    z = torch.eye(2, dtype=torch.float64).repeat(2, 1)
    assert ref.selfcon(z, temperature=1.0) == close(-math.log(math.e / (math.e + 2)))

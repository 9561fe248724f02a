"""A trained model as one graph that needs nothing of this package: pixels of faces in, scores and features out."""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fer_fast.data.augment import Normalise, equalize, views
from fer_fast.data.dataset import to_channels
from fer_fast.train.convolution import as_convolutions
from fer_fast.train.evaluation import Trained

INPUT = "faces"


class Exported(nn.Module):
    """uint8 faces (n, channels, h, w) of any size -> named outputs, in float32 and evaluation mode.

    Faces are brought to the side S of the images the model was trained on as `fer_fast.data.prepare.to_size` does it
    (by areas where a side shrinks, else bilinear) but for its rounding, and at that side stay as they are. The rest is
    `fer_fast.train.evaluation.predict`: views, normalisation, encoder and classifier, means over views.

    Outputs:
        scores: (n, C) probabilities.
        embeddings: (n, d) features, as the classifier reads them.
        cosines: (n, C) between features and the directions of the classes; only where the classifier has such.
    """

    def __init__(self, trained: Trained):
        super().__init__()
        recogniser = copy.deepcopy(trained.recogniser).float().cpu().eval().requires_grad_(False)
        self.recogniser = as_convolutions(recogniser.to(memory_format=torch.contiguous_format))
        how, self.augment = trained.preparation(), trained.config.augment
        self.side, self.channels = how.size, how.channels
        self.normalise = Normalise(self.augment)
        # Its constants are made now: those of a trace are no numbers.
        self.normalise(torch.zeros(1, self.channels, self.side, self.side, dtype=torch.uint8))

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what comes out, in order."""
        return ("scores", "embeddings", *(("cosines",) if self.recogniser.classifier.directional else ()))

    def forward(self, faces: Tensor) -> dict[str, Tensor]:
        augment, crops = self.augment, self.augment.crops
        rows, columns = (resampling(side, self.side) for side in faces.shape[2:])
        images = views(rows @ faces.float() @ columns.T, crops).flatten(0, 1)
        if augment.equalize:
            images = equalize(images.round().byte()).float()
        images = self.normalise.unit(to_channels(images / 255.0, 1) if augment.channels == 1 else images / 255.0)
        encoder, classifier = self.recogniser.encoder, self.recogniser.classifier
        # Not by `Encoder.forward`: torch.export.load (2.14) refuses its step out of autocast, which no graph is in.
        features = encoder.head(encoder.layer(encoder.backbone(images))).features
        logits = classifier.logits(features)
        features = features.unflatten(0, (-1, crops)).mean(1)
        values = {"scores": logits.softmax(1).unflatten(0, (-1, crops)).mean(1), "embeddings": features}
        if classifier.directional:
            values["cosines"] = F.normalize(features, dim=1) @ F.normalize(classifier.weight, dim=1).T
        return values


def resampling(side: int, to: int) -> Tensor:
    """The matrix (to, side) that brings a line of `side` pixels to `to`: by areas where it shrinks, else bilinear.

    As OpenCV's INTER_AREA and INTER_LINEAR: pixel i of the result is the mean of the line over [i, i + 1)·side/to, or
    its value between the centers of pixels at (i + 1/2)·side/to - 1/2, beyond the last of which nothing changes.
    """
    step = torch.full((), 1.0) * side / to
    start = torch.arange(to)[:, None] * step
    pixel = torch.arange(side)[None]
    overlap = torch.minimum(start + step, pixel + 1.0) - torch.maximum(start, pixel + 0.0)
    centre = (start + step / 2 - 0.5).clamp(min=0).minimum(torch.full((), 1.0) * side - 1)
    return torch.where(step > 1, overlap / step, 1 - (pixel - centre).abs()).clamp(min=0)

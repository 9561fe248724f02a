"""How an exported model is used, as the card shows it: code that needs nothing of this package."""

from collections.abc import Sequence
from typing import Any

_ONNX = """
import json

import numpy as np
import onnxruntime
from PIL import Image

session = onnxruntime.InferenceSession("{file}")
classes = json.loads(session.get_modelmeta().custom_metadata_map["classes"])
face = np.array(Image.open("face.png").convert("{mode}")){axes}  # uint8 {shape}
{names} = (row[0] for row in session.run(None, {{"faces": face}}))
{answer}
"""

_TORCH = """
import json

import numpy as np
import torch
from PIL import Image

about = {{"fer_fast.json": ""}}
model = torch.export.load("{file}", extra_files=about).module()
classes = json.loads(about["fer_fast.json"])["classes"]
face = torch.from_numpy(np.array(Image.open("face.png").convert("{mode}")){axes})  # uint8 {shape}
{names} = (rows[0].numpy() for rows in model(face).values())
{answer}
"""


def usage(files: Sequence[str], about: dict[str, Any]) -> str:
    """Markdown that says how to run exported files.

    Args:
        files: their names.
        about: what each says of itself.
    """
    side, how = about["input"]["side"], about["preparation"]
    text = (
        f"Any number of uint8 faces of any size go in ({side}×{side} pixels are taken as they are). Out come "
        + "; ".join(_OUTPUTS[name] for name in about["outputs"])
        + ". `face.png` is the face alone: a square in which the eyes are level, "
        f"{100 * how['eye_line']:g} % of its height from the top and {100 * how['eye_distance']:g} % of its width "
        "apart; where it reaches beyond the photo the edge is repeated. "
        + ("The photo is made gray before the face is found. " if about["input"]["channels"] == "gray" else "")
        + "`fer-fast predict` finds eyes by YuNet, with a closer look at each face; other eyes give other scores. "
        "Class names and all of this are in the file too."
    )
    return "\n\n".join((text, *(_code(file, about) for file in files)))


def _code(file: str, about: dict[str, Any]) -> str:
    template, needs = (_ONNX, "onnxruntime") if file.endswith(".onnx") else (_TORCH, "torch")
    gray, cosines = about["input"]["channels"] == "gray", "cosines" in about["outputs"]
    code = template.format(
        file=file,
        mode="L" if gray else "RGB",
        axes="[None, None]" if gray else ".transpose(2, 0, 1)[None]",
        shape=f"(1, {1 if gray else 3}, height, width)",
        names=", ".join(about["outputs"]),
        answer=_answer(about["threshold"] if cosines else None),
    )
    return f"`{file}`, with {needs}, numpy and Pillow:\n\n```python{code}```"


def _answer(threshold: float | None) -> str:
    if threshold is None:
        return "print(classes[scores.argmax()], scores.max())"
    return f'print(classes[cosines.argmax()] if cosines.max() > {threshold} else "unknown", cosines.max())'


_OUTPUTS = {
    "scores": "`scores` (n, classes), probabilities",
    "embeddings": "`embeddings` (n, width), what the classifier reads",
    "cosines": "`cosines` (n, classes) between these and the directions of the classes",
}

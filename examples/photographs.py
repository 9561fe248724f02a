"""Pictures and a film to try a trained model on: drawn faces, so they are of nobody.

    python examples/photographs.py photos

leaves photos/contempt/1.png to 10.png (a class that seven-class models do not know), photos/known (ten photos of each
class that they do), photos/group.png (six faces, one of them turned and one small) and photos/film.mp4 (two faces that
pass each other, one of which changes its expression).
"""

import sys
from pathlib import Path

import cv2
import numpy as np

from fer_fast.data import load_dataset

SIDE = 160  # of a face's picture, which has some room around it
FRAMES, RATE = 75, 25


def drawn_faces(samples: int, split: str) -> dict[str, list[np.ndarray]]:
    """Pictures uint8 (SIDE, SIDE, 3) BGR by class, eight classes."""
    faces = load_dataset("faces", split=split, image_size=SIDE, channels=3, samples=samples, num_classes=8)
    pictures: dict[str, list[np.ndarray]] = {name: [] for name in faces.classes}
    for image, label in zip(faces.images, faces.labels.tolist(), strict=True):
        pictures[faces.classes[label]].append(image.permute(1, 2, 0).numpy()[..., ::-1])
    return pictures


def on(page: np.ndarray, face: np.ndarray, left: int, top: int) -> None:
    """Lay a face on a page."""
    height, width = face.shape[:2]
    page[top : top + height, left : left + width] = face


def group(faces: dict[str, list[np.ndarray]]) -> np.ndarray:
    """Six faces in a picture."""
    page = np.full((520, 700, 3), 120, np.uint8)
    for place, name in enumerate(("happiness", "surprise", "anger", "sadness", "disgust", "fear")):
        face = faces[name][2 if name == "sadness" else 0]
        if name == "sadness":
            turn = cv2.getRotationMatrix2D((SIDE / 2, SIDE / 2), 35, 1)
            face = cv2.warpAffine(face, turn, (SIDE, SIDE), borderValue=(120, 120, 120))
        if name == "fear":
            face = cv2.resize(face, (64, 64), interpolation=cv2.INTER_AREA)
        row, column = divmod(place, 3)
        on(page, face, 40 + 220 * column, 60 + 240 * row)
    return page


def film(faces: dict[str, list[np.ndarray]], path: Path) -> None:
    """Two faces that pass each other in three seconds."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), RATE, (640, 400))
    for number in range(FRAMES):
        page, way = np.full((400, 640, 3), 120, np.uint8), round(number / (FRAMES - 1) * 420)
        on(page, faces["neutral"][0] if number < FRAMES // 2 else faces["happiness"][1], 30 + way, 20)
        on(page, faces["surprise"][1], 450 - way, 220)
        writer.write(page)
    writer.release()


def main(folder: Path) -> None:
    """Write all of them."""
    for name, pictures in drawn_faces(80, "train").items():
        home = folder / (name if name == "contempt" else f"known/{name}")
        home.mkdir(parents=True, exist_ok=True)
        for number, face in enumerate(pictures, 1):
            cv2.imwrite(str(home / f"{number}.png"), face)
    faces = drawn_faces(64, "test")
    cv2.imwrite(str(folder / "group.png"), group(faces))
    film(faces, folder / "film.mp4")
    print(f"{folder}: contempt/, known/, group.png, film.mp4")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "photos"))

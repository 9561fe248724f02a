"""Pages of HTML in one file: no script, no font, no picture from elsewhere."""

import base64
import re
from pathlib import Path
from typing import Any, Literal

import cv2
import jinja2
import numpy as np

from fer_fast.errors import printable
from fer_fast.written import write_text

LARGEST_PICTURE = 96  # pixels; a page of larger ones would weigh megabytes

# Of a name these would turn around what stands behind it on the page.
_TURNS = re.compile("[\u202a-\u202e\u2066-\u2069]")


def _upright(value: Any) -> Any:
    return _TURNS.sub(lambda found: printable(found[0]), value) if type(value) is str else value


_TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    finalize=_upright,
    trim_blocks=True,
    lstrip_blocks=True,
)


def rendered(template: str, **values: Any) -> str:
    """A template, named by its path below the package, filled in."""
    return _TEMPLATES.get_template(template).render(**values)


def write_page(path: str | Path, template: str, **values: Any) -> None:
    """Fill in a template and write it, over a page that is there.

    Raises:
        InputError: the file cannot be written.
    """
    write_text(Path(path), rendered(template, **values))


def picture(pixels: np.ndarray, form: Literal[".png", ".jpg"] = ".png") -> str:
    """uint8 (height, width, 1 or 3) RGB as a data address of at most `LARGEST_PICTURE` pixels a side."""
    pixels = np.ascontiguousarray(pixels[..., ::-1])
    shrink = LARGEST_PICTURE / max(pixels.shape[:2])
    if shrink < 1:
        size = [max(1, round(side * shrink)) for side in pixels.shape[1::-1]]
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    kind = {".png": "png", ".jpg": "jpeg"}[form]
    return f"data:image/{kind};base64," + base64.b64encode(cv2.imencode(form, pixels)[1]).decode()

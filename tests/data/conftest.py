"""Every test of data has a cache of its own; real photographs where they are at hand."""

import random
import zipfile
from pathlib import Path

import pytest

from fer_fast.data import cache as cache_module
from fer_fast.data.decode import decode

PRESS_PHOTOS = Path(__file__).parents[2].parent / "shared" / "data" / "faces_in_the_wild.zip"


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("FER_FAST_CACHE", str(folder))
    return folder


@pytest.fixture
def small_chunks(monkeypatch):
    """Four pictures a task."""
    monkeypatch.setattr(cache_module, "_CHUNK_BYTES", 4 * 16 * 16)


@pytest.fixture(scope="session")
def press_archive():
    """Real photographs and their labels.csv."""
    if not PRESS_PHOTOS.exists():
        pytest.skip(f"needs {PRESS_PHOTOS}")
    return PRESS_PHOTOS


@pytest.fixture(scope="session")
def press_photos(press_archive):
    """Sixty real photographs, drawn by a fixed seed."""
    with zipfile.ZipFile(press_archive) as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))
        return [decode(archive.read(name), gray=False) for name in random.Random(0).sample(names, 60)]

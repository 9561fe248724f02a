"""The folder of a run: which one, whose, and that two runs never share it."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from fer_fast.errors import InputError
from fer_fast.train.checkpoint import RESUME

LOCK = ".lock"
STUDY = "study.json"  # what makes a folder that of many runs


@contextmanager
def claimed(out: Path) -> Iterator[None]:
    """Hold a run's folder for this process until the block ends, making it where it is not there.

    The claim is a lock of the operating system, which ends with the process however that ends: nothing is left to take
    over after a kill. Folders that were made for the run and in which nothing was written go again.

    Raises:
        InputError: another process holds the folder, or it cannot be made or written.
    """
    _refuse_file(out)
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    if (out / LOCK).exists():  # made by `fresh_folder`, or for a run that was killed before it wrote anything
        made = [out, out.parent]
    lock = FileLock(out / LOCK, timeout=0)
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise InputError(f"another run is writing in {out}; choose another --out, or wait for it") from None
    except (OSError, NotImplementedError) as error:
        raise InputError(f"cannot write in the folder {out}: {getattr(error, 'strerror', error)}") from None
    try:
        yield
    finally:
        with suppress(OSError):  # of a disk that lets nothing go, and up to the first folder that is not empty
            (out / LOCK).unlink(missing_ok=True)  # while it is held: whoever waits sees that the file is gone
            for folder in made:
                folder.rmdir()
        lock.release()


def refuse_results(out: Path, *files: str) -> None:
    """Refuse a folder that already holds results.

    Raises:
        InputError: one of the files is there, or a study, or the folder is a file itself.
    """
    _refuse_file(out)
    if present := [name for name in (STUDY, *files) if (out / name).exists()]:
        kind = "study" if present[0] == STUDY else "run"
        more = f", or continue it with --resume --out {out}" if RESUME in files else ""
        raise InputError(f"{out} already holds a {kind} ({present[0]}); choose another --out{more}")


def check_finished(folder: Path) -> None:
    """Refuse what is no folder of a finished run or study.

    Raises:
        InputError: no such folder, or no metrics.json in it.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} {'is no folder of a run' if folder.exists() else 'does not exist'}")
    if not (folder / "metrics.json").exists():
        kind = "study" if (folder / STUDY).exists() else "run"
        raise InputError(f"the {kind} in {folder} is not finished: there is no metrics.json")


def make_folder(out: Path) -> None:
    """Make a folder where it is not there.

    Raises:
        InputError: it cannot be made.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {out}: {error.strerror}") from None


def fresh_folder(recipe: str, parent: Path = Path("runs")) -> Path:
    """Make the first free runs/<recipe>-<n>, so that no run started at the same time takes it too.

    A row of a paper's table, as variant/8/resnet18-softmax, is written with dashes.

    Raises:
        InputError: it cannot be made.
    """
    recipe = recipe.replace("/", "-")
    number = _last_number(recipe, parent)
    folder = parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        while True:
            number += 1
            folder = parent / f"{recipe}-{number}"
            with suppress(FileExistsError):
                folder.mkdir()
                (folder / LOCK).touch()  # what tells `claimed` that it was made for a run
                return folder
    except OSError as error:
        raise InputError(f"cannot make the folder {folder}: {error.strerror}") from None


def latest_folder(recipe: str, parent: Path = Path("runs")) -> Path:
    """The runs/<recipe>-<n> begun last.

    Raises:
        InputError: there is none.
    """
    recipe = recipe.replace("/", "-")
    number = _last_number(recipe, parent)
    if number == 0:
        raise InputError(f"nothing to resume: there is no {parent / recipe}-<n>; name the folder with --out")
    return parent / f"{recipe}-{number}"


def _refuse_file(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out} is a file; a folder is needed")


def _last_number(recipe: str, parent: Path) -> int:
    numbers = [path.name.removeprefix(f"{recipe}-") for path in parent.glob(f"{recipe}-*")]
    return max((int(number) for number in numbers if number.isdecimal()), default=0)

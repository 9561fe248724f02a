"""Files that replace others at once: a kill or a full disk leaves the old one or the new one."""

import os
from contextlib import suppress
from pathlib import Path

from fer_fast.errors import InputError


def write_text(path: Path, text: str) -> None:
    """As `write_bytes`, in UTF-8; of a name that is not, what cannot be encoded is spelled out.

    Raises:
        InputError: the file cannot be written.
    """
    write_bytes(path, text.encode(errors="backslashreplace"))


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file; a pipe or a device is written to as it is.

    Raises:
        InputError: the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.part")
    try:
        if path.exists() and not path.is_file():  # /dev/stdout; of a folder the system says that it is one
            path.write_bytes(content)
            return
        try:
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:  # interrupted too
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from None


def check_free(file: Path, force: bool) -> None:
    """Before any work: that a file is not there, or may go, and that its folder can be written or made.

    Raises:
        InputError: one of these is not so.
    """
    if file.is_dir():
        raise InputError(f"{file} is a folder; a file is needed")
    if os.path.lexists(file) and not force:
        raise InputError(f"{file} is there already; --force replaces it")
    there = next(folder for folder in (file.parent, *file.parent.parents) if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise InputError(f"cannot write {file}: {there} is {'not writable' if there.is_dir() else 'a file'}")

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

"""Single files out of zip archives that others publish."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from nsdbench.errors import WeightsError

MAX_BYTES = 4 * 2**30
REMEDY = "Delete it and get it again from its original source."


@contextlib.contextmanager
def unpacked(archive: Path, name: str) -> Iterator[Path]:
    """Unpack the one file called ``name`` for as long as it is needed.

    Folders inside the archive are ignored, and nothing is written under a name that the archive chooses.

    Parameters
    ----------
    archive : Path
        A zip file.
    name : str
        Name of the file, without folders.

    Yields
    ------
    Path
        The file, in a temporary folder that goes away afterwards.

    Raises
    ------
    WeightsError
        If the archive is damaged, has no such file or several, or the file is unreasonably large.
    """
    with tempfile.TemporaryDirectory(prefix="nsdbench-") as folder:
        path = Path(folder) / name
        try:
            with zipfile.ZipFile(archive) as opened:
                member = _only(opened, archive, name)
                with opened.open(member) as source, path.open("wb") as target:
                    shutil.copyfileobj(source, target, 2**20)
        except (
            zipfile.BadZipFile,
            zlib.error,
            EOFError,
            OSError,
            NotImplementedError,
            RuntimeError,
        ) as error:
            raise WeightsError(f"{name} cannot be read from {archive} ({error})", remedy=REMEDY) from error
        yield path


def contents(archive: Path, name: str) -> bytes:
    """Return the content of the one file called ``name``; see :func:`unpacked`."""
    with unpacked(archive, name) as path:
        return path.read_bytes()


def _only(opened: zipfile.ZipFile, archive: Path, name: str) -> zipfile.ZipInfo:
    found = [info for info in opened.infolist() if PurePosixPath(info.filename).name == name]
    if len(found) != 1:
        raise WeightsError(f"{archive} holds {len(found)} files called {name}, not one", remedy=REMEDY)
    if found[0].file_size > MAX_BYTES:
        raise WeightsError(f"{name} in {archive} claims to have {found[0].file_size} bytes", remedy=REMEDY)
    return found[0]

"""What ``nsdbench weights`` says, for people and as documents."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsdbench.cli.output import explain, say
from nsdbench.errors import NsdbenchError, UsageError

if TYPE_CHECKING:
    from nsdbench.weights import Listed
    from nsdbench.weights.planning import Item

LARGE = 10**9
PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".th")


def row_document(row: Listed) -> dict[str, Any]:
    """Return a row of the list as JSON holds it."""
    from nsdbench import weights

    of = row.weights
    return {
        "id": of.id,
        "filename": of.filename,
        "state": row.state,
        "present": row.state != "missing",
        "path": row.path and str(row.path),
        "size": row.size,
        "size_is_exact": row.exact,
        "verified": row.verified,
        "sha256": of.sha256,
        "sha256_prefixes": of.sha256_prefixes,
        "md5": of.md5,
        "url": of.url,
        "hub": of.hub and asdict(of.hub),
        "licence": of.licence,
        "source": of.source,
        "used_by": of.used_by,
        "models": weights.models_with(of.id),
        "same_as": of.same_as,
    }


def described(row: Listed) -> str:
    """Return a row of the list in three lines."""
    from nsdbench import weights

    of = row.weights
    size = weights.size_text(row.size, exact=row.exact, at_least=of.at_least)
    users = ", ".join((*of.used_by, *weights.models_with(of.id))) or "-"
    stands_in = f" ({row.path.name})" if row.path and row.path.name != of.filename else ""
    return (
        f"{row.state:8} {of.id:42} {size:>8}  {row.verified}{stands_in}\n         {of.source}\n"
        f"         used by: {users}   licence: {of.licence}"
    )


def totals(rows: Iterable[Listed]) -> str:
    """Return the last line of the list; a file in another format does not count twice."""
    from nsdbench import weights

    lines = []
    for state in ("present", "missing", "shipped"):
        of_state = [row for row in rows if row.state == state and not row.weights.same_as]
        if of_state:
            total = sum(row.size or 0 for row in of_state)
            exact = all(row.exact for row in of_state)
            lines.append(f"{state} {len(of_state)} ({weights.size_text(total, exact=exact)})")
    return "total    " + ", ".join(lines or ["nothing"])


LISTS = {
    "curl": ('location\ncontinue-at = "-"\n', 'url = "{url}"\noutput = "{name}"\n'),
    "aria2": ("", "{url}\n  out={name}\n"),
    "wget": ("", "wget -c -O '{name}' '{url}'\n"),
}
"""Beginning of a list, and form of every file in it, by the program that takes it."""


def addresses(rows: Iterable[Listed], downloader: str) -> str:
    """Return a list that another program can download: every address with the name that the file must get."""
    from nsdbench.weights.hub import endpoint

    if downloader not in LISTS:
        raise UsageError(f"there is no list for {downloader}", remedy=f"Choose one of: {', '.join(LISTS)}.")
    beginning, form = LISTS[downloader]
    files = [row.weights for row in rows if row.state != "shipped"]
    lines = (form.format(name=w.filename, url=w.hub.url(endpoint()) if w.hub else w.url) for w in files)
    return beginning + "".join(lines)


def item_document(item: Item) -> dict[str, Any]:
    """Return a file of a plan as JSON holds it."""
    return {
        "id": item.weights.id,
        "state": item.state,
        "path": str(item.path),
        "url": item.url,
        "size": item.size,
        "size_is_exact": item.exact,
        "sha256": item.proof.sha256,
        "licence": item.weights.licence,
        "error": item.error and error_document(item.error),
    }


def error_document(error: NsdbenchError) -> dict[str, str]:
    """Return an error as JSON holds it."""
    return dict(zip(("kind", "message", "remedy"), explain(error), strict=True))


def announce(items: tuple[Item, ...], tell: Callable[[str], None]) -> None:
    """Say what each file of a plan takes, and all together."""
    from nsdbench import weights
    from nsdbench.store import free_bytes

    for item in items:
        size = weights.size_text(item.size, exact=item.exact, at_least=item.weights.at_least)
        tell(f"{item.state:8} {size:>8}  {item.weights.id}")
    coming = [item for item in items if item.state == "download"]
    if coming:
        total = weights.size_text(sum(item.size or 0 for item in coming), exact=all(i.exact for i in coming))
        folder = coming[0].path.parent
        tell(
            f"{len(coming)} to download into {folder}: {total}; {weights.size_text(free_bytes(folder))} are free"
        )


def advise(paths: dict[str, Path]) -> None:
    """Say which of the files would be smaller, or quicker to read, as safetensors."""
    for id, path in paths.items():
        if path.suffix in PICKLES and path.stat().st_size > LARGE:
            say(f"`nsdbench weights convert {id}` keeps only the weights (--half: in half the space)")

"""How is a folder on an object store (s3://, gs://) used as if it were here? Through fsspec and a local copy of what is
needed.

Before results in the walk. An object store has no folders, no rename and no locks; what it has is that a put makes the
whole object or nothing. So files are written here first and put there under the same name; whoever reads pulls what is
new. Where exactly one writer may win, `create` asks the store itself ("only if absent"), and stores that cannot do that
are refused.
"""

from __future__ import annotations

import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

from gaplaw.credentials import has_credentials, mask_answer, mask_credentials
from gaplaw.errors import SweepError
from gaplaw.files import renamed
from gaplaw.packages import install_with

# Protocols whose exclusive creation fsspec passes on to the store. Others would only look first, and two writers could
# both win.
EXCLUSIVE = ("s3", "s3a", "gs", "gcs", "file", "local", "memory")


def is_url(place: Path | str) -> bool:
    return "://" in str(place)


def join(url: str, *names: str) -> str:
    return "/".join([url.rstrip("/"), *names])


def refuse_credentials(url: str, instead: str) -> None:
    """Refuse a URL that holds credentials: it would stand in logs and process lists.

    Raises: SweepError saying where they belong.
    """
    if has_credentials(url):
        raise SweepError(f"{url}: a URL must not hold credentials (masked here) or a query; {instead}")


class Mirror:
    """Objects under `url`, and the local copies of some of them under `root`."""

    def __init__(self, url: str, root: Path):
        self.url, self.root = url.rstrip("/"), root
        self.protocol = url.partition("://")[0]
        self.seen: dict[str, dict] = {}
        with self._told("cannot be reached"):
            import fsspec

            self._here = self.protocol in ("file", "local")  # files, whose writing fsspec does not make atomic
            options = {"auto_mkdir": True} if self._here else {"use_listings_cache": False}
            self.fs, self._home = fsspec.core.url_to_fs(self.url, **options)

    def pull(self, *folders: str, but: tuple[str, ...] = ()) -> None:
        """Copy here what is new or changed below some folders of the URL, but not from folders of some names; delete
        nothing.
        """
        with self._told("cannot be read"):
            found = {}
            for folder in folders:
                found |= {n: i for n, i in self._list(folder).items() if not set(but) & set(n.split("/"))}
            new = [name for name, info in found.items() if self.seen.get(name) != info]
            for name, content in self._contents(new).items():
                _write(self.root / name, content)
            self.seen |= {name: found[name] for name in new}

    def push(self, *paths: Path) -> None:
        """Put files there, one after the other; of a folder, all files below it."""
        with self._told("cannot be written"):
            for path in paths:
                files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
                places = {file: self._place(file.relative_to(self.root).as_posix()) for file in files}
                if self._here:
                    for file, place in places.items():
                        _write(Path(place), file.read_bytes())
                else:
                    self.fs.put([str(file) for file in files], list(places.values()))

    def push_missing(self, *paths: Path) -> None:
        """Put those files there that exist here only: their writer was stopped between the two."""
        self.push(*(p for p in paths if p.exists() and p.relative_to(self.root).as_posix() not in self.seen))

    def remove(self, *paths: Path) -> None:
        """Remove objects, and everything below them; absent ones are no matter."""
        with self._told("cannot be written"):
            for path in paths:
                place = self._place(path.relative_to(self.root).as_posix())
                if self.fs.exists(place):
                    self.fs.rm(place, recursive=True)
                    gone = path.relative_to(self.root).as_posix()
                    self.seen = {n: i for n, i in self.seen.items() if n != gone and not n.startswith(f"{gone}/")}

    def names(self, folder: str) -> list[str]:
        """The names of the objects below a folder of the URL, sorted."""
        with self._told("cannot be read"):
            return sorted(name.removeprefix(f"{folder}/") for name in self._list(folder))

    def text(self, name: str) -> str | None:
        """An object's text; None when it is absent."""
        with self._told("cannot be read"):
            try:
                return self.fs.cat_file(self._place(name)).decode()
            except FileNotFoundError:
                return None

    def put_text(self, name: str, text: str) -> None:
        with self._told("cannot be written"):
            if self._here:
                _write(Path(self._place(name)), text.encode())
            else:
                self.fs.pipe_file(self._place(name), text.encode())

    def create(self, name: str, text: str) -> bool:
        """Make an object only if there is none of that name. Returns: whether it was made; of many writers one is told
        so.
        """
        with self._told("cannot be written"):
            try:
                if self._here:
                    with self.fs.open(self._place(name), "xb") as file:
                        file.write(text.encode())
                else:
                    self.fs.pipe_file(self._place(name), text.encode(), mode="create")
            except FileExistsError:
                return False
            return True

    def prove_writable(self, probe: str) -> None:
        """Write, refuse to write again, remove. Raises: SweepError when the store lets two writers win, or none."""
        made = self.protocol in EXCLUSIVE and self.create(probe, "")
        again = made and self.create(probe, "")
        if made:
            self.remove(self.root / probe)
        if again or not made:
            raise SweepError(
                f"{self.url}: this store cannot create an object only if it is absent, so that two runs could not "
                "tell each other "
                "apart; use S3, Google Cloud Storage or a shared folder"
            )

    def _place(self, name: str) -> str:
        return f"{self._home}/{name}"

    def _list(self, folder: str) -> dict[str, dict]:
        """Name below the URL → what the store says of the object; a new version says something else."""
        try:
            found = self.fs.find(self._place(folder), detail=True)
        except FileNotFoundError:
            return {}
        start = len(self.fs._strip_protocol(self._home)) + 1
        return {path[start:]: info for path, info in found.items() if not Path(path).name.startswith(".")}

    def _contents(self, names: list[str]) -> dict[str, bytes]:
        if not names:
            return {}
        places = {self._place(name): name for name in names}
        found = self.fs.cat(list(places), on_error="omit")
        found = found if isinstance(found, dict) else {next(iter(places)): found}
        return {
            places.get(path) or path[len(self.fs._strip_protocol(self._home)) + 1 :]: data
            for path, data in found.items()
        }

    @contextmanager
    def _told(self, what: str):
        """Whatever a store's client raises becomes one line; each has kinds of its own."""
        try:
            yield
        except (SweepError, FileExistsError):
            raise
        except ImportError as fault:
            raise SweepError(f"{self.url}: needs a package ({fault}); {install_with('cloud')}") from None
        except Exception as fault:
            why = mask_answer(" ".join(str(fault).split()), self.url)[:200] or "no message"
            raise SweepError(
                f"{self.url}: {what} ({type(fault).__name__}: {why}); what was finished there is safe"
            ) from None


def _write(path: Path, content: bytes) -> None:
    with renamed(path) as temporary:
        temporary.write_bytes(content)


@contextmanager
def brought_here(place: Path | str, *folders: str):
    """A folder as a local path: itself, or for a URL a copy of it that lasts as long as the context.

    Args: folders: what is needed below it, all of it if none.
    Yields: (the path, a function that puts a new file of it there as well and returns what people call it).
    """
    if not is_url(place):
        yield Path(place), str
        return

    def put(path: Path) -> str:
        mirror.push(path)
        return mask_credentials(join(parent, path.relative_to(root).as_posix()))

    root = Path(tempfile.mkdtemp(prefix="gaplaw-"))
    try:
        parent, _, name = str(place).rstrip("/").rpartition("/")
        mirror = Mirror(parent, root)
        mirror.pull(*(join(name, folder) for folder in folders) if folders else (name,))
        yield root / name, put
    finally:
        shutil.rmtree(root, ignore_errors=True)

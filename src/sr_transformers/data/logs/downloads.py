"""Public logs by name: fetched once into a cache, resumed where a download broke off, checked, never unpacked blindly.

Of an archive only the one file that is wanted is read, and it is written under a name of ours: whatever names the
archive holds, nothing can be written outside the cache. MovieLens is checked against the MD5 that GroupLens publishes;
for Amazon nobody publishes a digest, so the first download's SHA-256 is kept beside the file and checked from then on.
"""

import hashlib
import http.client
import lzma
import os
import shutil
import urllib.error
import urllib.request
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

CACHE_VARIABLE = "SR_TRANSFORMERS_CACHE"
GROUPLENS = "https://files.grouplens.org/datasets/movielens"
AMAZON_2018 = "https://mcauleylab.ucsd.edu/public_datasets/data/amazon_v2/categoryFilesSmall"
AMAZON = "amazon-2018/"
AMAZON_DOMAINS = (
    "AMAZON_FASHION", "All_Beauty", "Appliances", "Arts_Crafts_and_Sewing", "Automotive", "Books", "CDs_and_Vinyl",
    "Cell_Phones_and_Accessories", "Clothing_Shoes_and_Jewelry", "Digital_Music", "Electronics", "Gift_Cards",
    "Grocery_and_Gourmet_Food", "Home_and_Kitchen", "Industrial_and_Scientific", "Kindle_Store", "Luxury_Beauty",
    "Magazine_Subscriptions", "Movies_and_TV", "Musical_Instruments", "Office_Products", "Patio_Lawn_and_Garden",
    "Pet_Supplies", "Prime_Pantry", "Software", "Sports_and_Outdoors", "Tools_and_Home_Improvement", "Toys_and_Games",
    "Video_Games",
)  # fmt: skip
_MOVIELENS_NAMES = ("user_id", "item_id", "rating", "timestamp")


@dataclass(frozen=True)
class Download:
    """Where a log is and how it is written.

    Attributes:
        url: of the file or zip archive.
        member: of the archive, the file that is wanted; None: the download itself is.
        md5: of the download; None if nobody publishes one.
        separator, names, columns: see `sources.Log`.
    """

    url: str
    member: str | None
    md5: str | None
    separator: str
    names: tuple[str, ...] | None
    columns: tuple[tuple[str, str], ...] = ()


DOWNLOADS = {
    "movielens-100k": Download(
        f"{GROUPLENS}/ml-100k.zip", "ml-100k/u.data", "0e33842e24a9c977be4e0107933c0723", "\t", _MOVIELENS_NAMES
    ),
    "movielens-1m": Download(
        f"{GROUPLENS}/ml-1m.zip", "ml-1m/ratings.dat", "c4d9eecfca2ab87c1945afe126590906", "::", _MOVIELENS_NAMES
    ),
    "movielens-20m": Download(
        f"{GROUPLENS}/ml-20m.zip",
        "ml-20m/ratings.csv",
        "cd245b17a1ae2cc31bb14903e1204af3",
        ",",
        None,
        (("user_id", "userId"), ("item_id", "movieId")),
    ),
    **{
        f"{AMAZON}{domain}": Download(
            f"{AMAZON_2018}/{domain}.csv", None, None, ",", ("item_id", "user_id", "rating", "timestamp")
        )
        for domain in AMAZON_DOMAINS
    },
}


def names() -> tuple[str, ...]:
    """What can be downloaded, the Amazon domains as one."""
    return (*(name for name in DOWNLOADS if not name.startswith(AMAZON)), f"{AMAZON}DOMAIN[+DOMAIN...]")


def parts(source: str) -> list[str]:
    """Names of the downloads that make up a source: one, or several Amazon domains; none if it is no download.

    Raises:
        ValueError: for an Amazon domain that does not exist.

    >>> parts("amazon-2018/Software+Books")
    ['amazon-2018/Software', 'amazon-2018/Books']
    """
    if not source.startswith(AMAZON):
        return [source] if source in DOWNLOADS else []
    found = [AMAZON + domain for domain in source.removeprefix(AMAZON).split("+")]
    for name in found:
        if name not in DOWNLOADS:
            raise ValueError(f"{name}: no such domain; there are {', '.join(AMAZON_DOMAINS)}.")
    return found


def fetch(name: str) -> Path:
    """The file of a download, from the cache or from the network.

    The cache is the folder that the environment variable SR_TRANSFORMERS_CACHE names, else
    `~/.cache/sr_transformers`.

    Raises:
        ConnectionError: if it is not in the cache and cannot be fetched.
        ValueError: if what came is not what was published.
    """
    one = DOWNLOADS[name]
    folder = Path(os.environ.get(CACHE_VARIABLE) or Path.home() / ".cache" / "sr_transformers") / name.replace("/", "-")
    file = folder / Path(one.member or one.url).name
    known = file.with_name(f"{file.name}.sha256")
    if file.exists() and known.exists():
        if _digest(file, "sha256") != known.read_text():
            raise ValueError(f"{file} is not what was downloaded (SHA-256 differs): remove {folder} to fetch it again.")
        return file
    folder.mkdir(parents=True, exist_ok=True)
    archive = _download(name, one.url, folder / f"{Path(one.url).name}.part")
    if one.md5 is not None and _digest(archive, "md5") != one.md5:
        archive.unlink()
        raise ValueError(f"{name}: what {one.url} sent is not what was published (MD5 differs); it was removed.")
    if one.member is not None:
        _take(archive, one.member, file.with_name(f"{file.name}.new"))
        archive.unlink()
        archive = file.with_name(f"{file.name}.new")
    known.write_text(_digest(archive, "sha256"))
    os.replace(archive, file)
    return file


def _download(name: str, url: str, part: Path) -> Path:
    """Fetches the rest of a file that may have been begun."""
    begun = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={begun}-"} if begun else {})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer, open(part, "ab") as file:
            if begun and answer.status != 206:  # the server began anew
                file.truncate(0)
            shutil.copyfileobj(answer, file, 1 << 20)
            expected = answer.headers.get("Content-Length", "")
            before = begun if answer.status == 206 else 0
    except urllib.error.HTTPError as error:
        if error.code == 416 and begun:  # nothing is left to fetch
            return part
        raise ConnectionError(f"{name}: {url} answered {error.code} {error.reason}.") from error
    except (OSError, http.client.HTTPException) as error:  # what answers may not speak HTTP
        raise ConnectionError(
            f"{name}: cannot reach {url} ({error}). Without a network, put the file there yourself, as {part}, and run "
            "this again; a download that broke off goes on where it was."
        ) from error
    if expected.isdecimal() and part.stat().st_size - before < int(expected):
        raise ConnectionError(f"{name}: {url} broke off after {part.stat().st_size} bytes; run this again to go on.")
    return part


def _take(archive: Path, member: str, file: Path) -> None:
    """Copies one file out of a zip archive."""
    try:
        with zipfile.ZipFile(archive) as content, content.open(member) as source, open(file, "wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, KeyError, EOFError, RuntimeError) as error:
        file.unlink(missing_ok=True)
        # Besides damage: a compression that is not known here, or a password.
        raise ValueError(
            f"{archive} has no {member} that can be taken out of it, or is no zip archive ({error}): remove it and try "
            "again."
        ) from error


def _digest(file: Path, kind: str) -> str:
    with open(file, "rb") as content:
        return hashlib.file_digest(content, kind).hexdigest()

"""fmtune.data.download and shelf: whatever the network does, a card's file is there whole and right, or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fmtune.data import shelf, verbs
from fmtune.data.download import TRIES, download
from fmtune.errors import DataError, FmtuneError, ResourceError
from tests.card_fixtures import Site, card_file, pictures, serving, write_card

BODY = np.random.default_rng(0).bytes(300_000)


@pytest.fixture
def site() -> Iterator[Site]:
    with serving() as running:
        running.files["/a.gz"] = BODY
        yield running


class Log(list[tuple[str, int, int]]):
    """What progress was told."""

    def __call__(self, name: str, done: int, size: int) -> None:
        self.append((name, done, size))


def get(site: Site, folder: Path, *urls: str, body: bytes = BODY) -> Log:
    """Download ``a.gz`` from these paths of the site."""
    log = Log()
    addresses = [url if "://" in url else site.url + url for url in urls or ("/a.gz",)]
    download(card_file("a.gz", body, *addresses), folder / "a.gz", log, pause=0)
    return log


def test_a_file_comes_whole_and_its_progress_is_told(site: Site, tmp_path: Path) -> None:
    """The bytes are those of the site, one request brings them, nothing else is left."""
    log = get(site, tmp_path)
    assert (tmp_path / "a.gz").read_bytes() == BODY and [p.name for p in tmp_path.iterdir()] == ["a.gz"]
    assert log[-1] == ("a.gz", len(BODY), len(BODY)) and [done for _, done, _ in log] == sorted(d for _, d, _ in log)
    assert site.asked == [("/a.gz", None)]


@pytest.mark.parametrize("lengths", [True, False])
def test_a_download_that_breaks_off_goes_on_where_it_was(site: Site, tmp_path: Path, lengths: bool) -> None:
    """Each further request asks for what is missing, and none of the bytes comes twice."""
    site.breaks, site.lengths = [100_000, 50_000, 0], lengths
    get(site, tmp_path)
    assert (tmp_path / "a.gz").read_bytes() == BODY
    starts = [int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0 for _, asked in site.asked]
    assert starts == [0, 100_000, 150_000, 150_000]


def test_the_next_run_goes_on_with_what_came(site: Site, tmp_path: Path) -> None:
    """A run that gave up leaves ``.part``; another one asks for the rest only."""
    site.breaks = [200_000, *[0] * TRIES]
    with pytest.raises(ResourceError, match="the connection broke off"):
        get(site, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["a.gz.part"]
    get(site, tmp_path)
    assert (tmp_path / "a.gz").read_bytes() == BODY and site.asked[-1] == ("/a.gz", "bytes=200000-")


def test_a_server_without_ranges_sends_it_again_from_the_start(site: Site, tmp_path: Path) -> None:
    """Its answer of 200 replaces what had come."""
    site.breaks, site.ranges = [100_000], False
    get(site, tmp_path)
    assert (tmp_path / "a.gz").read_bytes() == BODY


def test_a_beginning_of_an_older_file_is_thrown_away(site: Site, tmp_path: Path) -> None:
    """What was resumed and is wrong in the end is fetched once more, whole."""
    (tmp_path / "a.gz.part").write_bytes(b"x" * 1000)
    get(site, tmp_path)
    assert (tmp_path / "a.gz").read_bytes() == BODY
    assert [asked for _, asked in site.asked] == ["bytes=1000-", None]


@pytest.mark.parametrize("size", [len(BODY), len(BODY) + 7])
def test_a_part_of_the_whole_size_is_checked_too(site: Site, tmp_path: Path, size: int) -> None:
    """A full or overlong ``.part`` with other bytes is no reason to stop."""
    (tmp_path / "a.gz.part").write_bytes(b"x" * size)
    get(site, tmp_path)
    assert (tmp_path / "a.gz").read_bytes() == BODY


def test_a_redirection_is_followed_with_the_range(site: Site, tmp_path: Path) -> None:
    """To another server too: the digest decides, not the address."""
    site.breaks = [100_000]
    with serving() as other:
        other.moved["/old.gz"] = site.url + "/a.gz"
        get(site, tmp_path, other.url + "/old.gz")
    assert (tmp_path / "a.gz").read_bytes() == BODY and site.asked[-1] == ("/a.gz", "bytes=100000-")


def test_the_next_address_is_tried(site: Site, tmp_path: Path) -> None:
    """After one that has it not, one that is not there, and one that has another file."""
    site.files["/other.gz"] = BODY[::-1]
    get(site, tmp_path, "/none.gz", "http://127.0.0.1:1/a.gz", "/other.gz", "/a.gz")
    assert (tmp_path / "a.gz").read_bytes() == BODY


def test_an_answer_of_busy_is_asked_again(site: Site, tmp_path: Path) -> None:
    """503 may pass; so may 416, which only says that the rest is not to be had."""
    site.statuses["/a.gz"] = [503, 503]
    get(site, tmp_path)
    (tmp_path / "a.gz.part").write_bytes(b"x")
    site.statuses["/a.gz"] = [416]
    get(site, tmp_path)
    assert (tmp_path / "a.gz").read_bytes() == BODY


REFUSED = {
    "not there": ("/none.gz", ResourceError, "none.gz: 404 Not Found"),
    "nobody listens": ("http://127.0.0.1:1/a.gz", ResourceError, "a.gz: Connection refused"),
    "busy for good": ("/busy.gz", ResourceError, "busy.gz: 503 Service Unavailable"),
    "another file": ("/other.gz", DataError, "what came has another SHA-256 than the card says"),
    "a login page": ("/login.gz", DataError, "it gives something of 20 bytes, the file has 300,000"),
    "without end": ("/long.gz", DataError, "it gives more than the 300,000 bytes of the file"),
    "a redirection to a file": ("/passwd.gz", ResourceError, "Redirection to url 'file:///etc/passwd' is not allowed"),
    "a redirection to ftp": ("/ftp.gz", ResourceError, "unknown url type: ftp"),
    "a redirection in a circle": ("/circle.gz", ResourceError, "infinite loop"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_the_file_is_refused(name: str, site: Site, tmp_path: Path) -> None:
    """The address and the reason are said, and no file is left that could be taken for the right one."""
    path, kind, reason = REFUSED[name]
    site.statuses["/busy.gz"] = [503] * TRIES
    site.lengths = name != "without end"
    site.files |= {"/other.gz": BODY[::-1], "/login.gz": b"<html>log in</html> ", "/long.gz": BODY + BODY}
    site.moved |= {"/passwd.gz": "file:///etc/passwd", "/ftp.gz": "ftp://127.0.0.1/a", "/circle.gz": "/circle.gz"}
    with pytest.raises(kind) as error:
        get(site, tmp_path, path)
    assert str(error.value).startswith("a.gz: it could not be downloaded: http://127.0.0.1:")
    assert reason in str(error.value) and not (tmp_path / "a.gz").exists()


def test_a_place_that_cannot_be_written_is_said(site: Site, tmp_path: Path) -> None:
    """It is no fault of the network, and no further address is tried."""
    (tmp_path / "a.gz.part").mkdir()
    with pytest.raises(ResourceError, match=r"a\.gz\.part: cannot be written: Is a directory"):
        get(site, tmp_path, "/a.gz", "/a.gz")
    assert len(site.asked) == 1


# The shelf.


def test_the_shelf_downloads_once_and_again_what_was_damaged(site: Site, tmp_path: Path) -> None:
    """A second reading asks for nothing; a changed file is fetched anew."""
    files = [card_file("a.gz", BODY, site.url + "/a.gz")]
    for damage, asked in ((False, 1), (False, 1), (True, 2), (False, 2)):
        if damage:
            (tmp_path / "c" / "a.gz").write_bytes(BODY[:-1] + b"?")
        assert shelf.bring("c", files, tmp_path, Log(), pause=0) == {"a.gz": BODY}
        assert len(site.asked) == asked


def test_without_a_network_the_next_step_is_said(tmp_path: Path) -> None:
    """What to download by hand, and how to name it."""
    url = "http://127.0.0.1:1/a.gz"
    with pytest.raises(ResourceError) as error:
        shelf.bring("c", [card_file("a.gz", BODY, url)], tmp_path, Log(), pause=0)
    assert str(error.value) == (
        f"a.gz: it could not be downloaded: {url}: Connection refused\n"
        f"  hint: download {url} by hand, then: fmtune data get c --from a.gz"
    )


def test_a_copy_that_one_has_is_taken(tmp_path: Path) -> None:
    """From their folder, or one by one whatever the name; then nothing is asked of the network."""
    contents = pictures()
    files = [card_file(name, content, "http://127.0.0.1:1/" + name) for name, content in contents.items()]
    cards, home, mine = tmp_path / "cards", tmp_path / "home", tmp_path / "mine"
    write_card(cards, "small", "images", files)
    mine.mkdir()
    for name, content in contents.items():
        (mine / name).write_bytes(content)
    first, *others = contents
    shutil.copy(mine / first, tmp_path / "renamed.gz")
    made = verbs.get("small", tmp_path / "renamed.gz", where=cards, home=home)
    assert made["files"] == {first: "copied", **dict.fromkeys(others, "missing")}
    assert set(verbs.get("small", mine, where=cards, home=home)["files"].values()) == {"copied"}
    assert set(verbs.get("small", where=cards, home=home)["files"].values()) == {"there"}


def test_a_wrong_copy_is_refused(tmp_path: Path) -> None:
    """A file of that name with other bytes, a folder without any, a place that is not there."""
    files = [card_file("a.gz", BODY, "http://x/a.gz")]
    (tmp_path / "a.gz").write_bytes(b"x")
    (tmp_path / "empty").mkdir()
    said = {
        "a.gz": "a.gz: it is not the file of the card c: its SHA-256 is another one\n"
                "  hint: download http://x/a.gz by hand, then: fmtune data get c --from a.gz",
        "empty": "empty: it holds no file of the card c\n  hint: the files are a.gz",
        "none": "none: no such file or folder",
    }  # fmt: skip
    for name, text in said.items():
        with pytest.raises(FmtuneError) as error:
            shelf.take("c", files, tmp_path / "home", tmp_path / name)
        assert text in str(error.value) and isinstance(error.value, DataError)
    assert not (tmp_path / "home").exists()

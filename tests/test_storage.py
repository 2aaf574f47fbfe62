"""A study's database, opened with care or refused, and passwords that no message shows."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage

from fmtune.errors import ResourceError, StorageError
from fmtune.machine import Mount
from fmtune.tune.places import redacted
from fmtune.tune.storage import open_storage, open_to_read, quiet, sqlite_url, warm
from tests.unprivileged import folder, nobody

ASIDE = "  hint: check the file and the place; `--fresh` starts the study anew and keeps the old file aside"
KINDS = (
    "  hint: use sqlite:////FOLDER/FILE.db or postgresql+psycopg://HOST/NAME; "
    "Optuna's journals and gRPC are not read"
)
SERVER = "  hint: check the address, the user and the password, and that the server runs"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://user:secret@host/db", "postgresql://user:***@host/db"),
        ("postgresql://user:se@c:ret@host/db?sslpassword=secret", "postgresql://user:***@host/db?sslpassword=***"),
        ("mysql://host/db?user=u&PASSWORD=secret&x=1", "mysql://host/db?user=u&PASSWORD=***&x=1"),
        ("mysql://host:3306/db?user=u&password=se@cret", "mysql://host:3306/db?user=u&password=***"),
        ("storage: postgresql://:secret@host/db # x", "storage: postgresql://:***@host/db # x"),
        ("sqlite:////tmp/study.db", "sqlite:////tmp/study.db"),
    ],
)
def test_passwords_are_not_shown(text: str, shown: str) -> None:
    """Neither those of the authority nor those of the query; a text around the URL stays."""
    assert redacted(text) == shown


def test_a_sqlite_file_is_opened_in_wal_mode_with_every_commit_synced(tmp_path: Path) -> None:
    """And waits for a lock as long as it says."""
    with open_storage(sqlite_url(tmp_path)).engine.connect() as connection:
        found = [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in
                 ("journal_mode", "synchronous", "busy_timeout")]  # fmt: skip
    assert found == ["wal", 2, 60_000]


def _text(path: Path) -> None:
    path.write_bytes(b"x" * 5000)


def _torn(path: Path) -> None:
    open_storage(f"sqlite:///{path}")
    whole = path.read_bytes()
    path.write_bytes(whole[:8192] + b"\xff" * 4096 + whole[12288:])


def _lacking(path: Path) -> None:
    optuna.create_study(storage=open_storage(f"sqlite:///{path}"))
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE trial_values")


def _empty(path: Path) -> None:
    path.touch()
    (path.parent / "model.fm").touch()


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (_text, "file is not a database"),
        (_torn, "it is damaged: "),
        (_lacking, "it is damaged, or of another version of Optuna: it has no table 'trial_values'"),
        (_empty, "it is empty, though the study beside it has a model"),
    ],
)
def test_a_damaged_file_is_refused(damage: Callable[[Path], None], what: str, tmp_path: Path) -> None:
    """Place, cause, next step, and exit code 4."""
    path = tmp_path / "study.db"
    damage(path)
    with quiet(), pytest.raises(StorageError) as error:
        open_storage(f"sqlite:///{path}")
    first, hint = str(error.value).split("\n")
    assert first.startswith(f"sqlite:///{path}: cannot be opened: {what}") and hint == ASIDE
    assert error.value.exit_code == 4


def test_a_database_in_memory_keeps_nothing() -> None:
    """With and without a name."""
    for url in ("sqlite://", "sqlite:///:memory:"):
        with pytest.raises(StorageError) as error:
            open_storage(url)
        what = "cannot be opened: a database in memory keeps nothing\n  hint: name a file, or leave storage out"
        assert str(error.value) == f"{url}: {what}"


@pytest.mark.parametrize("kind", ["nfs4", "fuse.sshfs"])
def test_a_network_file_system_is_refused(kind: str, tmp_path: Path) -> None:
    """Its locks, and memory that processes share, are not to be trusted; a local disk mounted below it is taken."""
    url, local = sqlite_url(tmp_path), Mount(str(tmp_path), "ext4")
    far = Mount(str(tmp_path.parent), kind)
    with pytest.raises(StorageError) as error:
        open_storage(url, mounts=lambda: [Mount("/", "ext4"), far])
    assert str(error.value) == (
        f"{url}: cannot be opened: it lies on a network file system ({kind}), whose locks sqlite cannot trust\n"
        "  hint: name a local file, `storage: sqlite:////FOLDER/FILE.db`, or a server's database"
    )
    assert not any(tmp_path.iterdir())
    assert open_storage(url, mounts=lambda: [local, far, Mount("/", "ext4")]).get_all_studies() == []


def test_a_full_disk_is_a_lack_of_resources(tmp_path: Path) -> None:
    """Exit code 5, also where the tables are not yet there."""
    url, (connect, _) = sqlite_url(tmp_path), _stumbling(1, "database or disk is full")
    with pytest.raises(ResourceError) as error:
        open_storage(url, connect=connect)
    assert str(error.value) == (
        f"{url}: cannot be opened: no space left on the disk\n"
        "  hint: free some space and run the same command again: finished trials are kept"
    )


def test_a_new_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    """Whoever dies while the tables are made leaves no file; one that another process made meanwhile is taken."""
    path, seen = tmp_path / "study.db", []

    def dies(url: str, **options: Any) -> RDBStorage:
        RDBStorage(url, **options)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_storage(f"sqlite:///{path}", connect=dies)
    assert not list(tmp_path.iterdir())

    def second(url: str, **options: Any) -> RDBStorage:
        seen.append((Path(url.removeprefix("sqlite:///")).parent == tmp_path, path.exists()))
        if len(seen) == 1:
            optuna.create_study(storage=open_storage(f"sqlite:///{path}"), study_name="theirs")
        return RDBStorage(url, **options)

    assert open_storage(f"sqlite:///{path}", connect=second).get_all_studies()[0].study_name == "theirs"
    assert seen == [(False, False), (True, True)]
    with sqlite3.connect(path) as connection, pytest.raises(sqlite3.IntegrityError):
        connection.execute("INSERT INTO studies (study_name) VALUES ('theirs')")


def test_tables_without_rows_may_be_all_that_a_killed_process_made(tmp_path: Path) -> None:
    """Such a file is completed."""
    path = tmp_path / "study.db"
    open_storage(f"sqlite:///{path}")
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE trial_values")
    assert open_storage(f"sqlite:///{path}").get_all_studies() == []


@pytest.mark.parametrize(
    ("url", "shown", "what", "hint"),
    [
        ("postgresql+psycopg://u:s3cret@127.0.0.1:1/db?connect_timeout=2",
         "postgresql+psycopg://u:***@127.0.0.1:1/db?connect_timeout=2", "connection failed: ", SERVER),
        ("postgresql+psycopg://u:s3@cret@127.0.0.1/db", "postgresql+psycopg://u:***@127.0.0.1/db",
         "it has more than one @, or one behind a ?; in a password write them as %40 and %3F", SERVER),
        ("mysql://u:s3cret@127.0.0.1/db", "mysql://u:***@127.0.0.1/db", "",
         "  hint: the database's driver is not installed: pip install mysqlclient"),
        ("nothing://u:s3cret@127.0.0.1/db", "nothing://u:***@127.0.0.1/db",
         "'nothing' is no kind of database that SQLAlchemy knows", KINDS),
        ("journal://", "journal://", "'journal' is no kind of database that SQLAlchemy knows", KINDS),
    ],
)  # fmt: skip
def test_a_server_that_cannot_be_reached_is_named_without_the_password(
    url: str, shown: str, what: str, hint: str
) -> None:
    """Wherever the fault lies."""
    with pytest.raises(StorageError) as error:
        open_storage(url)
    first, last = str(error.value).split("\n")
    assert first.startswith(f"{shown}: cannot be opened: {what}") and last == hint
    assert "s3" not in f"{error.value!r} {first} {last}" and error.value.exit_code == 4


def _stumbling(times: int, words: str) -> tuple[Callable[..., RDBStorage], list[int]]:
    """Return what opens a database, after failing so many times, and the list of its calls."""
    calls: list[int] = []

    def connect(url: str, **options: Any) -> RDBStorage:
        calls.append(len(calls))
        if len(calls) <= times:
            raise StorageInternalError(words)
        return RDBStorage(url, **options)

    return connect, calls


def test_processes_that_make_the_tables_together_try_again(tmp_path: Path) -> None:
    """A stumble is tried again, twenty times in all; another fault is not."""
    url = sqlite_url(tmp_path)
    open_storage(url)
    connect, calls = _stumbling(2, "table studies already exists")
    assert open_storage(url, connect=connect).get_all_studies() == [] and len(calls) == 3
    for times, words, tried in ((99, "database is locked", 20), (1, "another fault", 1)):
        connect, calls = _stumbling(times, words)
        with pytest.raises(StorageError, match=f"cannot be opened: {words}"):
            open_storage(url, connect=connect)
        assert len(calls) == tried


def test_optuna_speaks_again_afterwards() -> None:
    """Its verbosity is put back, also behind an error."""
    before = optuna.logging.get_verbosity()
    with pytest.raises(KeyError), quiet():
        assert optuna.logging.get_verbosity() == optuna.logging.WARNING
        raise KeyError
    assert optuna.logging.get_verbosity() == before


def test_a_server_is_left_as_it_is(tmp_path: Path) -> None:
    """WAL and such are sqlite's alone."""
    made = RDBStorage(sqlite_url(tmp_path))
    assert open_storage("postgresql+psycopg://u:x@host/db", connect=lambda url, **options: made) is made


def test_a_database_opens_while_its_imports_are_under_way(tmp_path: Path) -> None:
    """Begun beforehand, in a thread."""
    warm()
    assert open_storage(sqlite_url(tmp_path)).get_all_studies() == []


ADDRESSES = {
    "sqlite://host/x.db": ("sqlite://host/x.db", "a sqlite URL names no host", "write sqlite:////FOLDER/FILE.db"),
    "sqlite://": ("sqlite://", "a database in memory keeps nothing", "name a file, or leave storage out"),
    "sqlite:///:memory:": ("sqlite:///:memory:", "a database in memory keeps nothing",
                           "name a file, or leave storage out"),
}  # fmt: skip


@pytest.mark.parametrize("url", ADDRESSES)
def test_an_address_that_keeps_nothing_is_refused(url: str) -> None:
    """Before anything is opened; with the next step."""
    shown, what, hint = ADDRESSES[url]
    with pytest.raises(StorageError) as error:
        open_storage(url)
    assert str(error.value) == f"{shown}: cannot be opened: {what}\n  hint: {hint}"


@pytest.mark.parametrize("url", ["mysql://me:s3cret@x@host/db", "mysql://me:s3cret?x@host/db"])
def test_an_address_with_a_password_that_is_not_encoded_is_refused(url: str) -> None:
    """A driver would take the rest of it for the host, and show it."""
    with pytest.raises(StorageError) as error:
        open_storage(url)
    said = "it has more than one @, or one behind a ?; in a password write them as %40 and %3F"
    assert said in str(error.value) and "s3cret" not in str(error.value)


# The modes of the file (None where there is none) and of its folder, and what is said.
CLOSED = [
    (0o000, 0o755, "its file may not be read"),
    (None, 0o555, "its folder may not be written"),
    (0o666, 0o555, "its folder may not be written"),
]


@pytest.mark.parametrize(("file", "around", "said"), CLOSED)
def test_a_place_that_is_closed_is_refused(file: int | None, around: int, said: str) -> None:
    """For want of rights, not as damaged; a folder that is not there is named."""
    with folder() as place:
        path = place / "study.db"
        if file is not None:
            path.touch(file)
            path.chmod(file)
        place.chmod(around)
        with nobody(), pytest.raises(ResourceError) as error:
            open_storage(f"sqlite:///{path}")
        assert str(error.value) == (
            f"sqlite:///{path}: cannot be opened: {said}: permission denied\n"
            "  hint: check the permissions, or name another place"
        )
        with pytest.raises(StorageError) as absent:
            open_storage(f"sqlite:///{place}/none/study.db")
        assert f"there is no folder '{place}/none'\n  hint: make the folder, or name another" in str(absent.value)


def test_a_study_that_may_not_be_written_can_be_read() -> None:
    """A colleague's folder, an archive: nothing is made beside the file, and what waits to be written is told of."""
    with folder() as place:
        path = place / "study #1.db"
        study = optuna.create_study(storage=open_storage(f"sqlite:///{path}"), study_name="one")
        study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=3)
        study._storage._backend.engine.dispose()  # type: ignore[attr-defined]
        for name in ("-wal", "-shm"):
            path.with_name(path.name + name).unlink(missing_ok=True)
        path.chmod(0o444)
        place.chmod(0o555)
        with nobody():
            found = optuna.load_study(storage=open_to_read(f"sqlite:///{path}"), study_name="one")
            assert len(found.trials) == 3 and sorted(p.name for p in place.iterdir()) == [path.name]
            with pytest.raises(StorageError, match="there is no folder"):
                open_to_read(f"sqlite:///{place}/none/study.db")
        place.chmod(0o755)
        path.with_name(path.name + "-wal").write_bytes(b"x" * 100)
        place.chmod(0o555)
        with nobody(), pytest.raises(ResourceError, match="copy the whole folder to a place of your own"):
            open_to_read(f"sqlite:///{path}")


@pytest.mark.parametrize(("table", "said"), [
    ("alembic_version SET version_num = 'v99.0.0.a'", "a newer version of Optuna made its tables\n"
     "  hint: update Optuna: pip install -U optuna"),
    ("alembic_version SET version_num = 'v1.3.0.a'", "an older version of Optuna made its tables\n"
     "  hint: copy the database, then: optuna storage upgrade --storage URL"),
])  # fmt: skip
def test_tables_of_another_optuna_are_told_from_damage(table: str, said: str, tmp_path: Path) -> None:
    """With what to do about each."""
    url = f"sqlite:///{tmp_path / 'study.db'}"
    open_storage(url).engine.dispose()
    with sqlite3.connect(tmp_path / "study.db") as connection:
        connection.execute(f"UPDATE {table}")
    connection.close()
    with pytest.raises(StorageError) as error:
        open_storage(url)
    assert str(error.value) == f"{url}: cannot be opened: {said}"

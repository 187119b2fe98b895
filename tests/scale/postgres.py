"""A PostgreSQL server of its own on 127.0.0.1, from Debian's or any other programs, and its end."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.suite.tracking.tracked_runs import free_port

USER, DATABASE = "suite", "mlflow"
PROGRAMS = ("initdb", "postgres", "pg_isready", "psql")
_START_S = 60.0
#: Accounts of which one runs the server where the tests run as root, which PostgreSQL refuses.
_ACCOUNTS = ("postgres", "nobody")


@dataclass(frozen=True)
class Postgres:
    """A running server.

    password: of its user `suite`, a superuser.
    programs: the folder of psql and others.
    """

    port: int
    password: str
    programs: Path

    def uri(self, database: str = DATABASE, user: str = USER, password: str | None = None) -> str:
        """The address for SQLAlchemy and MLflow."""
        return f"postgresql+psycopg2://{user}:{password or self.password}@127.0.0.1:{self.port}/{database}"

    def sql(self, statement: str, database: str = DATABASE) -> list[str]:
        """Runs a statement; the lines of its answer, columns separated by `|`."""
        command = [str(self.programs / "psql"), "-h", "127.0.0.1", "-p", str(self.port), "-U", USER, "-d", database]
        ended = subprocess.run(
            [*command, "-qAt", "-v", "ON_ERROR_STOP=1", "-c", statement],
            env={**os.environ, "PGPASSWORD": self.password},
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout.splitlines()


def programs() -> Path:
    """The folder of the programs, those on the path or, of the newest version. Fails where there is none."""
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: -int(path.parent.name.split(".")[0]))
    for folder in folders:
        if all((folder / name).exists() for name in PROGRAMS):
            return folder
    raise AssertionError(f"no PostgreSQL programs ({', '.join(PROGRAMS)}): install the package postgresql")


@contextmanager
def postgres(settings: Mapping[str, str] | None = None) -> Iterator[Postgres]:
    """Runs a server with an empty database, with passwords required, in a temporary folder.

    Args:
        settings: further ones of `postgresql.conf`.
    """
    folder = Path(tempfile.mkdtemp(prefix="suite-postgres-"))
    server = Postgres(free_port(), secrets.token_hex(16), programs())
    account = _account()
    try:
        if account:
            shutil.chown(folder, account, pwd.getpwnam(account).pw_gid)
        _initialise(server, folder, account)
        with _running(server, folder, account, settings or {}):
            server.sql(f"create database {DATABASE}", "postgres")
            yield server
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _account() -> str | None:
    """The account of the server; None for this process's own."""
    if os.getuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in _ACCOUNTS if name in known)


def _start(arguments: Sequence[str], account: str | None, log: Path) -> subprocess.Popen[bytes]:
    group = pwd.getpwnam(account).pw_gid if account else None
    with log.open("ab") as out:
        return subprocess.Popen(
            arguments,
            stdout=out,
            stderr=out,
            stdin=subprocess.DEVNULL,
            cwd="/",
            user=account,
            group=group,
            extra_groups=[] if account else None,
            env={"PATH": os.defpath, "LC_ALL": "C"},
        )


def _initialise(server: Postgres, folder: Path, account: str | None) -> None:
    secret, log = folder / "password", folder / "initdb.log"
    secret.write_text(server.password, "utf-8")
    secret.chmod(0o600)
    if account:
        shutil.chown(secret, account)
    options = ["-U", USER, "--auth=scram-sha-256", f"--pwfile={secret}", "--encoding=UTF8", "--no-sync"]
    code = _start([str(server.programs / "initdb"), "-D", str(folder / "data"), *options], account, log).wait(120)
    secret.unlink()
    assert code == 0, log.read_text("utf-8")


@contextmanager
def _running(server: Postgres, folder: Path, account: str | None, settings: Mapping[str, str]) -> Iterator[None]:
    log = folder / "postgres.log"
    every = {"listen_addresses": "127.0.0.1", "port": str(server.port), "unix_socket_directories": "", **settings}
    options = [word for name, value in every.items() for word in ("-c", f"{name}={value}")]
    process = _start([str(server.programs / "postgres"), "-D", str(folder / "data"), *options], account, log)
    try:
        ready = [str(server.programs / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(server.port)]
        deadline = time.monotonic() + _START_S
        while subprocess.run(ready, check=False).returncode != 0:
            assert process.poll() is None, log.read_text("utf-8")
            assert time.monotonic() < deadline, f"PostgreSQL did not start within {_START_S:.0f} s"
            time.sleep(0.1)
        yield
    finally:
        process.send_signal(signal.SIGINT)  # "fast": ends its connections
        process.wait(60)

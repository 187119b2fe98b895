"""`suite doctor --store` against a real PostgreSQL and a real tracking server: each fault is named, with what to do."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import pytest

from suite.tracking.checks.store_checks import check_store
from suite.tracking.store import Store, schema_versions
from tests.scale.commands import faults, suite, use
from tests.suite.tracking.tracked_runs import free_port

pytestmark = [pytest.mark.scale, pytest.mark.timeout(900)]


def test_a_database_that_mlflow_made_passes_every_check(stored, tmp_path):
    found = check_store(tmp_path)
    assert [check.name for check in found if not check.ok] == []
    assert [check.name for check in found] == [
        "connection",
        "schema version",
        "indexes",
        "connection limits",
        "write permission",
        "artifacts",
    ]


def test_a_check_leaves_nothing_in_the_database(stored, database, tmp_path):
    tables = ("experiments", "runs", "metrics", "latest_metrics", "params", "tags")
    count = " union all ".join(f"select count(*) from {table}" for table in tables)
    before = database.sql(count, stored)
    check_store(tmp_path)
    assert database.sql(count, stored) == before


def test_an_empty_database_is_no_fault(database, monkeypatch, tmp_path):
    database.sql("create database fresh")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database.uri("fresh"))
    assert faults(tmp_path) == {}


def test_a_missing_index_is_named_with_the_statement_that_creates_it(stored, database, tmp_path):
    database.sql("drop index index_params_run_uuid", stored)
    [(name, message)] = faults(tmp_path).items()
    assert name == "indexes"
    statement = message.partition("run in SQL: ")[2]
    assert statement == "create index index_params_run_uuid on params (run_uuid)"
    database.sql(statement, stored)
    assert faults(tmp_path) == {}


@pytest.mark.parametrize(("which", "advice"), [("older", "2 before"), ("newer", "newer MLflow")])
def test_another_schema_version_is_named_with_what_to_do(stored, database, tmp_path, which, advice):
    version = schema_versions()[-3] if which == "older" else "ffffffffffff"
    database.sql(f"update alembic_version set version_num = '{version}'", stored)
    [(name, message)] = faults(tmp_path).items()
    assert name == "schema version"
    assert advice in message
    assert database.password not in message


def test_too_few_free_connections_are_a_fault(stored, database, tmp_path):
    database.sql(f"alter database {stored} connection limit 20", "postgres")
    [(name, message)] = faults(tmp_path).items()
    assert name == "connection limits"
    assert message.startswith("20 by the connection limit of the database, 1 in use, 19 free; raise")


def test_a_user_who_may_only_read_is_found_out(stored, database, monkeypatch, tmp_path):
    database.sql("drop role if exists reader", "postgres")
    database.sql("create role reader login password 'only-for-reading'", "postgres")
    database.sql("grant select on all tables in schema public to reader", stored)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database.uri(stored, "reader", "only-for-reading"))
    [(name, message)] = faults(tmp_path).items()
    assert name == "write permission"
    assert message.startswith("permission denied for table experiments; grant reader")
    database.sql("drop owned by reader", stored)
    database.sql("drop role reader", "postgres")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda server: replace(server, port=free_port()).uri(), "no server is running there"),
        (lambda server: server.uri(password="wrong"), "refuses this user or password"),
        (lambda server: server.uri().replace("+psycopg2", ""), "write postgresql+psycopg2://"),
    ],
)
def test_a_database_that_refuses_is_one_finding_of_one_line(database, monkeypatch, tmp_path, change, said):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", change(database))
    [(name, message)] = faults(tmp_path).items()
    assert name == "connection"
    assert said in message
    assert "\n" not in message
    assert database.password not in message


def test_a_database_that_is_away_costs_seconds(database, tmp_path):
    away = replace(database, port=free_port())
    began = time.monotonic()
    with pytest.raises(Exception, match="onnection refused"):
        Store(tmp_path, away.uri()).boards()
    assert time.monotonic() - began < 30


def test_a_server_passes_every_check(server, monkeypatch, tmp_path):
    use(monkeypatch, server.environment())
    for _ in range(2):  # the second time the experiment exists, deleted
        found = json.loads(suite(tmp_path / "runs", "doctor", "--store", "--json"))
        assert [check["name"] for check in found if not check["ok"]] == []
        assert {"connection", "schema version", "indexes", "connection limits", "write permission", "artifacts"} == {
            check["name"] for check in found
        }


def test_a_wrong_password_is_one_finding_and_exit_code_1(server, monkeypatch, tmp_path):
    use(monkeypatch, server.environment(password="this is not the password"))
    [check] = json.loads(suite(tmp_path / "runs", "doctor", "--store", "--json", code=1))
    assert "requires a user and a password" in check["message"]
    assert "MLFLOW_TRACKING_PASSWORD" in check["message"]

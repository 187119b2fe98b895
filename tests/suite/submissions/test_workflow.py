"""The workflow that verifies entries: it can only read, has no secrets, and runs nothing that a contributor wrote."""

from __future__ import annotations

import re
from typing import Any

import yaml

from tests.test_architecture import ROOT

PATH = ROOT / ".github" / "workflows" / "verify.yml"
TEXT = PATH.read_text("utf-8")
WORKFLOW: dict[Any, Any] = yaml.safe_load(TEXT)
STEPS: list[dict[str, Any]] = [step for job in WORKFLOW["jobs"].values() for step in job["steps"]]


def test_it_runs_on_pull_requests_without_the_rights_of_the_base():
    triggers = WORKFLOW[True]  # YAML reads the key `on` as a boolean
    assert set(triggers) == {"pull_request"}
    assert "leaderboards/**" in triggers["pull_request"]["paths"]


def test_its_token_can_only_read():
    assert WORKFLOW["permissions"] == {"contents": "read"}
    assert not [job for job in WORKFLOW["jobs"].values() if "permissions" in job]
    checkouts = [step for step in STEPS if str(step.get("uses", "")).startswith("actions/checkout")]
    assert len(checkouts) == 2
    assert all(step["with"]["persist-credentials"] is False for step in checkouts)


def test_it_names_no_secret():
    assert "secrets" not in re.sub(r"#.*", "", TEXT)
    assert not [job for job in WORKFLOW["jobs"].values() if "secrets" in job or "environment" in job]


def test_the_code_is_the_base_branchs_and_only_data_are_the_contributors():
    refs = {step["with"]["path"]: step["with"] for step in STEPS if "path" in step.get("with", {})}
    assert refs["base"]["ref"] == "${{ github.event.pull_request.base.sha }}"
    assert refs["proposed"]["sparse-checkout"] == "leaderboards"
    commands = [step["run"] for step in STEPS if "run" in step]
    for command in commands:
        assert "${{" not in command, "text of a pull request in a shell"
        assert "--trust-source" not in command
        assert not re.search(r"(cd|pip install|python|bash|sh) +(-\w+ +)*(\./)?proposed", command)
    assert [step["working-directory"] for step in STEPS if "pip install" in step.get("run", "")] == ["base"]
    assert "working-directory" not in next(step for step in STEPS if "suite verify" in step.get("run", ""))


def test_it_replays_and_has_a_time_limit():
    assert any(re.search(r"suite verify proposed/leaderboards --replay \d", step.get("run", "")) for step in STEPS)
    assert all(job["timeout-minutes"] <= 30 for job in WORKFLOW["jobs"].values())

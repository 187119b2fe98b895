"""The list of planted defects does not rot, and the tool reports what it ran."""

from __future__ import annotations

import pytest

from tests.mutants.defect import Defect, same_python
from tests.mutants.defects import AREAS, DEFECTS
from tests.mutants.results import Results, summarise
from tests.mutants.sandbox import ROOT, Sandbox, compile_error, tree_files

NAMES = [f"{defect.file}-{number}" for number, defect in enumerate(DEFECTS)]


@pytest.mark.parametrize("defect", DEFECTS, ids=NAMES)
def test_a_defect_applies_to_its_file_once_and_is_another_program(defect):
    content, planted = (ROOT / defect.file).read_text("utf-8"), defect.planted(ROOT)
    assert planted != content
    if defect.is_python:
        assert not same_python(content, planted)
    else:
        assert all(planted.count(a) == planted.count(b) for a, b in ("()", "[]", "{}"))
    assert defect.tests
    assert all((ROOT / path).exists() for path in defect.test_paths)
    assert "\n" not in defect.why


def test_every_area_has_defects_and_none_is_listed_twice():
    assert AREAS == ("tasks", "kernels", "mixers", "training", "budget", "boards", "commands")
    assert len({(defect.file, defect.text, defect.replacement) for defect in DEFECTS}) == len(DEFECTS) >= 100


@pytest.mark.parametrize("content", ["", "x = 1\nx = 1\n"])
def test_a_text_that_does_not_occur_exactly_once_is_refused(tmp_path, content):
    (tmp_path / "a.py").write_text(content, "utf-8")
    with pytest.raises(ValueError, match="times, not once"):
        Defect("tasks", "a.py", "x = 1", "x = 2", "", ("t",)).planted(tmp_path)


def test_the_score_leaves_out_what_could_not_be_tried():
    verdicts = ["caught", "caught", "caught", "survived", "invalid"]
    found = summarise({"area": "tasks", "verdict": verdict} for verdict in verdicts)
    assert found["score"] == 0.75
    assert (found["caught"], found["survived"], found["invalid"]) == (3, 1, 1)


def test_results_are_read_again_after_a_kill_in_the_middle_of_a_line(tmp_path):
    Results(tmp_path / "r").add("a", {"verdict": "caught"})
    with (tmp_path / "r").open("a") as file:
        file.write('{"key": "b", "resu')
    assert Results(tmp_path / "r").found == {"a": {"verdict": "caught"}}


@pytest.mark.slow
def test_a_defect_is_caught_survives_or_is_invalid_and_the_tree_stays_as_it_is(tmp_path):
    root = tmp_path / "root"
    (root / "tests").mkdir(parents=True)
    (root / "a.py").write_text("x = 1\ny = 1\n", "utf-8")
    (root / "tests" / "test_a.py").write_text("from a import x\n\n\ndef test_x():\n    assert x == 1\n", "utf-8")
    (root / "tests" / "test_none.py").write_text("", "utf-8")
    slow = "import pytest\n\nimport a\n\n\n@pytest.mark.slow\ndef test_y():\n    assert a.y == 1\n"
    (root / "tests" / "test_slow.py").write_text(slow, "utf-8")
    (tmp_path / "box").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "tests.mutants.sandbox.tree_files",
            lambda _: ["a.py", *(f"tests/test_{name}.py" for name in ("a", "none", "slow"))],
        )
        box = Sandbox(tmp_path / "box", root)
    tried = [
        box.try_defect(Defect("tasks", "a.py", text, "z = 2", "", (tests,)), 100)["verdict"]
        for text, tests in (
            ("x = 1", "tests/test_a.py"),
            ("y = 1", "tests/test_a.py"),
            ("w = 1", "tests/test_a.py"),
            ("x = 1", "tests/test_none.py"),
            ("y = 1", "tests/test_slow.py"),
            ("y = 1", "tests/test_slow.py::test_y"),
        )
    ]
    assert tried == ["caught", "survived", "invalid", "invalid", "invalid", "caught"]
    assert (root / "a.py").read_text("utf-8") == (box.tree / "a.py").read_text("utf-8") == "x = 1\ny = 1\n"


@pytest.mark.slow
def test_sources_in_cpp_compile_with_their_defects(tmp_path):
    folder = tmp_path / "kernels" / "cpu"
    folder.mkdir(parents=True)
    for name in tree_files():
        if name.startswith("kernels/"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    for defect in (defect for defect in DEFECTS if not defect.is_python):
        (tmp_path / defect.file).write_text(defect.planted(ROOT), "utf-8")
        assert compile_error(tmp_path / defect.file) == "", defect
        (tmp_path / defect.file).write_bytes((ROOT / defect.file).read_bytes())

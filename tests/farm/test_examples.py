"""The farm's examples: each comes to the same by one switch, wherever its tasks run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import support

EXAMPLES = sorted((support.ROOT / "examples" / "farm").glob("[!_]*.py"))
WHERE = [
    "sequential",
    "cores",
    pytest.param("ssh", marks=pytest.mark.slow),
]


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_checks_its_results_wherever_it_runs(
    example: Path, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONWARNINGS", "always::ResourceWarning")
    result = support.run_program(example, "--on", where, cwd=tmp_path)
    assert result.stderr == ""
    assert result.returncode == 0
    assert 1 <= len(result.stdout.splitlines()) <= 10

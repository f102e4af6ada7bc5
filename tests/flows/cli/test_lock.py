"""The lock is what is installed, less what would tie it to this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli import lock
from components.errors import SetupError

PROJECT = Path(__file__).parents[3] / "pyproject.toml"
COMMITTED = PROJECT.with_name("requirements.lock")


def test_it_reproduces_the_committed_file(tmp_path: Path) -> None:
    lock.write(tmp_path / "requirements.lock", lock.freeze(), lock.runtime(PROJECT))

    assert (tmp_path / "requirements.lock").read_bytes() == COMMITTED.read_bytes()


def test_a_build_of_torch_leaves_no_trace() -> None:
    frozen = ["numpy==2.4.6", "nvidia-cudnn-cu13==9.1", "cuda-bindings==13.0", "torch==2.13.0+cu130", "triton==3.7.0"]

    assert list(lock.lines(frozen)) == ["numpy==2.4.6", "torch==2.13.0"]


def test_what_only_tests_ask_for_stands_at_the_end() -> None:
    run, tests = COMMITTED.read_text().split(lock.TESTS_ALONE)

    for name in ("torch", "boto3", "s3fs", "setuptools", "ruamel.yaml"):
        assert f"\n{name}==" in run
    for name in ("moto", "cfn-lint", "pytest", "ruff", "mypy", "hypothesis"):
        assert f"\n{name}==" in f"\n{tests}"


@pytest.mark.parametrize("line", ["thing @ file:///home/me/thing", "-e git+https://example.org/thing"])
def test_what_no_registry_has_is_refused_and_the_old_lock_stands(tmp_path: Path, line: str) -> None:
    file = tmp_path / "requirements.lock"
    file.write_text("old")

    with pytest.raises(SetupError, match="not a released version"):
        lock.write(file, ["numpy==2.4.6", line], {"numpy"})

    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("requirements.lock", "old")]

"""The verbs, with the configuration that a module's TOML says."""

from pathlib import Path

import pytest

from tests.cli.terminal import Verbs


@pytest.fixture
def verbs(request: pytest.FixtureRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Verbs:
    path = tmp_path / "nexus.toml"
    path.write_text(request.module.TOML)
    return Verbs(path, capsys)

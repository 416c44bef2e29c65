"""Other gateways are the ones that the report names."""

from pathlib import Path

import pytest

from tests.bench import peers
from tests.bench.peers import LiteLLM
from tests.bench.systems import Place


def test_another_release_that_was_kept_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    binaries = set()
    for version in ("1.0", "2.0"):
        monkeypatch.setattr(peers, "LITELLM_VERSION", version)
        peer = LiteLLM(Place(tmp_path, 9, 0), lambda _: None)
        peer.port = 9
        binaries.add(peer.command()[0])
    assert len(binaries) == 2

"""The catalogue of failures by the ids that tests name: `python -m tests.faults.index` writes README.md beside it.

Strategy: a test's name is `test_<ids>_<sentence>`; the sentences are the explanation, so it cannot go stale.
"""

import re
from collections import defaultdict
from pathlib import Path
from typing import Final

TESTS: Final = Path(__file__).parents[1]
PAGE: Final = Path(__file__).with_name("README.md")
GROUPS: Final = {
    "a": "Bad input",
    "b": "A provider's faults",
    "c": "A client's faults",
    "d": "Our own faults",
    "e": "Money",
    "f": "Security",
}
_TEST: Final = re.compile(r"def test((?:_[a-f]\d+)+)_(\w+)\(")
_HEAD: Final = """# What can go wrong, by id

Tests carry the ids of the failures that they prove something about: `test_b18_…`. An id is a letter for the group and a
number that never changes; a missing number has no test yet. Each test's sentence is listed below.

What a request must leave in the ledger has a code, too, in [tests/rig/house.py](../rig/house.py): **L0** no hold and
no charge; **LR** a hold that was voided; **LX** one post, exactly the price of the reported usage; **LE** one post, an
estimate above 0 and not above the hold; **LO** a hold that stays open until a recovery. What must be true of a ledger
at any moment, `I1` and so on, stands in [tests/rig/invariants.py](../rig/invariants.py); `I7` and `I8`, which need the
provider's and the client's word, in [tests/rig/kill_loop.py](../rig/kill_loop.py).

Written by `python -m tests.faults.index`.
"""


def page() -> str:
    """Return the text of README.md."""
    found: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for path in sorted(TESTS.rglob("test_*.py")):
        for ids, sentence in _TEST.findall(path.read_text("utf-8")):
            for one in ids.strip("_").split("_"):
                found[one].append((sentence.replace("_", " "), path.relative_to(TESTS).as_posix()))
    lines = [_HEAD]
    for letter, group in GROUPS.items():
        lines += [f"## {letter}: {group}", "", "| id | tested | in |", "|---|---|---|"]
        for one in sorted((one for one in found if one[0] == letter), key=lambda one: int(one[1:])):
            lines += [f"| {one} | {sentence} | {path} |" for sentence, path in found[one]]
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)

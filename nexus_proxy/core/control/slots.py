"""A bounded number of slots: a limit on everything that could otherwise pile up."""

from collections.abc import Callable


class Slots:
    """How many slots there are, and how many are taken. `observe` is told when that changes."""

    __slots__ = ("_observe", "most", "taken")

    def __init__(self, most: int, observe: Callable[[int], None] | None = None) -> None:
        self.most = most
        self.taken = 0
        self._observe = observe

    def enter(self, number: int = 1) -> bool:
        """Take slots, or tell that there are not as many."""
        taken = self.taken + number
        if taken > self.most:
            return False
        self.taken = taken
        if self._observe is not None:
            self._observe(taken)
        return True

    def leave(self, number: int = 1) -> None:
        """Give slots back."""
        taken = self.taken - number
        assert 0 <= taken <= self.taken
        self.taken = taken
        if self._observe is not None:
            self._observe(taken)

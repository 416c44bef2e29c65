"""The tests. A package only so that `tests.rig` has one name everywhere; the directories of tests are none."""

"""When an upgraded replica must not become the master."""

import pytest

from rollout.domain.withholding import Copy, must_withhold

OLD, NEW = 1, 2


def copy(version=OLD, *, serves=True):
    return Copy(version=version, serves=serves)


AWAY = copy(serves=False)


@pytest.mark.parametrize(
    ("master", "others", "waits_for_person", "expected"),
    [
        (copy(), [copy()], False, True),
        # the master has the same version: after a failover, and in a rollback of a shard whose master was never changed
        (copy(NEW), [copy()], True, False),
        # no other replica could take over
        (copy(), [], False, False),
        (copy(), [AWAY], False, False),
        (copy(), [copy(NEW), copy(NEW)], False, False),
        (copy(), [copy(NEW), copy()], False, True),
        # the master is away, and the replica with its version takes over
        (AWAY, [copy()], False, True),
        (AWAY, [], True, False),
        # a person must accept first that there is no way back, while the master serves
        (copy(), [], True, True),
        (copy(), [AWAY], True, True),
        (copy(), [copy(NEW)], True, True),
        # a third version, and none, are not the former one
        (copy(), [copy(3), copy(None)], False, False),
        # a master that is no node: any other version may be its version
        (None, [copy()], False, True),
        (None, [AWAY, copy(NEW), copy(None)], True, False),
    ],
)
def test_must_withhold(master, others, waits_for_person, expected):
    assert must_withhold(NEW, master, others, waits_for_person=waits_for_person) is expected


def test_never_all_replicas():
    """Whatever the versions are: at most one version can be withheld less than all, while no person is asked."""
    versions = (1, 2, 3, None)
    for master in versions:
        for b in versions[:3]:
            for c in versions[:3]:
                top = copy(master)
                withheld = [
                    must_withhold(own, top, [copy(other)], waits_for_person=False) for own, other in ((b, c), (c, b))
                ]
                assert not all(withheld)

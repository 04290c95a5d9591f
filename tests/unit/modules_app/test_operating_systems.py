"""Names of operating systems, and which builds fit a node."""

import pytest

from modules_app.operating_systems import fitting_platforms, operating_system


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("rhel9", "rhel9"),
        ("rhel9.4", "rhel9"),
        ("Rocky 9.3", "rhel9"),
        ("centos7", "rhel7"),
        ("ol8.9", "rhel8"),
        ("ubuntu18.04", "ubuntu18"),
        ("debian12", "debian12"),
        ("amzn2023", "amzn2023"),
        ("opensuse-leap15.6", "opensuse-leap15"),
        ("arch", "arch"),
        ("Linux", "linux"),
        ("", ""),
        ("9", ""),
        ("rhel9/x86_64", ""),
        ("x" * 33, ""),
    ],
)
def test_it_is_a_distribution_and_its_major_version(name, known):
    assert operating_system(name) == known
    assert operating_system(known) == known


def test_the_build_for_its_operating_system_comes_first():
    assert fitting_platforms("linux/x86_64", "rhel9") == ("rhel9/x86_64", "linux/x86_64")


def test_a_node_that_does_not_say_fits_no_build_that_asks():
    assert fitting_platforms("linux/x86_64", "") == ("linux/x86_64",)

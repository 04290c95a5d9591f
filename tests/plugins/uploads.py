"""Packages of the sample module for whole clusters. `fleet` is a fixture of the tests that use them."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fleet import Fleet, sample

_versions = itertools.count(20000)


@pytest.fixture
def package(tmp_path: Path) -> Callable[..., tuple[int, Path]]:
    """Builds a package of a version of greet that no other test has: `package()` is its version and path."""

    def build(**options: Any) -> tuple[int, Path]:
        version = next(_versions)
        return version, sample(tmp_path, version, **options)

    return build


@pytest.fixture
def uploaded(fleet: Fleet, package: Callable[..., tuple[int, Path]]) -> Callable[..., int]:
    """Version of a package that has been uploaded."""

    def upload(**options: Any) -> int:
        version, path = package(**options)
        assert fleet.upload(path).status_code == 201
        return version

    return upload

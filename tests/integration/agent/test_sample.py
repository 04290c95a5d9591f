"""The sample module, as an operator would build and look at it."""

import hashlib
import json
import zipfile

import pytest

from modfleet.sample import SampleError, build_sample


def test_it_works(tmp_path):
    path = build_sample(tmp_path / "out", version=10203)
    assert list((tmp_path / "out").iterdir()) == [path]
    with zipfile.ZipFile(path) as package:
        assert sorted(package.namelist()) == ["greet.so", "module.json"]
        metadata = json.loads(package.read("module.json"))
        assert metadata["sha256"] == hashlib.sha256(package.read("greet.so")).hexdigest()
    assert (metadata["module_name"], metadata["version"], metadata["semantic_version"]) == ("greet", 10203, "1.2.3")


def test_a_missing_compiler_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SampleError, match=r"^No C compiler\. "):
        build_sample(tmp_path)

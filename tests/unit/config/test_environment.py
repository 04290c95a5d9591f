"""The control plane's settings from its environment."""

import pytest

from config.environment import SettingsError, read_environment, secret_key


@pytest.mark.parametrize("name", ["secret_key", "database_url", "broker_url", "storage_options", "max_upload_bytes"])
def test_any_setting_may_come_from_a_file(tmp_path, name):
    path = tmp_path / name
    path.write_text("17\n")
    found = read_environment({f"MODFLEET_{name.upper()}_FILE": str(path)})
    assert str(getattr(found, name)) == "17"


def test_a_file_keeps_all_but_the_end_of_its_last_line(tmp_path):
    path = tmp_path / "key"
    path.write_bytes(b" a b \r\n")
    assert secret_key(read_environment({"MODFLEET_SECRET_KEY_FILE": str(path)})) == " a b "


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(SettingsError, match=r"^MODFLEET_SECRET_KEY_FILE=.*/none cannot be read: .*No such file"):
        read_environment({"MODFLEET_SECRET_KEY_FILE": str(tmp_path / "none")})


def test_both_ways_at_once_are_refused(tmp_path):
    (tmp_path / "key").touch()
    both = {"MODFLEET_SECRET_KEY": "a", "MODFLEET_SECRET_KEY_FILE": str(tmp_path / "key")}
    with pytest.raises(SettingsError, match="are both set"):
        read_environment(both)


def test_what_is_wrong_in_a_file_is_named_without_its_content(tmp_path):
    path = tmp_path / "number"
    path.write_text("many")
    with pytest.raises(SettingsError) as raised:
        read_environment({"MODFLEET_MAX_UPLOAD_BYTES_FILE": str(path)})
    assert "MODFLEET_MAX_UPLOAD_BYTES" in str(raised.value)
    assert "many" not in str(raised.value)

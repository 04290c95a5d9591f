"""The control plane's settings from its environment."""

import pytest

from config.environment import SettingsError, database, pooled, read_environment, secret_key


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


def test_a_pool_of_the_size_that_is_set():
    read = read_environment(
        {
            "MODFLEET_DATABASE_URL": "postgresql://u:p@h/d?sslmode=require&options=-c%20work_mem%3D8MB",
            "MODFLEET_DATABASE_POOL_SIZE": "5",
            "MODFLEET_DATABASE_POOL_SECONDS": "1.5",
            "MODFLEET_DATABASE_LOCK_SECONDS": "2",
        }
    )
    alone, shared = database(read), pooled(database(read), read)
    assert alone["OPTIONS"]["options"] == "-c lock_timeout=2000 -c work_mem=8MB"
    assert (alone["OPTIONS"]["sslmode"], alone["CONN_MAX_AGE"], "pool" in alone["OPTIONS"]) == ("require", 600, False)
    assert (shared["OPTIONS"]["pool"]["max_size"], shared["OPTIONS"]["pool"]["timeout"]) == (5, 1.5)
    assert shared["CONN_MAX_AGE"] == 0


def test_sqlite_has_no_pool():
    read = read_environment({"MODFLEET_DATABASE_LOCK_SECONDS": "2"})
    assert pooled(database(read), read) == database(read)
    assert database(read)["OPTIONS"]["timeout"] == 2


def test_a_pool_of_nothing():
    with pytest.raises(SettingsError, match="MODFLEET_DATABASE_POOL_SIZE=0"):
        read_environment({"MODFLEET_DATABASE_POOL_SIZE": "0"})

"""The names of the log in databases and backups: running processes and old backups have them too."""

from eventstore.conf import Conf, conf


def test_they_stay():
    assert conf() == Conf(channel="modfleet_log", append_lock=0x6D6F6466, backup_format="modfleet-log")

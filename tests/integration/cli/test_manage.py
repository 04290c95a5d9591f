"""`modfleet-manage` with commands that need a log: asked of the database that the tests run on."""

import pytest
from django.db import connection

from modfleet.manage import refuse_without_a_log

pytestmark = [pytest.mark.django_db, pytest.mark.dialect]


def test_a_log_is_there():
    refuse_without_a_log()


def test_no_log_is_there(capsys):
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE eventstore_event RENAME TO elsewhere")
    with pytest.raises(SystemExit) as refused:
        refuse_without_a_log()
    assert refused.value.code == 2
    assert "has no log yet" in capsys.readouterr().err

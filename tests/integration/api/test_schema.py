"""The API's documents."""

from django.core.management import call_command


def test_they_are_sound(tmp_path):
    call_command("spectacular", validate=True, fail_on_warn=True, file=str(tmp_path / "schema.yml"))
    assert "/v2/local/modules/user-defined/artifacts" in (tmp_path / "schema.yml").read_text()

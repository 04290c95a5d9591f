"""What other apps know that forbids the deletion of an artifact."""

from modules_app.vetoes import Vetoes

#: Asked with name and version.
DELETION: Vetoes[[str, int]] = Vetoes()

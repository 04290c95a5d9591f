from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from eventstore import projections


class Command(BaseCommand):
    help = "Rebuild the read models from the log, each in one transaction."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("names", nargs="*", metavar="projection", help="which ones; all if none is named")
        parser.add_argument("--check", action="store_true", help="change nothing; exit with 1 if a rebuild would")

    def handle(self, *_: Any, **options: Any) -> None:
        chosen = {each.name: each for each in projections.registered()}
        if unknown := set(options["names"]) - chosen.keys():
            raise CommandError(f"no projection {', '.join(sorted(unknown))}; there are {', '.join(sorted(chosen))}")
        for name in options["names"] or chosen:
            if not options["check"]:
                self.stdout.write(f"{name}: rebuilt from {projections.rebuild(chosen[name])} events")
            elif differences := projections.check(chosen[name]):
                raise CommandError(f"{name}: " + "\n".join(differences[:20]))
            else:
                self.stdout.write(f"{name}: equals its rebuild")

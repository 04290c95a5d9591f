from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from eventstore import projections
from eventstore.management.telling import Telling


class Command(BaseCommand):
    help = "Rebuild the read models from the log, each in one transaction: those that an upgrade has made stale."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("names", nargs="*", metavar="projection", help="which ones, stale or not")
        parser.add_argument("--all", action="store_true", help="all of them, stale or not")
        parser.add_argument(
            "--check", action="store_true", help="change nothing; exit with 1 if a rebuild of any would"
        )
        parser.add_argument("--json", action="store_true", help="answer in JSON, one line for each projection")

    def handle(self, *_: Any, **options: Any) -> None:
        telling = Telling(self, as_json=options["json"])
        chosen = {each.name: each for each in projections.registered()}
        if unknown := set(options["names"]) - chosen.keys():
            raise telling.refusal(
                CommandError(f"no projection {', '.join(sorted(unknown))}; there are {', '.join(sorted(chosen))}")
            )
        names = options["names"] or (chosen if options["all"] or options["check"] else projections.stale_projections())
        if not names:
            telling.answer("No projection needs a rebuild; --all rebuilds each of them", rebuilt=0)
        for name in names:
            if not options["check"]:
                count = projections.rebuild(chosen[name], told=telling.count)
                telling.answer(f"{name}: rebuilt from {count} events", projection=name, events=count)
            elif differences := projections.check(chosen[name]):
                error = CommandError(f"{name}: " + "\n".join(differences[:20]))
                raise telling.refusal(error, projection=name, differences=len(differences))
            else:
                telling.answer(f"{name}: equals its rebuild", projection=name, differences=0)

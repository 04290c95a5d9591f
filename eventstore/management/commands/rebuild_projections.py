from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from eventstore import projections
from eventstore.management.output import Output, events_in_words


class Command(BaseCommand):
    help = "Rebuild projections from the log, each in one transaction. By default those that an upgrade has made stale."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("names", nargs="*", metavar="projection", help="rebuild these, stale or not")
        parser.add_argument("--all", action="store_true", help="rebuild all, stale or not")
        parser.add_argument(
            "--check", action="store_true", help="change nothing; exit with 1 if a rebuild would change a row"
        )
        parser.add_argument(
            "--json", action="store_true", help="print the result as JSON, one line for each projection"
        )

    def handle(self, *_: Any, **options: Any) -> None:
        output = Output(self, as_json=options["json"])
        chosen = {each.name: each for each in projections.registered()}
        if unknown := set(options["names"]) - chosen.keys():
            raise output.failure(
                CommandError(
                    f"no projection {', '.join(sorted(unknown))}. The projections are: {', '.join(sorted(chosen))}"
                )
            )
        names = options["names"] or (chosen if options["all"] or options["check"] else projections.stale_projections())
        if not names:
            output.result("No projection needs a rebuild. Use --all to rebuild all of them.", rebuilt=0)
        for name in names:
            if not options["check"]:
                count = projections.rebuild(chosen[name], progress=output.progress)
                output.result(f"{name}: rebuilt from {events_in_words(count)}", projection=name, events=count)
            elif differences := projections.check(chosen[name]):
                error = CommandError(f"{name}: " + "\n".join(differences[:20]))
                raise output.failure(error, projection=name, differences=len(differences))
            else:
                output.result(f"{name}: a rebuild changes nothing", projection=name, differences=0)

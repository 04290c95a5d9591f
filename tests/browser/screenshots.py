"""Pictures of the console's pages into `docs/screenshots`: of three nodes that really run, and of a thousand recorded.

python -m tests.browser.screenshots
"""

import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, FloatRect, ViewportSize, expect

from tests.browser.chromium import running_browser
from tests.browser.conftest import log_in
from tests.browser.pictures import smaller
from tests.fleet import PASSWORD, Fleet, Up, remove_folder, sample, short_folder
from tests.waiting import wait_for

PICTURES = Path(__file__).parents[2] / "docs" / "screenshots"
SIZE: ViewportSize = {"width": 1360, "height": 900}
#: Beyond this a picture is cut, pixels: the lists of a thousand nodes are long.
TALLEST = 1500


def main() -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    # The browser runs last: where it does, Django takes every call of its own for an asynchronous one.
    for count, fleet in {"3": three_nodes, "1000": a_thousand_nodes}.items():
        with fleet() as (url, pages), running_browser() as browser:
            take(browser, url, count, pages)


def take(browser: Browser, url: str, count: str, pages: Mapping[str, str]) -> None:
    context = browser.new_context(base_url=url, viewport=SIZE, color_scheme="light", reduced_motion="reduce")
    page = context.new_page()
    page.set_default_timeout(60_000)
    log_in(page, "admin")
    for name, path in pages.items():
        page.emulate_media(color_scheme="dark" if name.endswith("-dark") else "light")
        page.goto(path)
        expect(page.locator("h1")).to_be_visible()
        page.evaluate("document.fonts.ready.then(() => null)")
        height = page.evaluate("document.documentElement.scrollHeight")
        clip: FloatRect = {"x": 0, "y": 0, "width": SIZE["width"], "height": min(height, TALLEST)}
        shot = PICTURES / f"{name}-{count}.png"
        shot.write_bytes(smaller(page, page.screenshot(full_page=True, clip=clip)))
        sys.stdout.write(f"{shot.relative_to(PICTURES.parents[1])}\n")
    context.close()


# --- Three nodes that run ---------------------------------------------------------------------------------------------


@contextmanager
def three_nodes() -> Iterator[tuple[str, dict[str, str]]]:
    folder = short_folder()
    up = Up(folder / "data", "--no-sample", output=folder)
    try:
        with (fleet := Fleet(up)).api:
            yield fleet.url, story_of_three(fleet, folder)
        up.end()
    finally:
        up.sweep()
        remove_folder(folder)


def story_of_three(fleet: Fleet, folder: Path) -> dict[str, str]:
    """A version that is everywhere, one whose canary has failed, and one that waits at a gate."""
    for version, picky in ((1, False), (2, False), (3, True)):
        assert fleet.upload(sample(folder, version, picky=picky)).is_success
    done = fleet.carry_out(1, strategy={})["uid"]
    fleet.refuse_to_load("node-1")
    failed = fleet.start(3, strategy={})
    wait_for(lambda: fleet.rollout(failed)["phase"] == "paused")
    fleet.post(f"/v2/rollouts/{failed}/rollback")
    fleet.end_of(failed)
    gated = fleet.start(2, strategy={"gate": "manual", "soak_seconds": 0})
    fleet.wait_for_wave(gated, 0, "gated")
    return {
        "home": "/admin/",
        "home-dark": "/admin/",
        "start": "/admin/rollouts/start?module=greet&version=1&supersede=on",
        "rollout": page_of(gated),
        "rollout-dark": page_of(gated),
        "rollout-failed": page_of(failed),
        "rollout-ended": page_of(done),
        "confirm": f"/admin/rollouts/{gated}/promote",
        "rollouts": "/admin/rollout/rollout/",
        "module": "/admin/modules/greet",
        "upload": "/admin/upload",
        "node": "/admin/rollout/node/node-1/change/",
        "events": "/admin/eventstore/storedevent/",
        "freeze": "/admin/freeze",
    }


# --- A thousand recorded ----------------------------------------------------------------------------------------------


@contextmanager
def a_thousand_nodes() -> Iterator[tuple[str, dict[str, str]]]:
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {
            "MODFLEET_DATA_DIR": folder,
            "MODFLEET_ADMIN_PASSWORD": PASSWORD,
            "MODFLEET_ALLOWED_HOSTS": "127.0.0.1",
            "DJANGO_SETTINGS_MODULE": "config.settings",
        }
        import django

        django.setup()
        from django.core.management import call_command
        from django.db import connections

        call_command("migrate", verbosity=0)
        call_command("bootstrap", verbosity=0)
        pages = story_of_a_thousand()
        connections.close_all()
        from tests.plugins.server import serving

        with serving(dict(os.environ), Path(folder)) as server:
            yield f"http://127.0.0.1:{server.port}", pages


def story_of_a_thousand() -> dict[str, str]:
    """In the third wave, with nodes that failed, that are at work, and that are yet to come."""
    from eventstore import acting_as, person
    from rollout.delivery import ingestion
    from rollout.domain.retries import Retries
    from rollout.messages import Phase, Reason
    from rollout.models import Operation
    from rollout.process.advance import advance
    from tests.recorded_fleet import fleet, report_of, start, upload

    fleet(1000)
    upload(version=2, content="c2")
    careful = {"canary": 10, "waves": ("10%", "30%"), "max_failures": 40, "retries": Retries(limit=0)}
    with acting_as(person("olivia")):
        uid = start(careful=careful, max_parallel=80)
    ended = 0
    while ended < 300:
        queued = list(Operation.objects.filter(rollout=uid, phase=Phase.QUEUED).values_list("node", flat=True))
        reports = []
        for node in queued:
            ended += 1
            bad = ended > 20 and ended % 29 == 0
            reason = [Reason.LOAD_FAILED, Reason.DISK_FULL][ended % 2]
            more = {"reason": reason, "message": "the server said no"} if bad else {}
            seconds = 0.4 + (ended * 37 % 100) / 60
            reports.append(report_of(uid, node, Phase.FAILED if bad else Phase.SUCCEEDED, seconds=seconds, **more))
        ingestion.record_reports(reports)
        advance(uid)
    queued = list(Operation.objects.filter(rollout=uid, phase=Phase.QUEUED).values_list("node", flat=True))
    phases = [Phase.FETCHING, Phase.INSTALLING, Phase.LOADING, Phase.PROBING]
    ingestion.record_reports([report_of(uid, node, phases[at % 4]) for at, node in enumerate(queued[:60])])
    return {
        "home": "/admin/",
        "rollout": page_of(uid),
        "rollout-dark": page_of(uid),
        "start": "/admin/rollouts/start?module=greet&version=2&supersede=on",
        "rollouts": "/admin/rollout/rollout/",
        "module": "/admin/modules/greet",
        "nodes": "/admin/rollout/node/",
        "events": "/admin/eventstore/storedevent/",
    }


def page_of(uid: str) -> str:
    return f"/admin/rollout/rollout/{uid}/change/"


if __name__ == "__main__":
    main()

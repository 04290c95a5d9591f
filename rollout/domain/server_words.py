"""The one line of a server's log that tells why it failed. Failures are grouped by it."""

import re
from collections.abc import Sequence

#: The server's own last word about a module. What the module itself has logged stands before it.
_VERDICT = re.compile(
    r"Module \S+ (failed to load: |initialization failed|does not export )|unload blocked: |Error unloading "
)
#: The signal or the assertion of a crash report. Other lines of it differ from node to node, such as addresses.
_CRASH = re.compile(r"crashed by signal: \d+|Guru Meditation|ASSERTION FAILED")
_LEVEL = re.compile(r"^[-.*#] ")
_OWN_WORDS = re.compile(r"^# <[^>]*> (.+)")
#: A file that the dynamic linker names twice, and where a crash has happened.
_REPEATED = re.compile(r"^Module (\S+) failed to load: (?:\1: )?")


def telling_line(lines: Sequence[str]) -> str:
    """Return the crash, else the module's last warning before the server's verdict, else the verdict; empty if there is
    none of them."""
    if crash := next((each for each in lines if _CRASH.search(each)), ""):
        return _LEVEL.sub("", crash)
    verdict = next((place for place, each in enumerate(lines) if _VERDICT.search(each)), None)
    if verdict is None:
        return ""
    own = [found[1] for each in lines[:verdict] if (found := _OWN_WORDS.search(each))]
    line = _LEVEL.sub("", lines[verdict])
    if own and "initialization failed" in line:
        return own[-1]
    return _REPEATED.sub("", line)

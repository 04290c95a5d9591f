"""What was simulated is said at the end, also when several processes have shared the work."""

from typing import Any


def pytest_terminal_summary(terminalreporter: Any) -> None:
    reports = [each for found in ("passed", "failed") for each in terminalreporter.stats.get(found, ())]
    counts = [dict(each.user_properties)["simulated"] for each in reports if "simulated" in dict(each.user_properties)]
    if counts:
        rollouts, steps, seconds = (sum(each) for each in zip(*counts, strict=True))
        terminalreporter.write_line(f"simulated {rollouts:,} rollouts, {steps:,} steps, {steps / seconds:,.0f} steps/s")

"""The one line that tells why."""

import pytest

from rollout.domain.server_words import telling_line

NOT_LOADED = "# Module /m/floor/1/floor.so initialization failed. Module not loaded."
TELLING = [
    ((), ""),
    (("* Background saving started by pid 7",), ""),
    (
        ("* <floor> starting", "# <floor> Floor requires redis-server 7.2", NOT_LOADED),
        "Floor requires redis-server 7.2",
    ),
    (
        ("# <floor> a setting is deprecated", "# <floor> Floor requires redis-server 7.2", NOT_LOADED, "# <old> again"),
        "Floor requires redis-server 7.2",
    ),
    ((NOT_LOADED,), "Module /m/floor/1/floor.so initialization failed. Module not loaded."),
    (("* <floor> starting", NOT_LOADED), "Module /m/floor/1/floor.so initialization failed. Module not loaded."),
    (("# Module /m/f.so failed to load: /m/f.so: undefined symbol: nowhere",), "undefined symbol: nowhere"),
    (
        ("# Module /m/f.so failed to load: libx.so: cannot open shared object file: No such file or directory",),
        "libx.so: cannot open shared object file: No such file or directory",
    ),
    (
        ("# Module /m/f.so does not export RedisModule_OnLoad() symbol. Module not loaded.",),
        "Module /m/f.so does not export RedisModule_OnLoad() symbol. Module not loaded.",
    ),
    (
        ("# <floor> hello", "# Redis 7.0.15 crashed by signal: 11, si_code: 2", "# Accessing address: 0x7f0b"),
        "Redis 7.0.15 crashed by signal: 11, si_code: 2",
    ),
]


@pytest.mark.parametrize(("lines", "line"), TELLING)
def test_it_tells(lines, line):
    assert telling_line(lines) == line

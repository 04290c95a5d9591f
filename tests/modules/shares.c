/* A module that exports a function; `borrows` uses it. Servers refuse to unload it while `borrows` is loaded. */
#include "module.h"

static int (*export_shared_api)(void *, const char *, void *);

static int answer(void) { return VERSION; }

int RedisModule_OnLoad(void *context, void **words, int count) {
    (void)words, (void)count;
    return begin(context, "shares", VERSION) || lacks(context, "RedisModule_ExportSharedAPI", &export_shared_api) ||
           export_shared_api(context, "shares_answer", (void *)answer);
}

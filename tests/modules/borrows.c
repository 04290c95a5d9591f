/* A module that uses the function which `shares` exports. */
#include "module.h"

static void *(*get_shared_api)(void *, const char *);

int RedisModule_OnLoad(void *context, void **words, int count) {
    (void)words, (void)count;
    return begin(context, "borrows", VERSION) || lacks(context, "RedisModule_GetSharedAPI", &get_shared_api) ||
           !get_shared_api(context, "shares_answer");
}

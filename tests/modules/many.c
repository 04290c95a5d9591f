/* A module with 10,000 commands; some names have bytes that no terminal should get. */
#include <stdio.h>

#include "module.h"

static int answers_nothing(void *context, void **words, int count) {
    (void)context, (void)words, (void)count;
    return 0;
}

int RedisModule_OnLoad(void *context, void **words, int count) {
    (void)words, (void)count;
    if (begin(context, "many", VERSION)) return 1;
    for (int number = 0; number < 10000; number++) {
        char name[64];
        snprintf(name, sizeof name, number % 100 ? "many.n%d" : "many.\033[31m\377%d", number);
        if (add_command(context, name, answers_nothing, "readonly", 0)) return 1;
    }
    return 0;
}

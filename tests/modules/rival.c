/* RIVAL.ASK and BASE.ASK: a module that adds the command of `base`. */
#include "module.h"

static int answers_nothing(void *context, void **words, int count) {
    (void)context, (void)words, (void)count;
    return 0;
}

int RedisModule_OnLoad(void *context, void **words, int count) {
    (void)words, (void)count;
    return begin(context, "rival", VERSION) || add_command(context, "rival.ask", answers_nothing, "readonly", 0) ||
           add_command(context, "base.ask", answers_nothing, "readonly", 0);
}

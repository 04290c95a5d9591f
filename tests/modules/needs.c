/* A module that does not load before `base` has: it calls BASE.ASK. */
typedef int (*GetApi)(const char *name, void *function);

static void (*set_module_attributes)(void *, const char *, int, int);
static void *(*call)(void *, const char *, const char *, ...);
static void (*free_reply)(void *);

int RedisModule_OnLoad(void *context, void **words, int count) {
    GetApi get_api = *(GetApi *)context;
    void *reply;
    (void)words, (void)count;
    if (get_api("RedisModule_SetModuleAttribs", &set_module_attributes) || get_api("RedisModule_Call", &call) ||
        get_api("RedisModule_FreeCallReply", &free_reply))
        return 1;
    set_module_attributes(context, "needs", VERSION, 1);
    if (!(reply = call(context, "base.ask", ""))) return 1;
    free_reply(reply);
    return 0;
}

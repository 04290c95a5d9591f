/* BASE.ASK answers this module's version; `needs` calls it. */
typedef int (*GetApi)(const char *name, void *function);
typedef int (*Command)(void *, void **, int);

static void (*set_module_attributes)(void *, const char *, int, int);
static int (*create_command)(void *, const char *, Command, const char *, int, int, int);
static int (*reply_with_long_long)(void *, long long);

static int ask(void *context, void **words, int count) {
    (void)words, (void)count;
    return reply_with_long_long(context, VERSION);
}

int RedisModule_OnLoad(void *context, void **words, int count) {
    GetApi get_api = *(GetApi *)context;
    (void)words, (void)count;
    if (get_api("RedisModule_SetModuleAttribs", &set_module_attributes) ||
        get_api("RedisModule_CreateCommand", &create_command) ||
        get_api("RedisModule_ReplyWithLongLong", &reply_with_long_long))
        return 1;
    set_module_attributes(context, "base", VERSION, 1);
    return create_command(context, "base.ask", ask, "readonly fast", 0, 0, 0);
}

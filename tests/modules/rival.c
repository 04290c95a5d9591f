/* RIVAL.ASK and BASE.ASK: a module that adds the command of `base`. */
typedef int (*GetApi)(const char *name, void *function);
typedef int (*Command)(void *, void **, int);

static void (*set_module_attributes)(void *, const char *, int, int);
static int (*create_command)(void *, const char *, Command, const char *, int, int, int);

static int answers_nothing(void *context, void **words, int count) {
    (void)context, (void)words, (void)count;
    return 0;
}

int RedisModule_OnLoad(void *context, void **words, int count) {
    GetApi get_api = *(GetApi *)context;
    (void)words, (void)count;
    if (get_api("RedisModule_SetModuleAttribs", &set_module_attributes) ||
        get_api("RedisModule_CreateCommand", &create_command))
        return 1;
    set_module_attributes(context, "rival", VERSION, 1);
    return create_command(context, "rival.ask", answers_nothing, "readonly", 0, 0, 0) ||
           create_command(context, "base.ask", answers_nothing, "readonly", 0, 0, 0);
}

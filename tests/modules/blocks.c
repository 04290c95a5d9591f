/* BLOCKS.WAIT: a command whose clients wait for a day; the server refuses to unload the module until then. */
typedef int (*GetApi)(const char *name, void *function);
typedef int (*Command)(void *, void **, int);

static void (*set_module_attributes)(void *, const char *, int, int);
static int (*create_command)(void *, const char *, Command, const char *, int, int, int);
static void *(*block_client)(void *, Command, Command, void (*)(void *, void *), long long);
static int (*reply_with_null)(void *);

static int answers(void *context, void **words, int count) {
    (void)words, (void)count;
    return reply_with_null(context);
}

static int waits(void *context, void **words, int count) {
    (void)words, (void)count;
    block_client(context, answers, answers, 0, 86400000);
    return 0;
}

int RedisModule_OnLoad(void *context, void **words, int count) {
    GetApi get_api = *(GetApi *)context;
    (void)words, (void)count;
    if (get_api("RedisModule_SetModuleAttribs", &set_module_attributes) ||
        get_api("RedisModule_CreateCommand", &create_command) ||
        get_api("RedisModule_BlockClient", &block_client) || get_api("RedisModule_ReplyWithNull", &reply_with_null))
        return 1;
    set_module_attributes(context, "blocks", VERSION, 1);
    return create_command(context, "blocks.wait", waits, "readonly", 0, 0, 0);
}

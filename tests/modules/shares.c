/* A module that exports a function; `borrows` uses it. Servers refuse to unload it while `borrows` is loaded. */
typedef int (*GetApi)(const char *name, void *function);

static void (*set_module_attributes)(void *, const char *, int, int);
static int (*export_shared_api)(void *, const char *, void *);

static int answer(void) { return VERSION; }

int RedisModule_OnLoad(void *context, void **words, int count) {
    GetApi get_api = *(GetApi *)context;
    (void)words, (void)count;
    if (get_api("RedisModule_SetModuleAttribs", &set_module_attributes) ||
        get_api("RedisModule_ExportSharedAPI", &export_shared_api))
        return 1;
    set_module_attributes(context, "shares", VERSION, 1);
    return export_shared_api(context, "shares_answer", (void *)answer);
}

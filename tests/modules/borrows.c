/* A module that uses the function which `shares` exports. */
typedef int (*GetApi)(const char *name, void *function);

static void (*set_module_attributes)(void *, const char *, int, int);
static void *(*get_shared_api)(void *, const char *);

int RedisModule_OnLoad(void *context, void **words, int count) {
    GetApi get_api = *(GetApi *)context;
    (void)words, (void)count;
    if (get_api("RedisModule_SetModuleAttribs", &set_module_attributes) ||
        get_api("RedisModule_GetSharedAPI", &get_shared_api))
        return 1;
    set_module_attributes(context, "borrows", VERSION, 1);
    return !get_shared_api(context, "shares_answer");
}

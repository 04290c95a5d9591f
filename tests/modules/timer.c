/* A module with a timer that fires in a day: servers refuse to unload it until then. */
typedef int (*GetApi)(const char *name, void *function);

static void (*set_module_attributes)(void *, const char *, int, int);
static unsigned long long (*create_timer)(void *, long long, void (*)(void *, void *), void *);

static void fires(void *context, void *nothing) { (void)context, (void)nothing; }

int RedisModule_OnLoad(void *context, void **words, int count) {
    GetApi get_api = *(GetApi *)context;
    (void)words, (void)count;
    if (get_api("RedisModule_SetModuleAttribs", &set_module_attributes) ||
        get_api("RedisModule_CreateTimer", &create_timer))
        return 1;
    set_module_attributes(context, "timer", VERSION, 1);
    create_timer(context, 86400000, fires, 0);
    return 0;
}

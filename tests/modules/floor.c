/* A module that wants a newer server, and says so. */
typedef int (*GetApi)(const char *name, void *function);

static void (*set_module_attributes)(void *, const char *, int, int);
static void (*log_line)(void *, const char *, const char *, ...);

int RedisModule_OnLoad(void *context, void **words, int count) {
    GetApi get_api = *(GetApi *)context;
    (void)words, (void)count;
    if (get_api("RedisModule_SetModuleAttribs", &set_module_attributes) || get_api("RedisModule_Log", &log_line))
        return 1;
    set_module_attributes(context, "floor", VERSION, 1);
    log_line(context, "notice", "starting up for user 'alice' at 10.0.0.7:6379");
    log_line(context, "warning", "Floor requires redis-server 99.0");
    return 1;
}

/* A module whose OnLoad answers an error. */
int RedisModule_OnLoad(void *context, void **words, int count) {
    (void)context, (void)words, (void)count;
    return 1;
}

/* STASH.SET key number, STASH.GET key: the same as keeps, with another data type. It does not load before keeps has. */
#define NAME "stash"
#define TYPE "modstash1"
#define NEEDS "keeps.get"
#include "keeps.c"

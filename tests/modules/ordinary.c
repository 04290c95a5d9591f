/* A module that does at its load what good modules do. It refuses to load, and logs what does not work. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/sysinfo.h>
#include <sys/timerfd.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "module.h"

static void (*log_line)(void *, const char *, const char *, ...);

static void *run(void *word) {
    pthread_setname_np(pthread_self(), "worker");
    return word;
}

static int threads(void) {
    pthread_t thread;
    void *answer = NULL;
    return !pthread_create(&thread, NULL, run, "done") && !pthread_join(thread, &answer) && answer;
}

static int exits_well(pid_t child) {
    int status;
    return child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) && !WEXITSTATUS(status);
}

static int processes(void) {
    char *words[] = {"true", NULL};
    pid_t spawned, child = fork();
    if (!child) {
        execv("/bin/true", words);
        _exit(1);
    }
    return exits_well(child) && !posix_spawn(&spawned, "/bin/true", NULL, NULL, words, words + 1) &&
           exits_well(spawned) && !system("/bin/true");
}

/* As embedded databases do in the server's directory. */
static int files(void) {
    struct flock lock = {.l_type = F_WRLCK};
    int file = open("database", O_CREAT | O_RDWR | O_TRUNC | O_CLOEXEC, 0600);
    return file >= 0 && !flock(file, LOCK_EX | LOCK_NB) && !fcntl(file, F_SETLK, &lock) &&
           !fcntl(file, F_SETLKW, &lock) && write(file, "x", 1) == 1 && !ftruncate(file, 4096) &&
           !posix_fallocate(file, 0, 8192) && !fdatasync(file) &&
           mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0) != MAP_FAILED &&
           fcntl(file, F_DUPFD_CLOEXEC, 0) >= 0 && !rename("database", "renamed") && !unlink("renamed");
}

static int memory(void) {
    int file = memfd_create("memory", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    void *taken = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return file >= 0 && !ftruncate(file, 4096) && !fcntl(file, F_ADD_SEALS, F_SEAL_SHRINK) && taken != MAP_FAILED &&
           !madvise(taken, 1 << 20, MADV_DONTNEED) && !mprotect(taken, 4096, PROT_READ) && !munmap(taken, 1 << 20);
}

static int events(void) {
    int ends[2], one = 1, poll = epoll_create1(EPOLL_CLOEXEC), event = eventfd(0, EFD_NONBLOCK);
    struct epoll_event on = {.events = EPOLLIN};
    return !epoll_ctl(poll, EPOLL_CTL_ADD, event, &on) && !eventfd_write(event, 1) && epoll_wait(poll, &on, 1, 0) == 1 &&
           timerfd_create(CLOCK_MONOTONIC, 0) >= 0 && inotify_init1(0) >= 0 &&
           !socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) && send(ends[0], "x", 1, 0) == 1 &&
           !ioctl(ends[1], FIONBIO, &one) && !pipe2(ends, O_CLOEXEC | O_NONBLOCK);
}

static int host(void) {
    struct utsname name;
    struct sysinfo about;
    struct rlimit limit;
    struct rusage used;
    cpu_set_t cpus;
    char random[16];
    return !uname(&name) && !sysinfo(&about) && !getrlimit(RLIMIT_NOFILE, &limit) &&
           !setrlimit(RLIMIT_NOFILE, &limit) && !getrusage(RUSAGE_SELF, &used) &&
           !sched_getaffinity(0, sizeof cpus, &cpus) && !sched_setaffinity(0, sizeof cpus, &cpus) &&
           getrandom(random, sizeof random, 0) == sizeof random && !isatty(0) && sysconf(_SC_NPROCESSORS_ONLN) > 0;
}

static int signals(void) {
    timer_t timer;
    struct sigevent event = {.sigev_notify = SIGEV_NONE};
    sigset_t some;
    sigemptyset(&some);
    sigaddset(&some, SIGUSR2);
    return !pthread_sigmask(SIG_BLOCK, &some, NULL) && !raise(SIGUSR2) && !kill(getpid(), 0) &&
           !timer_create(CLOCK_MONOTONIC, &event, &timer) && !timer_delete(timer) && !prctl(PR_SET_NAME, "server");
}

static int libraries(void) { return dlopen("libm.so.6", RTLD_NOW) != NULL; }

int RedisModule_OnLoad(void *context, void **words, int count) {
    static const struct {
        const char *name;
        int (*works)(void);
    } all[] = {
        {"threads", threads}, {"processes", processes}, {"files", files},     {"memory", memory},
        {"events", events},   {"host", host},           {"signals", signals}, {"libraries", libraries},
    };
    (void)words, (void)count;
    if (begin(context, "ordinary", VERSION) || lacks(context, "RedisModule_Log", &log_line)) return 1;
    int failed = 0;
    for (size_t each = 0; each < sizeof all / sizeof *all; each++)
        if (!all[each].works()) {
            log_line(context, "warning", "does not work: %s: %m", all[each].name);
            failed = 1;
        }
    return failed;
}

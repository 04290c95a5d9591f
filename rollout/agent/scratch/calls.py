"""The system calls of a scratch server: what a server with a native module needs, and nothing that holds up another process
or outlives the server. The filter is a program for seccomp(2).

It lists what is allowed: a list of what is refused is never complete, because each kernel adds calls. It refuses few modules.
It is systemd's `@system-service`, which the agent's standard unit sets anyway, without connections, keys, namespaces, io_uring
(another way to make system calls), the older asynchronous I/O (all processes of the host share its limit), and what reads or
changes other processes.
"""

import errno
import os
import struct
from collections.abc import Iterator, Mapping
from typing import NamedTuple

#: By the machine: its number for seccomp, and the place of its numbers below.
MACHINES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
#: Allowed everywhere: the name, and its numbers on x86-64 and on ARM64, empty for none.
ALWAYS = """
read:0:63 write:1:64 readv:19:65 writev:20:66 pread64:17:67 pwrite64:18:68 preadv:295:69 pwritev:296:70 preadv2:327:286
pwritev2:328:287 lseek:8:62 sendfile:40:71 splice:275:76 tee:276:77 vmsplice:278:75 copy_file_range:326:285 close:3:57
close_range:436:436 dup:32:23 dup2:33: dup3:292:24 pipe:22: pipe2:293:59 fcntl:72:25 fsync:74:82 fdatasync:75:83
sync_file_range:277:84 fadvise64:221:223 readahead:187:213 fallocate:285:47 ftruncate:77:46 flock:73:32
open:2: openat:257:56 creat:85: stat:4: lstat:6: fstat:5:80 newfstatat:262:79 statx:332:291 statfs:137:43 fstatfs:138:44
access:21: faccessat:269:48 faccessat2:439:439 getdents:78: getdents64:217:61 getcwd:79:17 chdir:80:49 fchdir:81:50
readlink:89: readlinkat:267:78 mkdir:83: mkdirat:258:34 rmdir:84: unlink:87: unlinkat:263:35 rename:82: renameat:264:38
renameat2:316:276 link:86: linkat:265:37 symlink:88: symlinkat:266:36 mknod:133: mknodat:259:33 umask:95:166 getxattr:191:8
lgetxattr:192:9 fgetxattr:193:10 listxattr:194:11 llistxattr:195:12 flistxattr:196:13 inotify_init:253: inotify_init1:294:26
inotify_add_watch:254:27 inotify_rm_watch:255:28
mmap:9:222 mprotect:10:226 munmap:11:215 brk:12:214 mremap:25:216 msync:26:227 mincore:27:232 madvise:28:233 mlock:149:228
mlock2:325:284 mlockall:151:230 munlock:150:229 munlockall:152:231 memfd_create:319:279 membarrier:324:283
remap_file_pages:216:234 pkey_alloc:330:289 pkey_free:331:290 pkey_mprotect:329:288 map_shadow_stack:453:453 mseal:462:462
get_mempolicy:239:236 set_mempolicy:238:237 set_mempolicy_home_node:450:450 mbind:237:235
clone:56:220 fork:57: vfork:58: execve:59:221 execveat:322:281 exit:60:93 exit_group:231:94 wait4:61:260 waitid:247:95
futex:202:98 futex_waitv:449:449 futex_wake:454:454 futex_wait:455:455 futex_requeue:456:456 set_robust_list:273:99
rseq:334:293 set_tid_address:218:96 arch_prctl:158: prctl:157:167 personality:135:92 getpid:39:172 gettid:186:178
getppid:110:173 getpgid:121:155 getpgrp:111: getsid:124:156 setpgid:109:154 setsid:112:157 sched_yield:24:124
sched_getaffinity:204:123 sched_getparam:143:121 sched_getscheduler:145:120 sched_getattr:315:275
sched_get_priority_max:146:125 sched_get_priority_min:147:126 sched_rr_get_interval:148:127 getpriority:140:141
ioprio_get:252:31 getcpu:309:168 getrlimit:97:163 setrlimit:160:164 getrusage:98:165
getuid:102:174 geteuid:107:175 getgid:104:176 getegid:108:177 getresuid:118:148 getresgid:120:150 getgroups:115:158
setuid:105:146 setgid:106:144 setreuid:113:145 setregid:114:143 setresuid:117:147 setresgid:119:149 setfsuid:122:151
setfsgid:123:152 setgroups:116:159 capget:125:90 capset:126:91
rt_sigaction:13:134 rt_sigprocmask:14:135 rt_sigreturn:15:139 rt_sigpending:127:136 rt_sigtimedwait:128:137
rt_sigsuspend:130:133 sigaltstack:131:132 restart_syscall:219:128 pause:34: signalfd:282: signalfd4:289:74
gettimeofday:96:169 time:201: clock_gettime:228:113 clock_getres:229:114 clock_nanosleep:230:115 nanosleep:35:101 alarm:37:
getitimer:36:102 setitimer:38:103 timer_create:222:107 timer_settime:223:110 timer_gettime:224:108 timer_getoverrun:225:109
timer_delete:226:111 timerfd_create:283:85 timerfd_settime:286:86 timerfd_gettime:287:87 times:100:153
poll:7: ppoll:271:73 select:23: pselect6:270:72 epoll_create:213: epoll_create1:291:20 epoll_ctl:233:21 epoll_wait:232:
epoll_pwait:281:22 epoll_pwait2:441:441 eventfd:284: eventfd2:290:19
socket:41:198 socketpair:53:199 bind:49:200 listen:50:201 accept:43:202 accept4:288:242 getsockname:51:204
getpeername:52:205 setsockopt:54:208 getsockopt:55:209 shutdown:48:210 sendto:44:206 sendmsg:46:211 sendmmsg:307:269
recvfrom:45:207 recvmsg:47:212 recvmmsg:299:243
uname:63:160 sysinfo:99:179 getrandom:318:278
"""
#: Likewise, but without namespaces only for the process itself, which the first argument names.
FOR_PROCESSES = """
kill:62:129 tkill:200:130 tgkill:234:131 rt_sigqueueinfo:129:138 rt_tgsigqueueinfo:297:240 prlimit64:302:261
sched_setaffinity:203:122 sched_setparam:142:118 sched_setscheduler:144:119 sched_setattr:314:274 migrate_pages:256:238
move_pages:279:239
"""
#: Allowed with namespaces only. There, the IPC objects are its own, and all files that are not its own are read-only. Landlock
#: restricts neither the attributes of files, nor their size before version 3.
WITH_NAMESPACES = """
setpriority:141:140 ioprio_set:251:30
shmget:29:194 shmat:30:196 shmdt:67:197 shmctl:31:195 semget:64:190 semop:65:193 semtimedop:220:192 semctl:66:191
msgget:68:186 msgsnd:69:189 msgrcv:70:188 msgctl:71:187 mq_open:240:180 mq_unlink:241:181 mq_timedsend:242:182
mq_timedreceive:243:183 mq_notify:244:184 mq_getsetattr:245:185
ioctl:16:29 openat2:437:437 truncate:76:45 chmod:90: fchmod:91:52 fchmodat:268:53 fchmodat2:452:452 chown:92: lchown:94:
fchown:93:55 fchownat:260:54 utime:132: utimes:235: futimesat:261: utimensat:280:88 setxattr:188:5 lsetxattr:189:6
fsetxattr:190:7 removexattr:197:14 lremovexattr:198:15 fremovexattr:199:16
"""
#: Since this number, all machines have the same. The C library falls back on older calls if the kernel does not know these.
FIRST_COMMON = 424

LOAD, AND, EQUAL, AT_LEAST, RETURN = 0x20, 0x54, 0x15, 0x35, 0x06
ALLOW, KILL, ANSWER = 0x7FFF0000, 0x80000000, 0x00050000
REFUSE, UNKNOWN_CALL, UNKNOWN_COMMAND, UNKNOWN_REQUEST, UNKNOWN_FAMILY = (
    ANSWER | each for each in (errno.EPERM, errno.ENOSYS, errno.EINVAL, errno.ENOTTY, errno.EAFNOSUPPORT)
)
#: The call returns 0 and does nothing. So a module may lock its own files, which no other process uses, and holds up no process
#: that locks the same file: a server of a cluster does not start if `nodes.conf` is locked.
IGNORE = ANSWER

#: socket(2).
AF_UNIX, AF_INET, AF_INET6, AF_NETLINK, SOCK_DGRAM, SOCK_RAW, SOCK_TYPE_MASK = 1, 2, 10, 16, 2, 3, 0xF
#: fcntl(2). Not F_SETLEASE, F_SETDELEG, F_NOTIFY, F_SETOWN, F_SETOWN_EX, F_SETSIG, F_SET_RW_HINT.
COMMANDS = {
    **dict.fromkeys((0, 1, 2, 3, 4), ALLOW),  # F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL
    **dict.fromkeys((5, 9, 11, 16, 36), ALLOW),  # F_GETLK, F_GETOWN, F_GETSIG, F_GETOWN_EX, F_OFD_GETLK
    **dict.fromkeys((1025, 1027, 1030), ALLOW),  # F_GETLEASE, F_DUPFD_QUERY, F_DUPFD_CLOEXEC
    **dict.fromkeys((1031, 1032), ALLOW),  # F_SETPIPE_SZ, F_GETPIPE_SZ
    **dict.fromkeys((1033, 1034, 1035), ALLOW),  # F_ADD_SEALS, F_GET_SEALS, F_GET_RW_HINT
    **dict.fromkeys((6, 7, 37, 38), IGNORE),  # F_SETLK, F_SETLKW, F_OFD_SETLK, F_OFD_SETLKW
}
#: ioctl(2). TCGETS, TCGETS2, TIOCGWINSZ, TIOCOUTQ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX, FIOASYNC, FS_IOC_GETFLAGS.
REQUESTS = (0x5401, 0x802C542A, 0x5413, 0x5411, 0x541B, 0x5421, 0x5450, 0x5451, 0x5452, 0x80086601)
#: clone(2): all namespaces. prctl(2): it lets other processes wait for each other. open(2): neither for reading nor for writing.
CLONE_NEW, PR_SCHED_CORE, NO_DATA = 0x7E020000, 62, 3


class Rule(NamedTuple):
    """`answers`: by the value of the lower half of the argument, as far as `mask` covers it. `otherwise`: for all other values,
    None for what the next rule says."""

    argument: int
    answers: Mapping[int, int]
    otherwise: int | None = None
    mask: int = 0xFFFFFFFF


#: No datagram: its address would be that of a socket of the host. Streams need connect(2).
_STREAMS = Rule(1, dict.fromkeys((SOCK_DGRAM, SOCK_RAW), UNKNOWN_FAMILY), mask=SOCK_TYPE_MASK)
_UNIX = Rule(0, {AF_UNIX: ALLOW}, UNKNOWN_FAMILY)
_NETWORK = Rule(0, dict.fromkeys((AF_INET, AF_INET6, AF_NETLINK), ALLOW))
#: Landlock before version 3 does not forbid to truncate a file that is not opened for writing.
_TRUNCATED = dict.fromkeys((os.O_TRUNC | os.O_RDONLY, os.O_TRUNC | NO_DATA), REFUSE)

Rules = tuple[Rule, ...]
RULES: dict[str, Rules] = {
    "fcntl": (Rule(1, COMMANDS, UNKNOWN_COMMAND),),
    "flock": (Rule(0, {}, IGNORE),),
    "clone": (Rule(0, {0: ALLOW}, REFUSE, CLONE_NEW),),
    "prctl": (Rule(0, {PR_SCHED_CORE: UNKNOWN_COMMAND}, ALLOW),),
    "open": (Rule(1, _TRUNCATED, ALLOW, os.O_TRUNC | os.O_ACCMODE),),
    "openat": (Rule(2, _TRUNCATED, ALLOW, os.O_TRUNC | os.O_ACCMODE),),
    "socketpair": (_STREAMS, _UNIX),
}


def program(*, namespaces: bool) -> bytes:
    """Return the filter for this process. `namespaces`: it has its own. Raises: `OSError`."""
    machine = os.uname().machine
    if machine not in MACHINES:
        raise OSError(errno.ENOSYS, f"unknown machine {machine}")
    return b"".join(_steps(*MACHINES[machine], _rules(os.getpid(), namespaces=namespaces)))


def _rules(pid: int, *, namespaces: bool) -> dict[str, Rules]:
    """Return the rules of the allowed calls, by name."""
    rules: dict[str, Rules] = dict.fromkeys(numbers(ALWAYS), (Rule(0, {}, ALLOW),)) | RULES
    if namespaces:
        own = numbers(FOR_PROCESSES + WITH_NAMESPACES)
        return rules | dict.fromkeys(own, (Rule(0, {}, ALLOW),)) | {"socket": (_NETWORK, _STREAMS, _UNIX)}
    return (
        rules
        | dict.fromkeys(numbers(FOR_PROCESSES), (Rule(0, {pid: ALLOW, 0: ALLOW}, REFUSE),))
        | {"ioctl": (Rule(1, dict.fromkeys(REQUESTS, ALLOW), UNKNOWN_REQUEST),), "socket": (_STREAMS, _UNIX)}
    )


def numbers(text: str) -> dict[str, tuple[int | None, ...]]:
    """Return the numbers of each call of a list above."""
    words = (each.split(":") for each in text.split())
    return {name: tuple(int(each) if each else None for each in found) for name, *found in words}


def _steps(machine: int, column: int, rules: Mapping[str, Rules]) -> Iterator[bytes]:
    yield _step(LOAD, 4)
    yield _step(EQUAL, machine, 1, 0)
    yield _step(RETURN, KILL)
    yield _step(LOAD, 0)
    for name, found in numbers(ALWAYS + FOR_PROCESSES + WITH_NAMESPACES).items():
        number = found[column]
        if number is not None and name in rules:
            answer = b"".join(step for each in rules[name] for step in _answer(each))
            yield _step(EQUAL, number, 0, len(answer) // 8)
            yield answer
    yield _step(AT_LEAST, FIRST_COMMON, 0, 1)
    yield _step(RETURN, UNKNOWN_CALL)
    yield _step(RETURN, REFUSE)


def _answer(rule: Rule) -> Iterator[bytes]:
    if rule.answers:
        yield _step(LOAD, 16 + 8 * rule.argument)
        yield _step(AND, rule.mask)
    for value, answer in rule.answers.items():
        yield _step(EQUAL, value, 0, 1)
        yield _step(RETURN, answer)
    if rule.otherwise is not None:
        yield _step(RETURN, rule.otherwise)


def _step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)

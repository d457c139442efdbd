// Replaces the random numbers of the system with a fixed sequence, for bench/instructions only. Hash tables,
// connection ids and TLS keys are then the same in each run, and so is their number of instructions. Each
// thread has the same sequence, so the order in which threads start does not matter.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <sys/types.h>

static __thread uint64_t state;

static void fill(unsigned char *to, size_t length) {
    for (size_t at = 0; at < length; at++) {
        // SplitMix64: one word per eight bytes.
        if (at % 8 == 0)
            state += 0x9e3779b97f4a7c15;
        uint64_t word = state;
        word = (word ^ word >> 30) * 0xbf58476d1ce4e5b9;
        word = (word ^ word >> 27) * 0x94d049bb133111eb;
        to[at] = (unsigned char)((word ^ word >> 31) >> at % 8 * 8);
    }
}

ssize_t getrandom(void *to, size_t length, unsigned flags) {
    (void)flags;
    fill(to, length);
    return (ssize_t)length;
}

int getentropy(void *to, size_t length) {
    fill(to, length);
    return 0;
}

// The crate getrandom 0.2 calls syscall(SYS_getrandom).
long syscall(long number, ...) {
    long a[6];
    va_list list;
    va_start(list, number);
    for (size_t n = 0; n < 6; n++)
        a[n] = va_arg(list, long);
    va_end(list);
    if (number == SYS_getrandom)
        return (long)getrandom((void *)a[0], (size_t)a[1], (unsigned)a[2]);
    static long (*other)(long, ...);
    if (!other)
        other = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
    return other(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

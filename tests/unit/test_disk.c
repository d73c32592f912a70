/* disk.h on a real ring and a real file system. */
#include "base/rng.h"
#include "proto/limits.h"
#include "worker/io/disk.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

enum { BLOCK = LIMIT_BLOCK_BYTES, MIB = 1 << 20 };

static struct io *io;
static char dir[64];

struct probe {
    struct disk_op op;
    ssize_t res;
    int calls;
};

static void on_done(struct disk_op *op, ssize_t res)
{
    struct probe *p = (struct probe *)(void *)op;
    p->res = res;
    p->calls++;
}

static ssize_t wait_for(const struct probe *p)
{
    assert_int_equal(p->calls, 0); /* never from inside the call */
    for (int i = 0; i < 10000 && p->calls == 0; i++)
        io_turn(io, 100000000);
    assert_int_equal(p->calls, 1);
    return p->res;
}

static int set_up_at(const char *base)
{
    snprintf(dir, sizeof dir, "%s/mochila-test-disk-XXXXXX", base);
    assert_non_null(mkdtemp(dir));
    struct io_settings s = {.conn_count_max = 16, .recv_buffer_count = 64, .restrict_ops = true};
    assert_int_equal(io_create(&io, &s), 0);
    assert_int_equal(io_enable(io), 0);
    return 0;
}

static int set_up(void **state)
{
    (void)state;
    return set_up_at("."); /* /tmp may be memory */
}

static int tear_down(void **state)
{
    (void)state;
    io_destroy(&io);
    char cmd[128];
    snprintf(cmd, sizeof cmd, "rm -rf '%s'", dir);
    return system(cmd);
}

static void fill(uint8_t *p, size_t n, uint64_t seed)
{
    struct rng r;
    rng_seed(&r, seed);
    for (size_t i = 0; i < n; i += 8) {
        uint64_t v = rng_u64(&r);
        memcpy(p + i, &v, 8);
    }
}

static void write_and_read(size_t bytes)
{
    struct disk *d;
    struct disk_file *f;
    assert_int_equal(disk_open(&d, io, dir), 0);
    assert_int_equal(disk_make_zeroed_now(d, "seg", 8 * MIB), 0);
    assert_int_equal(disk_file_open(d, "seg", &f), 0);
    uint8_t *out = disk_alloc(d, bytes);
    uint8_t *in = disk_alloc(d, bytes);
    assert_int_equal((uintptr_t)out % (bytes >= 2 * MIB ? 2 * MIB : BLOCK), 0);
    fill(out, bytes, bytes);
    struct probe w = {.op.on_done = on_done};
    disk_write(f, &w.op, out, bytes, BLOCK);
    assert_int_equal(wait_for(&w), bytes);
    struct probe r = {.op.on_done = on_done};
    disk_read(f, &r.op, in, bytes, BLOCK);
    assert_int_equal(wait_for(&r), bytes);
    assert_memory_equal(in, out, bytes);
    memset(in, 0, bytes);
    assert_int_equal(disk_pread(f, in, bytes, BLOCK), bytes);
    assert_memory_equal(in, out, bytes);
    /* Short at the end of the file. */
    assert_int_equal(disk_pread(f, in, bytes, 8 * MIB - BLOCK), BLOCK);
    assert_int_equal(disk_pread(f, in, BLOCK, 8 * MIB), 0);
    disk_free(d, out, bytes);
    disk_free(d, in, bytes);
    disk_file_close(&f);
    assert_int_equal(disk_unlink(d, "seg"), 0);
    disk_close(&d);
}

static void test_write_and_read(void **state)
{
    (void)state;
    write_and_read(BLOCK);   /* not registered */
    write_and_read(MIB);     /* registered */
    write_and_read(2 * MIB); /* huge pages */
    write_and_read(4 * MIB);
}

static void test_mode(void **state)
{
    (void)state;
    struct disk *d;
    assert_int_equal(disk_open(&d, io, dir), 0);
    printf("mode %s\n", disk_mode(d) == DISK_DIRECT ? "direct" : "cached");
    assert_true(disk_free_bytes(d) > MIB);
    disk_close(&d);
    tear_down(NULL);
    set_up_at("/dev/shm");
    write_and_read(MIB);
}

static void count_file(void *ctx, const char *name, uint64_t bytes)
{
    assert_string_equal(name, "spare");
    assert_int_equal(bytes, 5 * MIB);
    ++*(int *)ctx;
}

static void test_zeroed_in_the_background(void **state)
{
    (void)state;
    struct disk *d;
    struct disk_file *f;
    assert_int_equal(disk_open(&d, io, dir), 0);
    struct probe p = {.op.on_done = on_done};
    disk_make_zeroed(d, &p.op, "spare", 5 * MIB);
    assert_int_equal(disk_file_open(d, "spare", &f), -ENOENT); /* no name before it is whole */
    assert_int_equal(wait_for(&p), 0);
    int n = 0;
    assert_int_equal(disk_list(d, count_file, &n), 0);
    assert_int_equal(n, 1);
    assert_int_equal(disk_file_open(d, "spare", &f), 0);
    uint8_t *buf = disk_alloc(d, 5 * MIB);
    memset(buf, 1, 5 * MIB);
    assert_int_equal(disk_pread(f, buf, 5 * MIB, 0), 5 * MIB);
    for (size_t i = 0; i < 5 * MIB; i++)
        assert_int_equal(buf[i], 0);
    disk_file_close(&f);
    disk_free(d, buf, 5 * MIB);
    assert_int_equal(disk_rename(d, "spare", "used"), 0);
    assert_int_equal(disk_file_open(d, "spare", &f), -ENOENT);
    assert_int_equal(disk_unlink(d, "used"), 0);
    assert_int_equal(disk_unlink(d, "used"), -ENOENT);
    assert_int_equal(disk_file_open(d, "../used", &f), -EINVAL);
    disk_close(&d);
}

static void test_abandoned_work(void **state)
{
    (void)state;
    struct disk *d;
    struct disk_file *f;
    assert_int_equal(disk_open(&d, io, dir), 0);
    assert_int_equal(disk_make_zeroed_now(d, "a", MIB), 0);
    assert_int_equal(disk_file_open(d, "a", &f), 0);
    struct probe p = {.op.on_done = on_done};
    struct probe q = {.op.on_done = on_done};
    struct probe z = {.op.on_done = on_done};
    uint8_t *buf = disk_alloc(d, MIB);
    disk_make_zeroed(d, &z.op, "b", 64 * MIB);
    disk_write(f, &p.op, buf, MIB, 0);
    io_turn(io, 0);
    disk_write(f, &q.op, buf, MIB, 0); /* not even submitted */
    disk_file_close(&f);
    disk_close(&d);
    /* Whoever gets the numbers of the closed descriptors gets no write with them. */
    FILE *victims[8];
    for (size_t i = 0; i < 8; i++)
        assert_non_null(victims[i] = tmpfile());
    for (int i = 0; i < 50; i++)
        io_turn(io, 1000000);
    for (size_t i = 0; i < 8; i++) {
        struct stat st;
        assert_int_equal(fstat(fileno(victims[i]), &st), 0);
        assert_int_equal(st.st_size, 0);
        fclose(victims[i]);
    }
    assert_int_equal(q.calls + z.calls, 0);
    assert_true(p.calls <= 1);
    /* Nothing is left of the half-made file, and the directory is free again. */
    int n = 0;
    assert_int_equal(disk_open(&d, io, dir), 0);
    assert_int_equal(disk_unlink(d, "a"), 0);
    assert_int_equal(disk_list(d, count_file, &n), 0);
    assert_int_equal(n, 0);
    disk_free(d, buf, MIB);
    disk_close(&d);
}

static void limit_file_size(rlim_t bytes)
{
    struct rlimit l = {bytes, RLIM_INFINITY};
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &l), 0);
}

/* A short write is a failed write; a file that cannot be made leaves nothing behind. */
static void test_refused_by_the_system(void **state)
{
    (void)state;
    struct disk *d;
    struct disk_file *f;
    assert_int_equal(disk_open(&d, io, dir), 0);
    assert_int_equal(disk_make_zeroed_now(d, "a", MIB), 0);
    assert_int_equal(disk_file_open(d, "a", &f), 0);
    uint8_t *buf = disk_alloc(d, 4 * BLOCK);
    struct probe p = {.op.on_done = on_done};
    struct probe z = {.op.on_done = on_done};
    limit_file_size(2 * BLOCK);
    disk_write(f, &p.op, buf, 4 * BLOCK, 0);
    ssize_t res = wait_for(&p);
    disk_make_zeroed(d, &z.op, "b", MIB);
    ssize_t made = wait_for(&z);
    int made_now = disk_make_zeroed_now(d, "c", MIB);
    limit_file_size(RLIM_INFINITY);
    assert_int_equal(res, -EIO);
    assert_int_equal(made, -EFBIG);
    assert_int_equal(made_now, -EFBIG);
    disk_free(d, buf, 4 * BLOCK);
    disk_file_close(&f);
    assert_int_equal(disk_unlink(d, "a"), 0);
    int n = 0;
    assert_int_equal(disk_list(d, count_file, &n), 0);
    assert_int_equal(n, 0);
    disk_close(&d);
    assert_int_equal(rmdir(dir), 0); /* not even a temporary one */
}

static void test_lock(void **state)
{
    (void)state;
    struct disk *d;
    assert_int_equal(disk_open(&d, NULL, dir), 0);
    pid_t pid = fork();
    if (pid == 0) {
        struct disk *other;
        _exit(disk_open(&other, NULL, dir) == -EWOULDBLOCK ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    disk_close(&d);
    assert_int_equal(disk_open(&d, NULL, dir), 0);
    disk_close(&d);
}

/* A file is not opened before the last request of a dead process has let it go: its lock says so.
 */
static void test_file_waits_for_the_dead(void **state)
{
    (void)state;
    struct disk *d;
    struct disk_file *f;
    int ready[2];
    char byte;
    char path[128];
    assert_int_equal(pipe(ready), 0);
    assert_int_equal(disk_open(&d, NULL, dir), 0);
    assert_int_equal(disk_make_zeroed_now(d, "a", BLOCK), 0);
    snprintf(path, sizeof path, "%s/a", dir);
    pid_t pid = fork();
    if (pid == 0) {
        int fd = open(path, O_RDWR);
        (void)!write(ready[1], flock(fd, LOCK_EX) == 0 ? "y" : "n", 1);
        usleep(200000);
        _exit(0); /* as the kernel does when a request ends */
    }
    assert_int_equal(read(ready[0], &byte, 1), 1);
    assert_int_equal(byte, 'y');
    struct timespec from, to;
    clock_gettime(CLOCK_MONOTONIC, &from);
    assert_int_equal(disk_file_open(d, "a", &f), 0);
    clock_gettime(CLOCK_MONOTONIC, &to);
    assert_true((to.tv_sec - from.tv_sec) * 1000 + (to.tv_nsec - from.tv_nsec) / 1000000 >= 100);
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    disk_file_close(&f);
    disk_close(&d);
    close(ready[0]);
    close(ready[1]);
}

static void test_leftovers_are_swept(void **state)
{
    (void)state;
    char path[128];
    snprintf(path, sizeof path, "%s/x.new", dir);
    assert_int_equal(close(open(path, O_CREAT | O_WRONLY, 0600)), 0);
    struct disk *d;
    assert_int_equal(disk_open(&d, NULL, dir), 0);
    assert_int_equal(access(path, F_OK), -1);
    disk_close(&d);
}

/* Many writes at once, in registered and plain memory, all land where they should. */
static void test_many_writes(void **state)
{
    (void)state;
    enum { N = 200 };
    struct disk *d;
    struct disk_file *f;
    assert_int_equal(disk_open(&d, io, dir), 0);
    assert_int_equal(disk_make_zeroed_now(d, "a", (uint64_t)N * BLOCK), 0);
    assert_int_equal(disk_file_open(d, "a", &f), 0);
    uint8_t *buf = disk_alloc(d, (size_t)N * BLOCK);
    fill(buf, (size_t)N * BLOCK, 5);
    static struct probe p[N];
    for (size_t i = 0; i < N; i++) {
        p[i] = (struct probe){.op.on_done = on_done};
        disk_write(f, &p[i].op, buf + i * BLOCK, BLOCK, i * BLOCK);
    }
    for (size_t i = 0; i < N; i++) {
        while (p[i].calls == 0)
            io_turn(io, 1000000000);
        assert_int_equal(p[i].res, BLOCK);
    }
    uint8_t *in = disk_alloc(d, (size_t)N * BLOCK);
    assert_int_equal(disk_pread(f, in, (size_t)N * BLOCK, 0), N * BLOCK);
    assert_memory_equal(in, buf, (size_t)N * BLOCK);
    disk_free(d, buf, (size_t)N * BLOCK);
    disk_free(d, in, (size_t)N * BLOCK);
    disk_file_close(&f);
    disk_close(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_write_and_read, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_mode, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_zeroed_in_the_background, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_abandoned_work, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_refused_by_the_system, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_lock, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_file_waits_for_the_dead, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_leftovers_are_swept, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_many_writes, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

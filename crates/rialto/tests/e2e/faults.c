/* Loaded before the C library into a node under test: makes syncs fail as a broken disk does.
 *
 * FAULTS_SYNC_FILE  while a file of this name exists, every sync fails
 * FAULTS_SYNC_NTH   this sync of the process fails, counted from 1
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

static int fails(void)
{
    static int count;
    const char *file = getenv("FAULTS_SYNC_FILE"), *nth = getenv("FAULTS_SYNC_NTH");
    int number = __atomic_add_fetch(&count, 1, __ATOMIC_SEQ_CST);
    return (file && access(file, F_OK) == 0) || (nth && atoi(nth) == number);
}

static int sync_unless_it_fails(const char *name, int fd)
{
    if (fails()) {
        errno = EIO;
        return -1;
    }
    return ((int (*)(int))dlsym(RTLD_NEXT, name))(fd);
}

int fsync(int fd) { return sync_unless_it_fails("fsync", fd); }

int fdatasync(int fd) { return sync_unless_it_fails("fdatasync", fd); }

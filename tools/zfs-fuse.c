/*
 * Mends zfs-fuse; tools/zfs-fuse.sh loads it into the zfs-fuse of the tests by LD_PRELOAD.
 *
 * Its threads (zfs-fuse/fuse_listener.c, zfsfuse_listener_loop) wait with poll(2) for a request from the kernel and
 * then read it with fuse_chan_recv, while they hold the lock that all of them need. When the process that made the
 * request is killed in between, the kernel takes the request back, and the read waits for the next one to the same
 * filesystem. Until somebody happens to make one, every ZFS filesystem of the host hangs. Here the read does not wait,
 * and says that there was nothing, which the loop knows as 0.
 *
 * It also calls sync(2), which waits for every filesystem of the host, also for one of its own that is just being
 * mounted and waits for it. What it keeps is in the files of its pools, which it writes by itself; so here sync does
 * nothing.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdlib.h>

struct fuse_chan;
int fuse_chan_fd(struct fuse_chan *channel);

/* What zfs-fuse starts has no need of this. */
__attribute__((constructor)) static void loaded(void)
{
	unsetenv("LD_PRELOAD");
}

/* libfuse 2, fuse_lowlevel.h: the bytes received, 0 for nothing, or an error number below 0. */
int fuse_chan_recv(struct fuse_chan **channel, char *buffer, size_t size)
{
	static int (*receive)(struct fuse_chan **, char *, size_t);
	int fd = fuse_chan_fd(*channel);
	int flags = fcntl(fd, F_GETFL);
	int received;

	if (receive == NULL && (receive = dlsym(RTLD_NEXT, "fuse_chan_recv")) == NULL)
		abort();
	if (flags != -1 && !(flags & O_NONBLOCK))
		fcntl(fd, F_SETFL, flags | O_NONBLOCK);
	received = receive(channel, buffer, size);
	return received == -EAGAIN || received == -EINTR ? 0 : received;
}

void sync(void)
{
}

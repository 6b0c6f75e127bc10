/*
 * Mends zfs-fuse 0.7.0; tools/zfs-fuse.sh loads it into the zfs-fuse of the tests by LD_PRELOAD. Each of these makes
 * every ZFS filesystem of the host hang, as the threads that serve the kernel (zfs-fuse/fuse_listener.c,
 * zfsfuse_listener_loop) share one lock, and hold it while they wait for a request and while they let a filesystem go.
 *
 * A request that is taken back. They wait with poll(2) and then read with fuse_chan_recv. When the process that made
 * the request is killed in between, the kernel takes the request back, and the read waits for the next one to the same
 * filesystem. Here the read does not wait, and says that there was nothing, which the loop knows as 0.
 *
 * A file that is never closed. When a filesystem is unmounted, the kernel drops the requests that nobody has read yet,
 * also those that close the files of processes that were killed just before. zfs-fuse then tries to let go of the
 * filesystem for ever, as a file of it is open (zfsfuse_destroy, zfs_umount). Here what is still open is closed first.
 *
 * A filesystem that goes while another thread is still at a request to it: freed memory would be used. Here it stays
 * until that is done.
 *
 * A descriptor that is closed twice, by libfuse and by zfs-fuse (destroy_fs): the second time it may be another
 * thread's already. Here libfuse leaves it open.
 *
 * sync(2), which waits for every filesystem of the host, also for one of its own that is just being mounted and waits
 * for it. What it keeps is in the files of its pools, which it writes by itself; so here sync does nothing.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

/* What is used of libfuse 2.9 (fuse_lowlevel.h, fuse_common.h). */
struct fuse_session;
struct fuse_chan;
struct fuse_req;
struct fuse_entry_param {
	unsigned long ino;
};
struct fuse_file_info {
	int flags;
	unsigned long fh_old;
	int writepage;
	unsigned int bits;
	uint64_t fh;
};
int fuse_chan_fd(struct fuse_chan *channel);
struct fuse_chan *fuse_session_next_chan(struct fuse_session *session, struct fuse_chan *channel);

/* The function that one of here stands before. */
#define REAL(name) \
	static __typeof__(name) *real; \
	if (real == NULL && (real = dlsym(RTLD_NEXT, #name)) == NULL) \
		abort()

/* An open file or directory. */
struct handle {
	struct handle *next;
	struct fuse_session *session;
	uint64_t inode, number;
	uint32_t closed_by;
};

/* A request that a thread is at: it is on that thread's stack. */
struct work {
	struct work *next;
	struct fuse_session *session;
	const struct fuse_in_header *request;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t done = PTHREAD_COND_INITIALIZER;
static struct handle *handles;
static struct work *works;
static __thread struct work *mine;
static __thread int kept = -1;

/* What zfs-fuse starts has no need of this. */
__attribute__((constructor)) static void loaded(void)
{
	unsetenv("LD_PRELOAD");
}

/* The bytes received, 0 for nothing, or an error number below 0. */
int fuse_chan_recv(struct fuse_chan **channel, char *buffer, size_t size)
{
	REAL(fuse_chan_recv);
	int fd = fuse_chan_fd(*channel);
	int flags = fcntl(fd, F_GETFL);
	int received;

	if (flags != -1 && !(flags & O_NONBLOCK))
		fcntl(fd, F_SETFL, flags | O_NONBLOCK);
	received = real(channel, buffer, size);
	return received == -EAGAIN || received == -EINTR ? 0 : received;
}

static void opened(uint64_t inode, uint64_t number)
{
	struct handle *handle = malloc(sizeof *handle);

	if (handle == NULL)
		abort();
	handle->session = mine->session;
	handle->inode = inode;
	handle->number = number;
	handle->closed_by = mine->request->opcode == FUSE_OPENDIR ? FUSE_RELEASEDIR : FUSE_RELEASE;
	pthread_mutex_lock(&lock);
	handle->next = handles;
	handles = handle;
	pthread_mutex_unlock(&lock);
}

/* Takes the session's handle of this number, or its first one, off the list. */
static struct handle *taken(struct fuse_session *session, const uint64_t *number)
{
	struct handle **at, *found;

	pthread_mutex_lock(&lock);
	for (at = &handles; *at != NULL; at = &(*at)->next)
		if ((*at)->session == session && (number == NULL || (*at)->number == *number))
			break;
	if ((found = *at) != NULL)
		*at = found->next;
	pthread_mutex_unlock(&lock);
	return found;
}

/* Both answer a request that opens something, on the thread that is at it. */
int fuse_reply_open(struct fuse_req *request, const struct fuse_file_info *file)
{
	REAL(fuse_reply_open);
	opened(mine->request->nodeid, file->fh);
	return real(request, file);
}

int fuse_reply_create(struct fuse_req *request, const struct fuse_entry_param *entry, const struct fuse_file_info *file)
{
	REAL(fuse_reply_create);
	opened(entry->ino, file->fh);
	return real(request, entry, file);
}

void fuse_session_process(struct fuse_session *session, const char *buffer, size_t size, struct fuse_chan *channel)
{
	REAL(fuse_session_process);
	struct work work = { .session = session, .request = (const void *)buffer };
	struct work **at;

	if (work.request->opcode == FUSE_RELEASE || work.request->opcode == FUSE_RELEASEDIR)
		free(taken(session, &((const struct fuse_release_in *)(work.request + 1))->fh));
	pthread_mutex_lock(&lock);
	work.next = works;
	works = mine = &work;
	pthread_mutex_unlock(&lock);
	real(session, buffer, size, channel);
	pthread_mutex_lock(&lock);
	for (at = &works; *at != &work; at = &(*at)->next)
		;
	*at = work.next;
	mine = NULL;
	pthread_cond_broadcast(&done);
	pthread_mutex_unlock(&lock);
}

/* Asks for it in the kernel's stead; the answer goes to a connection that is gone. */
static void release(struct handle *handle, struct fuse_chan *channel)
{
	struct {
		struct fuse_in_header header;
		struct fuse_release_in file;
	} request = {
		.header = { .len = sizeof request, .opcode = handle->closed_by, .nodeid = handle->inode },
		.file = { .fh = handle->number },
	};

	fuse_session_process(handle->session, (const char *)&request, sizeof request, channel);
	free(handle);
}

static int is_busy(const struct fuse_session *session)
{
	const struct work *work = works;

	while (work != NULL && work->session != session)
		work = work->next;
	return work != NULL;
}

void fuse_session_destroy(struct fuse_session *session)
{
	REAL(fuse_session_destroy);
	struct fuse_chan *channel = fuse_session_next_chan(session, NULL);
	struct handle *handle;

	pthread_mutex_lock(&lock);
	while (is_busy(session))
		pthread_cond_wait(&done, &lock);
	pthread_mutex_unlock(&lock);
	while ((handle = taken(session, NULL)) != NULL)
		release(handle, channel);
	kept = channel == NULL ? -1 : fuse_chan_fd(channel);
	real(session);
	kept = -1;
}

int close(int fd)
{
	return fd == kept && fd != -1 ? 0 : syscall(SYS_close, fd);
}

void sync(void)
{
}

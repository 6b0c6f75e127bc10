package main

import (
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"unsafe"
)

// Numbers that package syscall does not have: sys/syscall.h.
const (
	sysClockSettime = 233
	sysKldload      = 304
	sysNmount       = 378
	sysJailSet      = 507
)

// tryPrivileged makes one call that a jail must refuse, and answers the errno in words, or "allowed".
func tryPrivileged(w http.ResponseWriter, r *http.Request) {
	var err error
	switch name := r.URL.Query().Get("name"); name {
	case "chroot":
		err = syscall.Chroot("/tmp")
	case "setuid":
		err = syscall.Setuid(0)
	case "rawsocket":
		_, err = syscall.Socket(syscall.AF_INET, syscall.SOCK_RAW, syscall.IPPROTO_ICMP)
	case "routesocket":
		_, err = syscall.Socket(syscall.AF_ROUTE, syscall.SOCK_RAW, 0)
	case "mknod":
		err = syscall.Mknod("/tmp/null", syscall.S_IFCHR|0o666, 0)
	case "bpf":
		_, err = syscall.Open("/dev/bpf", syscall.O_RDWR, 0)
	case "mount":
		err = withNames(sysNmount, "fstype", "tmpfs", "fspath", "/tmp")
	case "jail":
		err = withNames(sysJailSet, "path", "/")
	case "kldload":
		name, _ := syscall.BytePtrFromString("/no/such/module")
		err = call(sysKldload, uintptr(unsafe.Pointer(name)), 0, 0)
	case "settime":
		var now syscall.Timeval
		syscall.Gettimeofday(&now)
		spec := syscall.Timespec{Sec: now.Sec, Nsec: now.Usec * 1000}
		err = call(sysClockSettime, 0, uintptr(unsafe.Pointer(&spec)), 0)
	case "sethostname":
		mib := []int32{1, 10} // CTL_KERN, KERN_HOSTNAME
		_, _, errno := syscall.Syscall6(syscall.SYS___SYSCTL, uintptr(unsafe.Pointer(&mib[0])), 2, 0, 0,
			uintptr(unsafe.Pointer(unsafe.StringData("changed"))), 7)
		if errno != 0 {
			err = errno
		}
	default:
		http.Error(w, "no such call: "+name, http.StatusBadRequest)
		return
	}
	if err == nil {
		fmt.Fprint(w, "allowed")
		return
	}
	fmt.Fprint(w, err)
}

// withNames makes a call that takes names and values: nmount(2), jail_set(2).
func withNames(number uintptr, texts ...string) error {
	vector := make([]syscall.Iovec, len(texts))
	for i, text := range texts {
		base, _ := syscall.BytePtrFromString(text)
		vector[i] = syscall.Iovec{Base: base, Len: uint64(len(text) + 1)}
	}
	// JAIL_CREATE; nmount(2) calls the same bit MNT_RDONLY.
	return call(number, uintptr(unsafe.Pointer(&vector[0])), uintptr(len(vector)), 1)
}

func call(number, a, b, c uintptr) error {
	if _, _, errno := syscall.Syscall(number, a, b, c); errno != 0 {
		return errno
	}
	return nil
}

// mountTable is what is mounted, a line each: what, where, file system, options.
func mountTable() string {
	count, err := syscall.Getfsstat(nil, 2) // MNT_NOWAIT
	if err != nil {
		return err.Error()
	}
	table := make([]syscall.Statfs_t, count)
	if count, err = syscall.Getfsstat(table, 2); err != nil {
		return err.Error()
	}
	var all strings.Builder
	for _, mounted := range table[:count] {
		options := "rw"
		if mounted.Flags&1 != 0 { // MNT_RDONLY
			options = "ro"
		}
		if mounted.Flags&8 != 0 { // MNT_NOSUID
			options += ",nosuid"
		}
		fmt.Fprintf(&all, "%s %s %s %s\n", cText(mounted.Mntfromname[:]), cText(mounted.Mntonname[:]),
			cText(mounted.Fstypename[:]), options)
	}
	return all.String()
}

// cText reads a C string.
func cText(chars []int8) string {
	var bytes []byte
	for _, char := range chars {
		if char == 0 {
			break
		}
		bytes = append(bytes, byte(char))
	}
	return string(bytes)
}

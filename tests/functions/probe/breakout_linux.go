package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"unsafe"
)

// systemAttempts are those that only Linux has.
func systemAttempts() []attempt {
	all := []attempt{
		{"mount a file system", "J6 Z7", false, func() error { return syscall.Mount("none", "/tmp", "tmpfs", 0, "") }},
		{"make a user namespace", "J1 Z12", true, userNamespace},
		{"enter the namespaces of process 1", "J1 Z1", false, enterNamespace},
		{"write to a knob of the kernel's", "J6 Z1", false, writeKnob},
		{"read the host's memory or processes through /proc", "J3 Z1", true, readProc},
		{"sniff packets", "J6 Z9", true, func() error {
			_, err := syscall.Socket(syscall.AF_PACKET, syscall.SOCK_RAW, 0)
			return err
		}},
		{"restart the host", "J6 Z1", false, func() error { return syscall.Reboot(syscall.LINUX_REBOOT_CMD_CAD_OFF) }},
	}
	// With arguments that mean nothing: who may call gets another refusal than EPERM or ENOSYS.
	numbers := map[string]uintptr{
		"load a kernel module": syscall.SYS_INIT_MODULE, "load another kernel": syscall.SYS_KEXEC_LOAD,
		"open a file by its handle": map[string]uintptr{"amd64": 304, "arm64": 265}[runtime.GOARCH], "change the root of the mounts": syscall.SYS_PIVOT_ROOT,
		"read keys of the kernel's": syscall.SYS_KEYCTL, "measure other processes": syscall.SYS_PERF_EVENT_OPEN,
		"swap to a file": syscall.SYS_SWAPON, "keep accounts of processes": syscall.SYS_ACCT, "use io_uring": 425,
		"load a program into the kernel":   map[string]uintptr{"amd64": 321, "arm64": 280}[runtime.GOARCH],
		"handle page faults of the kernel": map[string]uintptr{"amd64": 323, "arm64": 282}[runtime.GOARCH],
	}
	for _, name := range []string{"load a kernel module", "load another kernel", "open a file by its handle",
		"change the root of the mounts", "read keys of the kernel's", "measure other processes", "swap to a file",
		"keep accounts of processes", "use io_uring", "load a program into the kernel", "handle page faults of the kernel"} {
		number := numbers[name]
		// acct(NULL) would turn accounting off; the others fail for their arguments.
		harmless := name != "keep accounts of processes" && name != "handle page faults of the kernel"
		all = append(all, attempt{name, "J6 J8", harmless, func() error { return permitted(number) }})
	}
	return all
}

func permitted(number uintptr) error {
	bad := ^uintptr(0)
	if number == syscall.SYS_ACCT {
		bad = 0
	}
	_, _, errno := syscall.Syscall6(number, bad, bad, bad, bad, bad, bad)
	if errno == syscall.EPERM || errno == syscall.ENOSYS || errno == syscall.EACCES {
		return errno
	}
	return nil
}

func userNamespace() error {
	command := exec.Command("/proc/self/exe")
	command.Env = []string{"HELPER=nothing"}
	command.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER}
	return command.Run()
}

func enterNamespace() error {
	runtime.LockOSThread()
	var last error = errors.New("no namespace can be opened")
	for _, kind := range []string{"mnt", "net", "pid", "ipc", "uts", "user", "cgroup"} {
		fd, err := syscall.Open("/proc/1/ns/"+kind, syscall.O_RDONLY, 0)
		if err != nil {
			last = err
			continue
		}
		// setns(2): amd64, arm64.
		number := map[string]uintptr{"amd64": 308, "arm64": 268}[runtime.GOARCH]
		if _, _, errno := syscall.Syscall(number, uintptr(fd), 0, 0); errno == 0 {
			return nil
		} else {
			last = errno
		}
	}
	return last
}

func writeKnob() error {
	var last error
	for _, name := range []string{"/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/proc/sys/vm/drop_caches",
		"/sys/kernel/uevent_helper", "/sys/fs/cgroup/release_agent", "/proc/sys/kernel/modprobe"} {
		file, err := os.OpenFile(name, os.O_WRONLY, 0)
		if err == nil {
			file.Close()
			return nil
		}
		last = err
	}
	return last
}

func readProc() error {
	outsider := fmt.Sprintf("/proc/%d/root/etc/passwd", outside())
	var last error
	for _, name := range []string{"/proc/kcore", "/proc/kmem", "/proc/slabinfo", "/proc/vmallocinfo", "/proc/kpagecount", outsider} {
		content, err := os.Open(name)
		if err == nil {
			_, err = content.Read(make([]byte, 8))
			content.Close()
		}
		if err == nil {
			return nil
		}
		last = err
	}
	return last
}

func seeProcess(pid int) error {
	if pid == 1 {
		return errors.New("everybody has a process 1")
	}
	_, err := os.Stat(fmt.Sprintf("/proc/%d", pid))
	return err
}

func interfaceUp() error {
	return setFlags("lo", syscall.SIOCSIFFLAGS)
}

// setFlags is ioctl(2) with a struct ifreq that says IFF_UP.
func setFlags(name string, request uintptr) error {
	socket, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	var ifreq [40]byte
	copy(ifreq[:15], name)
	ifreq[16] = 1
	_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(socket), request, uintptr(unsafe.Pointer(&ifreq)))
	if errno != 0 {
		return errno
	}
	return nil
}

func makeDevice(path string) error {
	return syscall.Mknod(path, syscall.S_IFCHR|0o666, 1<<8|1)
}

func changeHostname() error {
	return syscall.Sethostname([]byte("taken"))
}

func setClock() error {
	now := syscall.Timeval{}
	syscall.Gettimeofday(&now)
	return syscall.Settimeofday(&now)
}

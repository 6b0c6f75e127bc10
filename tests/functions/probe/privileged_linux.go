package main

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"syscall"
)

// tryPrivileged makes one call that a sandbox must refuse, and answers the errno in words, or "allowed".
func tryPrivileged(w http.ResponseWriter, r *http.Request) {
	var err error
	switch name := r.URL.Query().Get("name"); name {
	case "mount":
		err = syscall.Mount("none", "/tmp", "tmpfs", 0, "")
	case "sethostname":
		err = syscall.Sethostname([]byte("taken"))
	case "mknod":
		err = syscall.Mknod("/tmp/null", syscall.S_IFCHR|0o666, 1<<8|3)
	case "unshare":
		// By clone, because unshare refuses a process with threads whatever its rights.
		command := exec.Command("/proc/self/exe")
		command.Env = []string{"HELPER=nothing"}
		command.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER}
		err = command.Run()
	case "chroot":
		err = syscall.Chroot("/tmp")
	case "setuid":
		err = syscall.Setuid(0)
	case "reboot":
		// CAD_OFF changes nothing where it is allowed.
		err = syscall.Reboot(syscall.LINUX_REBOOT_CMD_CAD_OFF)
	case "rawsocket":
		_, err = syscall.Socket(syscall.AF_INET, syscall.SOCK_RAW, syscall.IPPROTO_ICMP)
	case "packetsocket":
		_, err = syscall.Socket(syscall.AF_PACKET, syscall.SOCK_RAW, 0)
	case "settime":
		now := syscall.Timeval{}
		syscall.Gettimeofday(&now)
		err = syscall.Settimeofday(&now)
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

// mountTable is what is mounted, a line each: what, where, file system, options.
func mountTable() string {
	content, _ := os.ReadFile("/proc/self/mounts")
	return string(content)
}

package main

import (
	"fmt"
	"net/http"
	"syscall"
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
	case "mknod":
		err = syscall.Mknod("/tmp/null", syscall.S_IFCHR|0o666, 0)
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

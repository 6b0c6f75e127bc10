package main

import (
	"errors"
	"syscall"
	"unsafe"
)

// Numbers that package syscall does not have: sys/syscall.h.
const (
	sysShmget         = 231
	sysFhopen         = 298
	sysKenv           = 390
	sysJailAttach     = 436
	sysJailGet        = 506
	sysJailRemove     = 508
	sysRctlRemoveRule = 529
	sysSwapon         = 85
	sysAcct           = 51
	sysPtrace         = 26
)

// systemAttempts are those that only FreeBSD has.
func systemAttempts() []attempt {
	return []attempt{
		{"mount a file system", "J6 Z7", false, func() error { return withNames(sysNmount, "fstype", "tmpfs", "fspath", "/tmp") }},
		{"mount the host's root", "J1 J6", false, func() error {
			return withNames(sysNmount, "fstype", "nullfs", "fspath", "/tmp", "target", "/")
		}},
		{"make a jail", "Z12", false, func() error { return withNames(sysJailSet, "path", "/") }},
		{"see another jail", "J3 Z1", true, seeJail},
		{"enter another jail", "J1 Z12", false, func() error { return call(sysJailAttach, 1, 0, 0) }},
		{"remove another jail", "J3 Z12", false, func() error { return call(sysJailRemove, 999998, 0, 0) }},
		{"trace a process outside", "J3 Z1", false, func() error { return call(sysPtrace, 10, uintptr(outside()), 0) }},
		{"load a kernel module", "J6 J8", true, func() error {
			return unlessPermitted(call(sysKldload, text("/no/such/module"), 0, 0), syscall.ENOENT)
		}},
		{"open a file by its handle", "J6 J8", false, func() error {
			var handle [32]byte
			return unlessPermitted(call(sysFhopen, uintptr(unsafe.Pointer(&handle)), 0, 0), syscall.ESTALE)
		}},
		{"set a variable of the kernel's environment", "J6 J8", false, func() error {
			return call4(sysKenv, 1, text("faas_jails_probe"), text("1"), 2)
		}},
		{"swap to a file", "J6 J8", true, func() error {
			return unlessPermitted(call(sysSwapon, text("/no/such/file"), 0, 0), syscall.ENOENT)
		}},
		{"keep accounts of processes", "J6 J8", true, func() error {
			return unlessPermitted(call(sysAcct, text("/no/such/file"), 0, 0), syscall.ENOENT)
		}},
		{"write to a knob of the kernel's", "J6", false, func() error { return writeKnob("kern.maxfiles") }},
		{"lower the securelevel", "J6", false, func() error { return writeNumber("kern.securelevel", -1) }},
		{"share memory by a key", "J12 Z8", true, func() error { return call(sysShmget, 0, 4096, 0o1600) }},
		{"take away its limits", "J12 Z2", false, func() error {
			rule := "jail:"
			return call4(sysRctlRemoveRule, text(rule), uintptr(len(rule)+1), 0, 0)
		}},
	}
}

func text(s string) uintptr {
	bytes, _ := syscall.BytePtrFromString(s)
	lent = append(lent, bytes)
	return uintptr(unsafe.Pointer(bytes))
}

// lent holds what system calls were given.
var lent []*byte

// unlessPermitted is nil when the call failed for its arguments only.
func unlessPermitted(err error, argument syscall.Errno) error {
	if errors.Is(err, argument) {
		return nil
	}
	return err
}

func call4(number, a, b, c, d uintptr) error {
	if _, _, errno := syscall.Syscall6(number, a, b, c, d, 0, 0); errno != 0 {
		return errno
	}
	return nil
}

// seeJail asks for the first jail there is: jail_get(2) with lastjid 0.
func seeJail() error {
	name, _ := syscall.BytePtrFromString("lastjid")
	var zero int32
	vector := []syscall.Iovec{{Base: name, Len: 8}, {Base: (*byte)(unsafe.Pointer(&zero)), Len: 4}}
	return call(sysJailGet, uintptr(unsafe.Pointer(&vector[0])), 2, 0)
}

// seeProcess asks for kern.proc.pid.PID; nobody of that number gives no bytes.
func seeProcess(pid int) error {
	mib := []int32{1, 14, 1, int32(pid)}
	var length uintptr
	_, _, errno := syscall.Syscall6(syscall.SYS___SYSCTL, uintptr(unsafe.Pointer(&mib[0])), 4, 0,
		uintptr(unsafe.Pointer(&length)), 0, 0)
	if errno != 0 {
		return errno
	}
	buffer := make([]byte, length+1)
	length = uintptr(len(buffer))
	_, _, errno = syscall.Syscall6(syscall.SYS___SYSCTL, uintptr(unsafe.Pointer(&mib[0])), 4,
		uintptr(unsafe.Pointer(&buffer[0])), uintptr(unsafe.Pointer(&length)), 0, 0)
	if errno != 0 {
		return errno
	}
	if length == 0 {
		return errors.New("no such process")
	}
	return nil
}

// number of a sysctl, by sysctl {0, 3}.
func mibOf(name string) ([]int32, error) {
	query := []int32{0, 3}
	mib := make([]int32, 24)
	length := uintptr(len(mib) * 4)
	bytes := []byte(name)
	_, _, errno := syscall.Syscall6(syscall.SYS___SYSCTL, uintptr(unsafe.Pointer(&query[0])), 2,
		uintptr(unsafe.Pointer(&mib[0])), uintptr(unsafe.Pointer(&length)),
		uintptr(unsafe.Pointer(&bytes[0])), uintptr(len(bytes)))
	if errno != 0 {
		return nil, errno
	}
	return mib[:length/4], nil
}

func writeNumber(name string, value int32) error {
	mib, err := mibOf(name)
	if err != nil {
		return err
	}
	_, _, errno := syscall.Syscall6(syscall.SYS___SYSCTL, uintptr(unsafe.Pointer(&mib[0])), uintptr(len(mib)), 0, 0,
		uintptr(unsafe.Pointer(&value)), 4)
	if errno != 0 {
		return errno
	}
	return nil
}

// writeKnob sets a number to what it is.
func writeKnob(name string) error {
	value, err := syscall.SysctlUint32(name)
	if err != nil {
		return err
	}
	return writeNumber(name, int32(value))
}

// interfaceUp is ioctl(2) SIOCSIFFLAGS with the flags that lo0 has and IFF_UP: it must not change a host that lets it.
func interfaceUp() error {
	socket, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	var ifreq [32]byte
	copy(ifreq[:15], "lo0")
	if err := call(syscall.SYS_IOCTL, uintptr(socket), 0xc0206911, uintptr(unsafe.Pointer(&ifreq))); err != nil {
		return err
	}
	ifreq[16] |= 1
	return call(syscall.SYS_IOCTL, uintptr(socket), 0x80206910, uintptr(unsafe.Pointer(&ifreq)))
}

func makeDevice(path string) error {
	return syscall.Mknod(path, syscall.S_IFCHR|0o666, 0)
}

func changeHostname() error {
	mib := []int32{1, 10} // CTL_KERN, KERN_HOSTNAME
	name := []byte("taken")
	_, _, errno := syscall.Syscall6(syscall.SYS___SYSCTL, uintptr(unsafe.Pointer(&mib[0])), 2, 0, 0,
		uintptr(unsafe.Pointer(&name[0])), uintptr(len(name)))
	if errno != 0 {
		return errno
	}
	return nil
}

func setClock() error {
	var now syscall.Timeval
	syscall.Gettimeofday(&now)
	spec := syscall.Timespec{Sec: now.Sec, Nsec: now.Usec * 1000}
	return call(sysClockSettime, 0, uintptr(unsafe.Pointer(&spec)), 0)
}

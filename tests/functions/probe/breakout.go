package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// attempt is one way out of a sandbox, tried in a process of its own.
type attempt struct {
	name string
	// claims of the Jails and Zones papers that it is about; docs/claims.md has their text
	claims string
	// harmless where it comes through: it may also be tried outside a sandbox, as proof that it would
	harmless bool
	// try gives nil when it came through
	try func() error
}

// What the test tells every attempt about the outside, as environment variables.
const (
	envMarker  = "MARKER"       // a file of the host's, by absolute path
	envOutside = "OUTSIDE_PID"  // a process of the host's
	envAddress = "HOST_ADDRESS" // an address of the host's
)

func attempts() []attempt {
	return append([]attempt{
		{"read a file of the host's through ..", "J1 J2 Z1", true, dotDot},
		{"chroot inside and step out through an open directory", "J1 J2 Z1", true, nestedChroot},
		{"step out through an inherited descriptor", "J2 Z1", true, inheritedDirectory},
		{"signal a process outside", "J3 Z1", true, func() error { return syscall.Kill(outside(), 0) }},
		{"see a process outside", "J3 Z1", true, func() error { return seeProcess(outside()) }},
		{"listen on an address of the host's", "J4 Z9", true, foreignAddress},
		{"bring an interface up", "J6 Z9", true, interfaceUp},
		{"open a raw socket", "J6 Z9", true, func() error {
			_, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_RAW, syscall.IPPROTO_ICMP)
			return err
		}},
		{"open a device of the host's", "J6 Z7", true, openDevice},
		{"make a device", "J6 Z7", false, func() error { return makeDevice("/tmp/device") }},
		{"run a program that is setuid root", "J7 Z7", false, setuidProgram},
		{"become root", "J7 Z7", false, becomeRoot},
		{"change the host name", "J9", false, changeHostname},
		{"set the clock", "J6 Z1", false, setClock},
	}, systemAttempts()...)
}

// breakout tries them all, or the harmless ones only, and tells of each whether it came through.
func breakout(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	asJSON(w, tryAll(query.Get("marker"), query.Get("pid"), query.Get("address"), query.Get("harmless") == "1"))
}

type outcome struct {
	Name    string `json:"name"`
	Claims  string `json:"claims"`
	Through bool   `json:"through"`
	Said    string `json:"said"`
}

func tryAll(marker, pid, address string, harmless bool) []outcome {
	outcomes := []outcome{}
	program, err := os.Executable()
	if err != nil {
		program = os.Args[0]
	}
	for index, a := range attempts() {
		if harmless && !a.harmless {
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		command := exec.CommandContext(ctx, program)
		command.Env = []string{"HELPER=attempt", "ATTEMPT=" + strconv.Itoa(index),
			envMarker + "=" + marker, envOutside + "=" + pid, envAddress + "=" + address}
		said, err := command.CombinedOutput()
		cancel()
		// Killed for trying is refused, too.
		through := err == nil && string(said) == "came through"
		if err != nil {
			said = []byte(err.Error() + ": " + string(said))
		}
		outcomes = append(outcomes, outcome{a.name, a.claims, through, string(said)})
	}
	return outcomes
}

// tryOne is what runs in a process of its own.
func tryOne() {
	index := atoi(os.Getenv("ATTEMPT"), -1)
	if err := attempts()[index].try(); err != nil {
		fmt.Print(err)
		return
	}
	fmt.Print("came through")
}

func outside() int {
	return atoi(os.Getenv(envOutside), 1)
}

func readMarker(path string) error {
	content, err := os.ReadFile(path)
	if err == nil && !strings.HasPrefix(string(content), "marker") {
		return errors.New("another file of that name")
	}
	return err
}

func dotDot() error {
	return readMarker(strings.Repeat("../", 64) + os.Getenv(envMarker))
}

// upAndRead goes to the top from the working directory, which may be outside the root, and reads the marker.
func upAndRead() error {
	for range 64 {
		if err := syscall.Chdir(".."); err != nil {
			return err
		}
	}
	return readMarker(strings.TrimPrefix(os.Getenv(envMarker), "/"))
}

func nestedChroot() error {
	top, err := syscall.Open("/", syscall.O_RDONLY, 0)
	if err != nil {
		return err
	}
	nest, err := os.MkdirTemp("/tmp", "nest")
	if err != nil {
		return err
	}
	// By a path from here, which stays outside: where this comes through, it must leave nothing.
	if err := os.Chdir("/"); err != nil {
		return err
	}
	defer os.Remove(strings.TrimPrefix(nest, "/"))
	if err := syscall.Chroot(nest); err != nil {
		return err
	}
	if err := syscall.Fchdir(top); err != nil {
		return err
	}
	return upAndRead()
}

func inheritedDirectory() error {
	for fd := 3; fd < 1024; fd++ {
		if syscall.Fchdir(fd) == nil && upAndRead() == nil {
			return nil
		}
	}
	// Without one, what remains is the working directory.
	return upAndRead()
}

func foreignAddress() error {
	listener, err := net.Listen("tcp", net.JoinHostPort(os.Getenv(envAddress), "0"))
	if err == nil {
		listener.Close()
	}
	return err
}

func openDevice() error {
	var tried []string
	patterns := []string{"/dev/mem", "/dev/kmem", "/dev/io", "/dev/bpf*", "/dev/pf", "/dev/zfs", "/dev/fuse", "/dev/kvm",
		"/dev/sd*", "/dev/vd*", "/dev/nvme*", "/dev/vtbd*", "/dev/ada*", "/dev/da*", "/dev/loop-control", "/dev/devctl"}
	for _, pattern := range patterns {
		names, _ := filepath.Glob(pattern)
		for _, name := range names {
			file, err := os.Open(name)
			if err == nil {
				file.Close()
				return nil
			}
			tried = append(tried, err.Error())
		}
	}
	return fmt.Errorf("none can be opened: %v", tried)
}

// setuidProgram makes one, and runs it as somebody else. The copy tells who it is.
func setuidProgram() error {
	if os.Getuid() != 0 {
		return errors.New("only root can make one that is root's")
	}
	own, err := os.Open("/probe")
	if err != nil {
		return err
	}
	defer own.Close()
	copied, err := os.OpenFile("/tmp/setuid", os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o755)
	if err != nil {
		return err
	}
	io.Copy(copied, own)
	copied.Close()
	defer os.Remove("/tmp/setuid")
	if err := os.Chmod("/tmp/setuid", 0o755|os.ModeSetuid); err != nil {
		return err
	}
	command := exec.Command("/tmp/setuid")
	command.Env = []string{"HELPER=who"}
	command.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1000, Gid: 1000}}
	said, err := command.CombinedOutput()
	if err != nil {
		return err
	}
	if string(said) != "0" {
		return fmt.Errorf("it runs as %s", said)
	}
	return nil
}

func becomeRoot() error {
	if os.Getuid() == 0 {
		return errors.New("is root already")
	}
	return syscall.Setuid(0)
}

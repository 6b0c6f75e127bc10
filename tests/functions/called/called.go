// Package called is what tests of the Sky Island API call: functions that behave, and functions that don't.
package called

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// Encode is as dull as what Sky Island's documentation calls.
func Encode(lat, lng float64) string { return fmt.Sprintf("%.1f/%.1f", lat, lng) }

// Echo shows its arguments in Go's own syntax.
func Echo(args ...any) string {
	shown := make([]string, len(args))
	for i, arg := range args {
		shown[i] = fmt.Sprintf("%#v", arg)
	}
	return strings.Join(shown, "; ")
}

// Pair has two results.
func Pair() (int, string) { return 1, "two" }

// Raw gives bytes that are no UTF-8.
func Raw() string { return "a\xffb" }

// Exit complains and ends with this status.
func Exit(code int) string {
	fmt.Print("partial")
	fmt.Fprintln(os.Stderr, "so long")
	os.Exit(code)
	return ""
}

// Panic does.
func Panic() string { panic("a test's panic") }

// Forever does not return.
func Forever() string {
	for {
		time.Sleep(time.Second)
	}
}

// Flood prints without end.
func Flood() string {
	line := bytes.Repeat([]byte("flood\n"), 4096)
	for {
		os.Stdout.Write(line)
	}
}

// Murmur complains without end.
func Murmur() string {
	line := bytes.Repeat([]byte("murmur\n"), 4096)
	for {
		os.Stderr.Write(line)
	}
}

// Hungry uses this many megabytes.
func Hungry(megabytes int) string {
	var held [][]byte
	for i := 0; i < megabytes; i++ {
		block := make([]byte, 1<<20)
		for i := range block {
			block[i] = 1
		}
		held = append(held, block)
	}
	return fmt.Sprint(len(held))
}

// Fill writes to /tmp until there is no room.
func Fill() string {
	block := make([]byte, 1<<20)
	for i := 0; ; i++ {
		if err := os.WriteFile(fmt.Sprintf("/tmp/%d", i), block, 0o644); err != nil {
			return "error: " + err.Error()
		}
	}
}

// Spin keeps two processors busy for two seconds, and tells how many hundredths of one it got.
func Spin() int64 {
	runtime.GOMAXPROCS(2)
	begin := time.Now()
	go func() {
		for {
		}
	}()
	for time.Since(begin) < 2*time.Second {
	}
	took := time.Since(begin)
	var used syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &used)
	return (used.Utime.Nano() + used.Stime.Nano()) * 100 / int64(took)
}

// again starts this program once more, which makes the same call.
func again(env ...string) (*os.Process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	files := []*os.File{os.Stdin, os.Stdout, os.Stderr}
	return os.StartProcess(self, []string{self}, &os.ProcAttr{Env: append(os.Environ(), env...), Files: files})
}

// Bomb starts itself for ever, and each of those does, too.
func Bomb() string {
	for {
		if _, err := again(); err != nil {
			time.Sleep(10 * time.Millisecond)
		}
	}
}

// Detach leaves a child behind.
func Detach() string {
	if os.Getenv("DETACHED") != "" {
		time.Sleep(time.Hour)
	}
	child, err := again("DETACHED=1")
	if err != nil {
		return err.Error()
	}
	return fmt.Sprint(child.Pid > 0)
}

// Read gives a file's content, or why there is none.
func Read(path string) string {
	content, err := os.ReadFile(path)
	if err != nil {
		return "error: " + err.Error()
	}
	return string(content)
}

// Write tries to write a file.
func Write(path string) string {
	if err := os.WriteFile(path, []byte("written"), 0o644); err != nil {
		return "error: " + err.Error()
	}
	return "written"
}

// Dial connects to an address.
func Dial(address string) string {
	connection, err := net.DialTimeout("tcp", address, time.Second)
	if err != nil {
		return "error: " + err.Error()
	}
	defer connection.Close()
	return "connected from " + connection.LocalAddr().String()
}

// Self tells who and where it is.
func Self() string {
	name, _ := os.Hostname()
	addresses, _ := net.InterfaceAddrs()
	var own []string
	for _, address := range addresses {
		if ip, ok := address.(*net.IPNet); ok && !ip.IP.IsLoopback() && ip.IP.To4() != nil {
			own = append(own, ip.IP.String())
		}
	}
	return fmt.Sprintf("uid=%d host=%s addresses=%s", os.Getuid(), name, strings.Join(own, ","))
}

// Sleep waits, and answers.
func Sleep(milliseconds int) string {
	time.Sleep(time.Duration(milliseconds) * time.Millisecond)
	return "slept"
}

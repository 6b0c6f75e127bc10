package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"time"
)

func environment(w http.ResponseWriter, _ *http.Request) {
	all := map[string]string{}
	for _, pair := range os.Environ() {
		name, value, _ := strings.Cut(pair, "=")
		all[name] = value
	}
	asJSON(w, all)
}

func hostname(w http.ResponseWriter, _ *http.Request) {
	name, _ := os.Hostname()
	io.WriteString(w, name)
}

func identity(w http.ResponseWriter, _ *http.Request) {
	asJSON(w, whoami())
}

func whoami() map[string]any {
	name, _ := os.Hostname()
	groups, _ := os.Getgroups()
	directory, _ := os.Getwd()
	return map[string]any{
		"hostname": name, "uid": os.Getuid(), "gid": os.Getgid(), "groups": groups, "pid": os.Getpid(),
		"ppid": os.Getppid(), "cwd": directory, "args": os.Args, "cpus": runtime.NumCPU(), "started": started.UnixNano(), "addresses": ownAddresses(),
	}
}

// problem answers 500 with the error, which names the errno in words.
func problem(w http.ResponseWriter, err error) {
	http.Error(w, err.Error(), http.StatusInternalServerError)
}

func readFile(w http.ResponseWriter, r *http.Request) {
	content, err := os.ReadFile(r.URL.Query().Get("path"))
	if err != nil {
		problem(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Write(content)
}

func listDirectory(w http.ResponseWriter, r *http.Request) {
	entries, err := os.ReadDir(r.URL.Query().Get("path"))
	if err != nil {
		problem(w, err)
		return
	}
	names := []string{}
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	asJSON(w, names)
}

// writeFile writes the body, or mb megabytes, to path.
func writeFile(w http.ResponseWriter, r *http.Request) {
	file, err := os.Create(r.URL.Query().Get("path"))
	if err != nil {
		problem(w, err)
		return
	}
	defer file.Close()
	if mb := arg(r, "mb", 0); mb > 0 {
		_, err = io.CopyN(file, zeroes{}, int64(mb)<<20)
	} else {
		_, err = io.Copy(file, r.Body)
	}
	if err != nil {
		problem(w, err)
		return
	}
	io.WriteString(w, "written")
}

type zeroes struct{}

func (zeroes) Read(p []byte) (int, error) { return len(p), nil }

// mounts shows what the kernel tells this process of mounts.
func mounts(w http.ResponseWriter, _ *http.Request) {
	io.WriteString(w, mountTable())
}

// capabilities shows the lines of /proc/self/status that say what this process may do.
func capabilities(w http.ResponseWriter, _ *http.Request) {
	content, err := os.ReadFile("/proc/self/status")
	if err != nil {
		problem(w, err)
		return
	}
	all := map[string]string{}
	for _, line := range strings.Split(string(content), "\n") {
		if name, value, ok := strings.Cut(line, ":"); ok {
			all[name] = strings.TrimSpace(value)
		}
	}
	asJSON(w, all)
}

// descriptors lists this process's open files.
func descriptors(w http.ResponseWriter, _ *http.Request) {
	all := map[string]string{}
	for fd := range 1024 {
		if target, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd)); err == nil {
			all[fmt.Sprint(fd)] = target
		}
	}
	asJSON(w, all)
}

func ownAddresses() []string {
	all := []string{}
	found, _ := net.InterfaceAddrs()
	for _, address := range found {
		all = append(all, address.String())
	}
	return all
}

func addresses(w http.ResponseWriter, _ *http.Request) { asJSON(w, ownAddresses()) }

// dial tries a TCP connection and says how it went.
func dial(w http.ResponseWriter, r *http.Request) {
	conn, err := net.DialTimeout("tcp", r.URL.Query().Get("addr"), time.Duration(arg(r, "ms", 1000))*time.Millisecond)
	if err != nil {
		problem(w, err)
		return
	}
	conn.Close()
	io.WriteString(w, "connected")
}

func lookup(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), 5*time.Second)
	defer cancel()
	found, err := net.DefaultResolver.LookupHost(ctx, r.URL.Query().Get("name"))
	if err != nil {
		problem(w, err)
		return
	}
	asJSON(w, found)
}

func sleep(w http.ResponseWriter, r *http.Request) {
	time.Sleep(time.Duration(arg(r, "ms", 0)) * time.Millisecond)
	hostname(w, r)
}

// exit ends the process; the connection may see the answer or not.
func exit(w http.ResponseWriter, r *http.Request) {
	io.WriteString(w, "bye\n")
	http.NewResponseController(w).Flush()
	fmt.Println("exiting on request")
	os.Exit(arg(r, "code", 1))
}

var (
	kept   [][]byte
	keeper sync.Mutex
)

// allocate takes mb megabytes, touches every page, and keeps them.
func allocate(w http.ResponseWriter, r *http.Request) {
	block := make([]byte, arg(r, "mb", 1)<<20)
	for i := 0; i < len(block); i += 4096 {
		block[i] = 1
	}
	keeper.Lock()
	kept = append(kept, block)
	keeper.Unlock()
	fmt.Fprintf(w, "%d MB\n", len(block)>>20)
}

// spin computes for ms milliseconds of time on the wall and tells how many rounds it made.
func spin(w http.ResponseWriter, r *http.Request) {
	end := time.Now().Add(time.Duration(arg(r, "ms", 100)) * time.Millisecond)
	rounds, x := 0, uint64(1)
	for time.Now().Before(end) {
		for range 1000 {
			x = x*6364136223846793005 + 1442695040888963407
		}
		rounds++
	}
	asJSON(w, map[string]any{"rounds": rounds, "x": x})
}

// spawn starts n processes that stay, and tells how many it got.
func spawn(w http.ResponseWriter, r *http.Request) {
	started := 0
	var failure error
	for range arg(r, "n", 1) {
		self, _ := os.Executable()
		command := exec.Command(self)
		command.Env = []string{"HELPER=sleep", "GOMAXPROCS=1"}
		if failure = command.Start(); failure != nil {
			break
		}
		started++
	}
	reason := ""
	if failure != nil {
		reason = failure.Error()
	}
	asJSON(w, map[string]any{"started": started, "error": reason})
}

func logLines(w http.ResponseWriter, r *http.Request) {
	text := r.URL.Query().Get("text")
	for range arg(r, "n", 1) {
		fmt.Fprintln(os.Stdout, "out "+text)
		fmt.Fprintln(os.Stderr, "err "+text)
	}
	io.WriteString(w, "logged")
}

// ready is 503 until READY_DELAY_MS have passed since the start.
func ready(w http.ResponseWriter, _ *http.Request) {
	if time.Since(started) < time.Duration(atoi(os.Getenv("READY_DELAY_MS"), 0))*time.Millisecond {
		http.Error(w, "not yet", http.StatusServiceUnavailable)
		return
	}
	io.WriteString(w, "ready")
}

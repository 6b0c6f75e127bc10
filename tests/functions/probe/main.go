// Probe is the function that the acceptance tests deploy. Every path is one behaviour, so that a test can
// ask for exactly the one it states a sentence about. Standard library only, static, Linux and FreeBSD.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

func main() {
	switch os.Getenv("HELPER") {
	case "sleep": // what /spawn starts: a process that only takes up room
		time.Sleep(time.Hour)
		return
	case "beside": // what `faas-jails exec` runs in a replica
		beside()
	case "attempt": // what /breakout starts
		tryOne()
		return
	case "breakout": // the harmless attempts, outside a sandbox
		json.NewEncoder(os.Stdout).Encode(tryAll(os.Getenv(envMarker), os.Getenv(envOutside), os.Getenv(envAddress), true))
		return
	case "who":
		fmt.Print(os.Geteuid())
		return
	case "nothing": // what /syscall?name=unshare starts
		return
	}
	if code := os.Getenv("EXIT_AT_START"); code != "" {
		fmt.Println("exiting at start with", code)
		os.Exit(atoi(code, 1))
	}
	if os.Getenv("IGNORE_TERM") == "1" {
		signal.Ignore(syscall.SIGTERM)
	}
	time.Sleep(time.Duration(atoi(os.Getenv("START_DELAY_MS"), 0)) * time.Millisecond)
	if os.Getenv("NEVER_LISTEN") == "1" {
		time.Sleep(time.Hour)
		return
	}
	if os.Getenv("METRICS") == "1" { // as watchdogs do
		go func() { log.Fatal(http.ListenAndServe(":8081", http.HandlerFunc(watchdogMetrics))) }()
	}
	fmt.Println("probe is listening")
	started = time.Now()
	// IDLE_TIMEOUT_MS: how long a kept connection may be idle; none by default.
	idle := time.Duration(atoi(os.Getenv("IDLE_TIMEOUT_MS"), 0)) * time.Millisecond
	for {
		// port: as watchdogs are told where to listen.
		listener, err := net.Listen("tcp", fmt.Sprintf(":%d", atoi(os.Getenv("port"), 8080)))
		if err != nil {
			log.Fatal(err)
		}
		server := &http.Server{Handler: routes(), IdleTimeout: idle}
		away := make(chan time.Duration, 1)
		go func() {
			pause := <-deaf
			away <- pause
			server.Shutdown(context.Background()) // the answer to /deaf is still given
		}()
		if err := server.Serve(listener); err != http.ErrServerClosed {
			log.Fatal(err)
		}
		time.Sleep(<-away)
	}
}

// deaf is told to close the listener and every connection for so long.
var deaf = make(chan time.Duration)

func goDeaf(w http.ResponseWriter, r *http.Request) {
	deaf <- time.Duration(arg(r, "ms", 0)) * time.Millisecond
	fmt.Fprintln(w, "for a while")
}

// started is when the listener was there.
var started time.Time

// atoi reads a number, or gives the default where there is none.
func atoi(text string, otherwise int) int {
	if n, err := strconv.Atoi(text); err == nil {
		return n
	}
	return otherwise
}

// arg reads a number from the query.
func arg(r *http.Request, name string, otherwise int) int {
	return atoi(r.URL.Query().Get(name), otherwise)
}

func routes() http.Handler {
	table := map[string]http.HandlerFunc{
		// about the request
		"/echo":    echoBody,
		"/headers": func(w http.ResponseWriter, r *http.Request) { asJSON(w, r.Header) },
		// about the replica
		"/env":      environment,
		"/hostname": hostname,
		"/id":       identity,
		"/files":    readFile,
		"/list":     listDirectory,
		"/write":    writeFile,
		"/mounts":   mounts,
		"/status":   status,
		"/caps":     capabilities,
		"/fds":      descriptors,
		"/net":      addresses,
		"/dial":     dial,
		"/dns":      lookup,
		"/syscall":  tryPrivileged,
		"/breakout": breakout,
		// about the answer
		"/sse":      events,
		"/ndjson":   lines,
		"/chunked":  chunked,
		"/big":      big,
		"/ws":       webSocket,
		"/redirect": redirect,
		"/garbage":  garbage,
		"/hang":     hang,
		"/deaf":     goDeaf,
		"/close":    reset,
		"/partial":  partial,
		"/notype":   noType,
		"/trailers": trailers,
		"/sink":     sink,
		// about load and life
		"/sleep":   sleep,
		"/exit":    exit,
		"/alloc":   allocate,
		"/spin":    spin,
		"/spawn":   spawn,
		"/log":     logLines,
		"/_/ready": ready,
		// about being called
		"/record":   record,
		"/recorded": recorded,
	}
	// No ServeMux: it would clean the path and redirect, and the tests are about the raw one.
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if handler, ok := table[r.URL.Path]; ok {
			handler(w, r)
			return
		}
		echoRequest(w, r)
	})
}

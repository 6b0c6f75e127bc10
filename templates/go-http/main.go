// The program around an HTTP handler: it listens on port 8080, and ends when it is asked to, after the requests
// under way.
package main

import (
	"context"
	"errors"
	"log"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	function "handler/function"
)

func main() {
	mux := http.NewServeMux()
	mux.HandleFunc("/_/health", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	mux.HandleFunc("/", function.Handle)
	server := &http.Server{
		Addr:           ":8080",
		Handler:        mux,
		ReadTimeout:    duration("read_timeout", time.Minute),
		WriteTimeout:   duration("write_timeout", time.Minute),
		MaxHeaderBytes: 1 << 20,
	}
	asked, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- server.ListenAndServe() }()
	select {
	case err := <-ended:
		log.Fatal(err)
	case <-asked.Done():
	}
	grace, cancel := context.WithTimeout(context.Background(), server.WriteTimeout)
	defer cancel()
	if err := server.Shutdown(grace); err != nil && !errors.Is(err, context.Canceled) {
		log.Print(err)
	}
}

// duration reads an environment variable: a Go duration, or a whole number of seconds.
func duration(name string, otherwise time.Duration) time.Duration {
	text := os.Getenv(name)
	if seconds, err := strconv.Atoi(text); err == nil && seconds > 0 {
		return time.Duration(seconds) * time.Second
	}
	if read, err := time.ParseDuration(text); err == nil && read > 0 {
		return read
	}
	return otherwise
}

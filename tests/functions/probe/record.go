package main

import (
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"
)

// recorder remembers the calls of /record for as long as the replica lives.
var recorder = struct {
	sync.Mutex
	calls map[string]int
	now   int
	most  int
}{calls: map[string]int{}}

// record notes the call under its id, after ms milliseconds; the first fail calls of an id are answered with code.
func record(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	id := r.URL.Query().Get("id")
	recorder.Lock()
	recorder.now++
	recorder.most = max(recorder.most, recorder.now)
	recorder.Unlock()
	time.Sleep(time.Duration(arg(r, "ms", 0)) * time.Millisecond)
	recorder.Lock()
	recorder.now--
	recorder.calls[id]++
	times := recorder.calls[id]
	recorder.Unlock()
	w.Header().Set("X-Recorded", id)
	if times <= arg(r, "fail", 0) {
		w.WriteHeader(arg(r, "code", http.StatusServiceUnavailable))
	}
	fmt.Fprintf(w, "%s call %d: %s", id, times, body)
}

// recorded tells how often each id was called, and how many calls there were at the same time.
func recorded(w http.ResponseWriter, _ *http.Request) {
	recorder.Lock()
	defer recorder.Unlock()
	asJSON(w, map[string]any{"calls": recorder.calls, "atOnce": recorder.most})
}

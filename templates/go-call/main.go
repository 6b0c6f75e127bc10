// The program around a plain Go function: a request's body is its arguments, a JSON array; the answer is what fmt.Print
// prints for its results.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"os/signal"
	"reflect"
	"syscall"
	"time"

	function "handler/function"
)

// Most bytes of a request's body.
const most = 1 << 20

var (
	handle   = reflect.ValueOf(function.Handle)
	failure  = reflect.TypeFor[error]()
	deadline = 30 * time.Second
)

func main() {
	mux := http.NewServeMux()
	mux.HandleFunc("/_/health", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	mux.HandleFunc("/", answer)
	server := &http.Server{Addr: ":8080", Handler: mux, ReadHeaderTimeout: deadline, MaxHeaderBytes: 1 << 20}
	asked, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	go func() {
		<-asked.Done()
		grace, cancel := context.WithTimeout(context.Background(), deadline)
		defer cancel()
		if err := server.Shutdown(grace); err != nil {
			log.Print(err)
		}
		os.Exit(0)
	}()
	if err := server.ListenAndServe(); err != http.ErrServerClosed {
		log.Fatal(err)
	}
	select {}
}

func answer(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, most))
	if err != nil {
		http.Error(w, err.Error(), http.StatusRequestEntityTooLarge)
		return
	}
	arguments, err := read(body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	var results []reflect.Value
	if handle.Type().IsVariadic() {
		results = handle.CallSlice(arguments)
	} else {
		results = handle.Call(arguments)
	}
	var printed []any
	for i, result := range results {
		if i == len(results)-1 && result.Type() == failure {
			if !result.IsNil() {
				http.Error(w, result.Interface().(error).Error(), http.StatusInternalServerError)
				return
			}
			continue
		}
		printed = append(printed, result.Interface())
	}
	fmt.Fprint(w, printed...)
}

// read turns a JSON array into the function's arguments; those of a variadic function's last parameter are one slice.
func read(body []byte) ([]reflect.Value, error) {
	var given []json.RawMessage
	if len(body) > 0 {
		if err := json.Unmarshal(body, &given); err != nil {
			return nil, fmt.Errorf("the body must be a JSON array of arguments: %w", err)
		}
	}
	kind := handle.Type()
	fixed := kind.NumIn()
	if kind.IsVariadic() {
		fixed--
	}
	if len(given) < fixed || (len(given) > fixed && !kind.IsVariadic()) {
		return nil, fmt.Errorf("Handle takes %d arguments, not %d", fixed, len(given))
	}
	var arguments []reflect.Value
	for i := range fixed {
		argument := reflect.New(kind.In(i))
		if err := json.Unmarshal(given[i], argument.Interface()); err != nil {
			return nil, fmt.Errorf("argument %d: %w", i+1, err)
		}
		arguments = append(arguments, argument.Elem())
	}
	if kind.IsVariadic() {
		rest := reflect.MakeSlice(kind.In(fixed), 0, len(given)-fixed)
		for i := fixed; i < len(given); i++ {
			argument := reflect.New(kind.In(fixed).Elem())
			if err := json.Unmarshal(given[i], argument.Interface()); err != nil {
				return nil, fmt.Errorf("argument %d: %w", i+1, err)
			}
			rest = reflect.Append(rest, argument.Elem())
		}
		arguments = append(arguments, rest)
	}
	return arguments, nil
}

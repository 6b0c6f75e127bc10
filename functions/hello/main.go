// Hello is the demo's function: it greets whoever the body names and says where it runs.
package main

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"runtime"
	"strings"
)

func main() {
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(io.LimitReader(r.Body, 1<<10))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		name := strings.TrimSpace(string(body))
		if name == "" {
			name = "world"
		}
		host, _ := os.Hostname()
		fmt.Printf("greeting %s\n", name)
		fmt.Fprintf(w, "Hello, %s! This is %s, process %d of its own on %s, user %d.\n", name, host, os.Getpid(), runtime.GOOS, os.Getuid())
	})
	log.Fatal(http.ListenAndServe(":8080", nil))
}

// Package function greets whoever the body names, and says which time it is where they are.
package function

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// Handle answers one request: the body is a name, the query's zone a time zone such as Europe/Copenhagen.
func Handle(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<10))
	if err != nil {
		http.Error(w, err.Error(), http.StatusRequestEntityTooLarge)
		return
	}
	name := strings.TrimSpace(string(body))
	if name == "" {
		name = "world"
	}
	zone := r.URL.Query().Get("zone")
	place, err := time.LoadLocation(zone)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	fmt.Fprintf(w, "Hello, %s! It is %s.\n", name, time.Now().In(place).Format("15:04 MST"))
}

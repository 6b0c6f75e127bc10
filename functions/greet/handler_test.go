package function

import (
	"net/http/httptest"
	"strings"
	"testing"
)

func TestGreetsByName(t *testing.T) {
	for body, expected := range map[string]string{"Ada\n": "Hello, Ada!", "": "Hello, world!"} {
		answer := httptest.NewRecorder()
		Handle(answer, httptest.NewRequest("POST", "/?zone=UTC", strings.NewReader(body)))
		if got := answer.Body.String(); !strings.HasPrefix(got, expected) || !strings.Contains(got, "UTC") {
			t.Errorf("%q: got %q", body, got)
		}
	}
}

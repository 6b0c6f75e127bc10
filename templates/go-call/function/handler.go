package function

import "strings"

// Handle repeats a text: call it with ["ab", 3].
func Handle(text string, times int) string {
	return strings.Repeat(text, times)
}

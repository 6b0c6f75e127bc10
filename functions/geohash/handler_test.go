package function

import "testing"

func TestKnownPlaces(t *testing.T) {
	if got, _ := Handle(57.64911, 10.40744); got != "u4pruydqqvj8" {
		t.Errorf("Jutland's north: %s", got)
	}
	if _, err := Handle(91, 0); err == nil {
		t.Error("a place beyond the pole was accepted")
	}
}

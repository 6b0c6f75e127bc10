// Package function turns a place into a geohash: a plain Go function, called with its arguments, such as
// [57.64911, 10.40744].
package function

import "fmt"

const alphabet = "0123456789bcdefghjkmnpqrstuvwxyz"

// Handle gives the geohash of twelve letters for a place in degrees.
func Handle(latitude, longitude float64) (string, error) {
	if latitude < -90 || latitude > 90 || longitude < -180 || longitude > 180 {
		return "", fmt.Errorf("%v, %v is no place on earth", latitude, longitude)
	}
	south, north, west, east := -90.0, 90.0, -180.0, 180.0
	hash := make([]byte, 0, 12)
	for letter, bits := 0, 0; len(hash) < 12; bits++ {
		low, high, value := &west, &east, longitude
		if bits%2 == 1 {
			low, high, value = &south, &north, latitude
		}
		letter <<= 1
		if middle := (*low + *high) / 2; value >= middle {
			letter |= 1
			*low = middle
		} else {
			*high = middle
		}
		if bits%5 == 4 {
			hash = append(hash, alphabet[letter])
			letter = 0
		}
	}
	return string(hash), nil
}

//go:build !race

package opendiskmap

const raceDetector = false

//go:build race

package opendiskmap

const raceDetector = true

package opendiskmap

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"strings"
	"time"
)

// Options say how a map is opened. The zero value, like nil, opens it for reading and writing and makes it if there is none.
type Options struct {
	ReadOnly      bool // write nothing, lock nothing, need no permission to write; the map must exist
	MustExist     bool // ErrNotFound instead of making a map
	MustCreate    bool // ErrExists instead of opening a map that is there
	VerifyReads   bool // check the checksums of every record that is read
	AnyFileSystem bool // also where the promises do not hold: network and layered file systems
	Salvage       bool // keep what is whole of a damaged map

	Capacity      uint64 // entries to make room for when the map is made
	CapacityBytes uint64 // bytes of keys and values to expect when the map is made
	Stripes       int    // write locks, a power of two up to 64, fixed when the map is made; 0: 16

	FileMode fs.FileMode   // permission bits of new files; 0: 0644 less the umask
	Wait     time.Duration // the longest wait for a live process that holds a lock; 0: 30 s; negative: only try

	// AnySchema opens a map whatever codecs it was made with, and makes one that keeps no names. The codecs given must fit
	// all the same; otherwise decoding fails.
	AnySchema bool
}

func (o *Options) flags() (flags uint32) {
	for _, f := range []struct {
		set  bool
		flag uint32
	}{
		{o.ReadOnly, flagReadOnly}, {o.MustExist, flagMustExist}, {o.MustCreate, flagMustCreate},
		{o.VerifyReads, flagVerifyReads}, {o.AnyFileSystem, flagAnyFileSystem}, {o.Salvage, flagSalvage},
	} {
		if f.set {
			flags |= f.flag
		}
	}
	return flags
}

// waitMs is Wait as odm_options has it. A wait below a millisecond is one: 0 would be 30 s.
func (o *Options) waitMs() uint32 {
	switch {
	case o.Wait < 0:
		return math.MaxUint32
	case o.Wait == 0:
		return 0
	}
	return uint32(min(max(o.Wait.Milliseconds(), 1), math.MaxUint32-1))
}

var errZeroByte = errors.New("the path has a zero byte in it")

// check finds what C could not be told.
func (o *Options) check(path string) error {
	switch {
	case strings.ContainsRune(path, 0):
		return errZeroByte
	case o.Stripes < 0 || uint64(o.Stripes) > math.MaxUint32: // C has 32 bits for it.
		return fmt.Errorf("Options.Stripes is %d: a power of two up to 64, or 0 for 16", o.Stripes)
	case o.FileMode&^fs.ModePerm != 0:
		return fmt.Errorf("Options.FileMode has more than permission bits: %v", o.FileMode)
	}
	return nil
}

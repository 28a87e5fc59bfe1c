package opendiskmap

import (
	"io/fs"
	"strings"
	"syscall"
)

// A Code is a status of the C interface. Negative ones are errors; the errors this package returns answer to them:
//
//	if errors.Is(err, opendiskmap.ErrNoSpace) { ... }
//
// The standard library's errors work where they mean the same: [fs.ErrNotExist], [fs.ErrExist], [fs.ErrClosed],
// [fs.ErrPermission], and any [syscall.Errno].
type Code int32

// The numbers are those of the C interface, and never change.
const (
	OK          Code = 0
	ErrNotFound Code = 1 // there is no such map; as an Outcome: no such key
	ErrExists   Code = 2 // the map is there already; as an Outcome: so is the key
	done        Code = 3
	conflict    Code = 4
	wouldBlock  Code = 5

	ErrInvalid     Code = -1  // an argument is not valid
	ErrIO          Code = -2  // the operating system reported an error; Error.Errno tells which
	ErrNoSpace     Code = -3  // the disk, a quota or a file size limit is full; the map is as before the call
	ErrNoMemory    Code = -4  // out of memory, address space or file descriptors
	ErrCorrupt     Code = -5  // the files of the map are damaged
	ErrVersion     Code = -6  // made by another version, or on a machine of another kind
	ErrReadOnly    Code = -7  // the map or its file system is open for reading only
	ErrTooBig      Code = -8  // the key or the value is too big
	ErrMismatch    Code = -9  // the map has another schema
	ErrBusy        Code = -10 // a live client held a lock for longer than Options.Wait
	ErrUnsupported Code = -11 // not supported here, or not in this version

	// ErrClosed is this package's own: the map was closed before the call.
	ErrClosed Code = -1001
	// ErrEncoding is this package's own: a value could not be encoded, or the bytes in the map are no encoding of one.
	ErrEncoding Code = -1002
)

// Error says what a code means, in one sentence without a full stop.
func (c Code) Error() string {
	switch c {
	case ErrClosed:
		return "the map was closed"
	case ErrEncoding:
		return "a value does not fit its encoding"
	}
	return codeMessage(c)
}

// Name is what C calls the code: "ODM_E_CORRUPT".
func (c Code) Name() string {
	switch c {
	case ErrClosed:
		return "ErrClosed"
	case ErrEncoding:
		return "ErrEncoding"
	}
	return codeName(c)
}

// Is makes a code answer to the errors of the standard library that mean the same.
func (c Code) Is(target error) bool {
	switch c {
	case ErrNotFound:
		return target == fs.ErrNotExist
	case ErrExists:
		return target == fs.ErrExist
	case ErrClosed:
		return target == fs.ErrClosed
	case ErrInvalid:
		return target == fs.ErrInvalid
	}
	return false
}

// An Error is what every failing call of a Map returns.
type Error struct {
	Op      string        // the operation: "open", "put", ...
	Path    string        // the map's directory; empty for a map in memory, and for a Field
	Code    Code          // what kind of failure
	Errno   syscall.Errno // the operating system's error; 0 if there is none
	Message string        // what exactly, in which file, and the cure if there is one; may be empty
	Err     error         // what a codec said; nil otherwise
}

// Error is "opendiskmap: open /var/cache/map: what happened".
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("opendiskmap: ")
	b.WriteString(e.Op)
	if e.Path != "" {
		b.WriteString(" ")
		b.WriteString(e.Path)
	}
	b.WriteString(": ")
	switch {
	case e.Err != nil:
		b.WriteString(e.Err.Error())
	case e.Message != "":
		b.WriteString(e.Message)
	default:
		b.WriteString(e.Code.Error())
	}
	return b.String()
}

// Unwrap gives the code, the operating system's error and the codec's, as far as there are any.
func (e *Error) Unwrap() []error {
	errs := []error{e.Code}
	if e.Errno != 0 {
		errs = append(errs, e.Errno)
	}
	if e.Err != nil {
		errs = append(errs, e.Err)
	}
	return errs
}

// Package opendiskmap is a hash map that is a directory on disk: many processes read and write it at the same time, reads
// copy nothing they need not, and it is still there after a crash.
//
//	colours, err := opendiskmap.OpenStringString("/var/lib/app/colours", nil)
//	if err != nil {
//		return err
//	}
//	defer colours.Close()
//	if err := colours.Put("red", "#ff0000"); err != nil {
//		return err
//	}
//	red, ok, err := colours.Get("red")
//
// A [Map] has typed keys and values. [Open] takes a [Codec] for each: one of the ready-made [U8] ... [F64], [Bool], [Str] and
// [Bytes], [JSON], [Struct] for structs whose fields are read in place, or one of your own. Other languages read and write
// the same bytes, so a map may be shared with programs in C, JavaScript and Lua.
//
// # Goroutines and processes
//
// All methods of a Map may be called by any number of goroutines at once. Any number of processes may have the map open. A
// put that has returned is seen by every later get in any of them. A get takes no lock and waits for nobody. Writers of
// different keys mostly work side by side: keys are spread over 16 locks.
//
// Nobody holds a lock between two calls. [Map.Update], [Add], [Map.GetOrPut] and [Map.CompareAndSwap] read a value with its
// version, and write only if it still is at that version; if not, they begin again. With an [Entry] that is up to you: its
// Put and Delete tell whether they wrote.
//
// # What survives what
//
// A put that has returned survives the death of its process, however it dies. It survives power loss once a [Map.Sync] has
// returned that was called after it, by whichever process. Without any sync the map still opens after power loss, with the
// writes up to some moment before. [Map.Close] is no sync.
//
// # Lifetimes
//
// Get and its relatives return copies. [Map.View], [Reader.Slice] and [Walk.Slices] hand out the map's own bytes, which are
// valid, and do not change, until the function or the loop's body ends. The memory is mapped for reading: writing to it ends
// the program.
//
// A map that is forgotten without Close is closed by the garbage collector, some time. Close it yourself.
//
// # Errors
//
// Every error of a Map, and of a [Field], is an [*Error], except those of a context or of a function you gave. Ask with [errors.Is] for a [Code], such as
// [ErrNoSpace], or for what the standard library calls it, such as [io/fs.ErrNotExist]. An absent key is no error.
//
// # cgo
//
// The engine is C, called through cgo: a C compiler is needed to build, CGO_ENABLED must be 1, and it runs on 64-bit
// little-endian Linux only. A call costs some 40 ns more than from C, which is why there are [Map.GetMany] and [Batch].
//
// On amd64 [Map.Get], [Map.View], [Map.Has] and a [Reader] mostly go without cgo, by assembly of the package internal/direct; the
// build tag opendiskmap_cgo_only has them go through it, too. Who looks up many keys in a row does so fastest in a [Map.Read].
package opendiskmap
